"""A page from the cache equals one from its file, to the bit."""

import os
import pickle

import numpy as np
import pytest
import torch
from jpeg_pages import jpeg_collection

from coltrain.data.collection import Collection
from coltrain.errors import ModelError
from coltrain.model.page_cache import PageCache, PageCounts, page_identity
from coltrain.model.vision_cache import FeatureStore

NUM_PAGES = 6


@pytest.fixture(scope="module")
def collection():
    return jpeg_collection("jpeg", NUM_PAGES)


@pytest.fixture
def cache(tmp_path, collection, tiny_retriever):
    def open_at(folder="pages", max_gib=1.0):
        preparer = tiny_retriever.built.preparer
        store = FeatureStore(tmp_path / folder, page_identity(preparer, "exact"), max_gib)
        return PageCache(store, collection, preparer)

    return open_at


def assert_same_page(ours, theirs):
    assert torch.equal(ours.pixel_values, theirs.pixel_values)
    assert (ours.grid_height, ours.grid_width) == (theirs.grid_height, theirs.grid_width)


def read_all(cache):
    return [cache.page(index) for index in range(NUM_PAGES)]


def test_a_page_that_is_found_equals_one_that_is_decoded_and_is_not_decoded(
    cache, collection, tiny_retriever, monkeypatch
):
    preparer = tiny_retriever.built.preparer
    expected = [preparer.prepare_page(collection.page_pixels(n)) for n in range(NUM_PAGES)]
    modes = {collection.page_pixels(n).mode for n in range(NUM_PAGES)}
    assert modes == {"L", "RGB"}
    assert len({page.pixel_values.shape for page in expected}) > 1
    first = cache()
    for page, known in zip(read_all(first), expected, strict=True):
        assert_same_page(page, known)
    assert first.counts == PageCounts(misses=NUM_PAGES)

    def decoded(*_):
        raise AssertionError("a page was decoded though its pixels are known")

    monkeypatch.setattr(Collection, "page_pixels", decoded)
    second = cache()
    for page, known in zip(read_all(second), expected, strict=True):
        assert_same_page(page, known)
    assert second.counts == PageCounts(hits=NUM_PAGES)


def test_a_page_takes_a_byte_a_pixel_and_channel(cache, collection, tmp_path, tiny_retriever):
    read_all(cache())
    [segment] = (tmp_path / "pages").glob("*/*.features")
    preparer = tiny_retriever.built.preparer
    pixels = [preparer.resized_page(collection.page_pixels(n)) for n in range(NUM_PAGES)]
    assert segment.stat().st_size == sum(one.size for one in pixels)
    assert all(one.dtype == np.uint8 for one in pixels)


def test_a_damaged_page_is_noticed_counted_and_made_again(cache, tmp_path):
    expected = read_all(cache())
    [segment] = (tmp_path / "pages").glob("*/*.features")
    content = bytearray(segment.read_bytes())
    content[5] ^= 1
    segment.write_bytes(content)
    second = cache()
    for page, known in zip(read_all(second), expected, strict=True):
        assert_same_page(page, known)
    assert second.counts == PageCounts(hits=NUM_PAGES - 1, misses=1, repaired=1)
    third = cache()
    read_all(third)
    assert third.counts == PageCounts(hits=NUM_PAGES)


def test_a_full_folder_is_used_and_takes_no_more(cache):
    expected = read_all(cache("large"))
    small = cache("small", max_gib=3e-4)
    for _ in range(2):
        for page, known in zip(read_all(small), expected, strict=True):
            assert_same_page(page, known)
    assert 0 < small.counts.not_stored < small.counts.misses
    assert 0 < small.counts.hits < NUM_PAGES


def test_what_moves_pixels_has_pages_of_its_own(tiny_retriever):
    preparer = tiny_retriever.built.preparer
    known = page_identity(preparer, "exact")
    assert page_identity(preparer.using(), "exact") == known
    others = [
        page_identity(preparer, "draft"),
        page_identity(preparer.using(max_visual_tokens=16), "exact"),
        page_identity(preparer.using(alpha="white"), "exact"),
    ]
    assert all(other != known for other in others)


def test_a_process_that_was_forked_writes_a_segment_of_its_own(cache, tmp_path):
    ours = cache()
    ours.page(0)
    child = os.fork()
    if child == 0:
        try:
            ours.page(1)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    ours.page(2)
    assert len(list((tmp_path / "pages").glob("*/*.features"))) == 2
    assert ours.counts == PageCounts(misses=3)  # the child's is counted, too
    again = cache()
    read_all(again)
    assert (again.counts.hits, again.counts.repaired) == (3, 0)


def test_the_store_of_pages_travels_to_a_worker(cache):
    ours = cache()
    expected = ours.page(0)
    store = pickle.loads(pickle.dumps(ours._store))
    found, num_damaged = store.read(ours._hashes[0])
    assert num_damaged == 0
    assert found.tokens.dtype == torch.uint8
    assert found.grid_height == expected.grid_height


def test_a_folder_that_cannot_be_made_names_the_key_of_pages(tmp_path, tiny_retriever):
    (tmp_path / "file").write_text("")
    identity = page_identity(tiny_retriever.built.preparer, "exact")
    with pytest.raises(ModelError, match=r"pages cannot be kept on disk") as raised:
        FeatureStore(tmp_path / "file" / "pages", identity, 1.0)
    assert raised.value.suggestion == "another data.page_cache.path, or null to do without"
