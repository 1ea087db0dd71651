"""Every row with the digests of its pages: what a run keeps to name a row that changed."""

import gzip
from dataclasses import replace

import pytest
from small_pages import small_collection

from coltrain.data.check import check_collection
from coltrain.data.collection import Query
from coltrain.data.images import SelectedImages
from coltrain.data.row_contents import (
    content_hash,
    lines_of,
    read_row_contents,
    write_row_contents,
)
from coltrain.errors import RunError


@pytest.fixture(scope="module")
def collection():
    return small_collection("small", 5)


def digests_of(collection):
    return check_collection(collection).page_digests


def written(path, collection):
    lines = list(lines_of(collection, digests_of(collection)))
    write_row_contents(path, {"train": [(collection.name, lines)], "eval": []})
    return read_row_contents(path)


def test_what_was_written_is_read(collection, tmp_path):
    (found,) = written(tmp_path / "rows.gz", collection)
    assert (found.use, found.name) == ("train", "small")
    assert list(found.pages) == collection.page_ids
    assert list(found.queries.items()) == [(q.id, q.text) for q in collection.queries]
    assert [row[:2] for row in found.rows] == [
        (collection.queries[row.query].id, collection.page_ids[row.page]) for row in collection.rows
    ]
    assert len(set(found.pages.values())) == 5
    assert None not in found.pages.values()


def test_the_same_data_are_the_same_bytes(collection, tmp_path):
    for name in ("a.gz", "b.gz"):
        written(tmp_path / name, collection)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_a_page_that_changed_under_its_id_is_seen_where_the_fingerprint_is_blind(collection):
    swapped = replace(collection, images=SelectedImages(collection.images, [0, 1, 3, 2, 4]))
    assert swapped.fingerprint() == collection.fingerprint()
    before, after = digests_of(collection), digests_of(swapped)
    changed = [page for page in collection.page_ids if before[page] != after[page]]
    assert changed == collection.page_ids[2:4]
    hashes = {content_hash(lines_of(one, digests_of(one))) for one in (collection, swapped)}
    assert len(hashes) == 2


def test_a_query_that_changed_is_seen(collection):
    queries = [
        Query(q.id, q.text + "?" * (place == 3)) for place, q in enumerate(collection.queries)
    ]
    other = replace(collection, queries=queries)
    hashes = {content_hash(lines_of(one, None)) for one in (collection, other)}
    assert len(hashes) == 2


def test_pages_that_nobody_read_are_null(collection):
    lines = list(lines_of(collection, None))
    assert lines[0] == ["page", collection.page_ids[0], None]


def test_a_file_that_is_cut_off_is_one_clear_error(collection, tmp_path):
    path = tmp_path / "rows.gz"
    written(path, collection)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(RunError, match="broken-run-file"):
        read_row_contents(path)
    path.write_bytes(gzip.compress(b'["page", "p", null]\n'))  # of no set
    with pytest.raises(RunError, match="broken-run-file"):
        read_row_contents(path)
