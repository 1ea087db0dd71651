import os
import pickle
import subprocess
import sys

import datasets
import pytest

from coltrain.data import load_collection
from coltrain.errors import DataError
from coltrain.recipe.source import Source


def load(path, split="train"):
    return load_collection(Source(path=str(path)), split)


def test_a_missing_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "receipts").mkdir()
    with pytest.raises(DataError) as caught:
        load(tmp_path / "reciepts")
    assert str(caught.value) == (
        "DataError [data-not-found]: there is no such data folder.\n"
        f"  where     {tmp_path}/reciepts\n"
        f"  received  {tmp_path}/reciepts\n"
        "  expected  a folder that holds parquet files\n"
        f"  try       {tmp_path}/receipts"
    )


def test_a_path_that_no_hub_name_looks_like_is_a_missing_folder():
    with pytest.raises(DataError, match=r"\[data-not-found\]: there is no such data folder"):
        load("data/outline/train")


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "pages.parquet").touch()
    with pytest.raises(DataError, match=r"\[data-not-found\]: this is not a folder"):
        load(tmp_path / "pages.parquet")


def test_a_folder_without_tables_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"\[missing-file\]: the folder holds no parquet") as caught:
        load(tmp_path)
    assert caught.value.received == "notes.txt"


def test_a_file_that_is_no_parquet_is_a_broken_file(tmp_path, write_corpus):
    folder = write_corpus(tmp_path / "pages")
    (folder / "qrels.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"\[broken-file\]: a table cannot be read") as caught:
        load(folder)
    assert str(folder / "qrels.parquet") in caught.value.where


def test_a_relative_folder_is_looked_up_from_where_the_command_runs(
    tmp_path, write_corpus, monkeypatch
):
    write_corpus(tmp_path / "data" / "pages" / "train")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert load("../data/pages").name == "pages/train"
    monkeypatch.chdir(tmp_path)
    assert load("data/pages").name == "pages/train"  # looks like a hub name, and is there


def test_signs_in_a_folders_name_are_no_pattern(tmp_path, write_corpus):
    for name in ("[a] b*", "pages{1,2}", "x?", "ü ñ"):
        assert len(load(write_corpus(tmp_path / name)).rows) == 3


def test_a_hidden_folder_holds_no_data(tmp_path, write_table, png):
    write_table(tmp_path / ".cache" / "train.parquet", query=["old"], image=[png(0)])
    write_table(tmp_path / "train.parquet", query=["new"], image=[png(0)])
    assert [query.text for query in load(tmp_path).queries] == ["new"]


def test_a_changed_file_is_read_again(tmp_path, write_table, png):
    file = write_table(tmp_path / "train.parquet", query=["old"], image=[png(0)])
    assert load(tmp_path).queries[0].text == "old"
    write_table(file, query=["new"], image=[png(0)])
    os.utime(file, (1, 1))
    assert load(tmp_path).queries[0].text == "new"


def test_rows_of_a_folder_are_named_by_their_split(tmp_path, write_table, png):
    folder = tmp_path / "scans" / "pages"
    for split in ("train", "test"):
        write_table(
            folder / "data" / f"{split}-00000-of-00001.parquet", query=[split], image=[png(0)]
        )
    assert load(folder).name == "scans/pages:train"
    assert load(folder, "test").queries[0].text == "test"
    said = Source(path=str(folder), split="test")
    assert load_collection(said, "train").queries[0].text == "test"
    with pytest.raises(DataError, match=r"\[unknown-split\]: there is no split 'dev'"):
        load_collection(Source(path=str(folder), split="dev"), "train")


def saved(png, *texts):
    columns = {"query": list(texts), "image": [{"bytes": png(4), "path": None} for _ in texts]}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def test_a_folder_of_save_to_disk_is_read(tmp_path, png):
    saved(png, "how").save_to_disk(tmp_path / "one")
    collection = load(tmp_path / "one")
    assert collection.layout == "rows"
    assert collection.page_image(0).getpixel((0, 0)) == (4, 0, 0)
    both = datasets.DatasetDict(train=saved(png, "how"), test=saved(png, "what", "why"))
    both.save_to_disk(tmp_path / "both")
    assert len(load(tmp_path / "both", "test").rows) == 2
    assert len(load(tmp_path / "both" / "test").rows) == 2
    with pytest.raises(DataError, match=r"\[unknown-split\]: there is no split 'dev'") as caught:
        load(tmp_path / "both", "dev")
    assert caught.value.expected == "test or train"


def test_no_page_is_decoded_before_it_is_asked_for(tmp_path, write_corpus, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "coltrain.data.images.Image.open", lambda *a: decoded.append(a) or pytest.fail("decoded")
    )
    collection = load(write_corpus(tmp_path / "pages"))
    collection.fingerprint()
    pickle.loads(pickle.dumps(collection))
    assert decoded == []


@pytest.mark.slow
def test_a_spawned_worker_reads_pages_from_a_pickle_without_their_bytes(
    tmp_path, write_corpus, png
):
    noise = os.urandom(200_000)
    folder = write_corpus(
        tmp_path / "pages",
        corpus={"doc_id": ["p0", "p1", "p2", "p3"], "image": [png(i) + noise for i in range(4)]},
    )
    pickled = pickle.dumps(load(folder))
    assert len(pickled) < 20_000
    (tmp_path / "collection.pickle").write_bytes(pickled)
    script = (
        "import pickle, sys; c = pickle.load(open(sys.argv[1], 'rb')); "
        "print(c.page_image(2).getpixel((0, 0)), len(c.rows))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "collection.pickle")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "(2, 0, 0) 3\n"


def test_an_unknown_split_of_the_drawn_pages_is_refused():
    with pytest.raises(DataError, match=r"\[unknown-split\]: there is no split 'tset'") as caught:
        load("tiny:tset")
    assert caught.value.expected == "tiny:train, tiny:dev or tiny:test"


def test_the_room_opens_without_datasets_or_torch():
    script = "import sys, coltrain.data; print({'torch', 'datasets', 'pyarrow'} & {*sys.modules})"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout == "set()\n"


def test_home_is_expanded(tmp_path, write_corpus, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_corpus(tmp_path / "pages" / "train")
    assert load("~/pages").name == "pages/train"
