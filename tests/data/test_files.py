import pytest

from coltrain.data.files import Wanted, find_files, split_said_by
from coltrain.errors import DataError


def wanted(split="train", explicit=False, layout="auto"):
    return Wanted(split, explicit, layout, "pages")


TABLES = ["corpus", "queries", "qrels"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00082.parquet", "train"),
        ("data/test-00000-of-00001-0123456789abcdef.parquet", "test"),
        ("train/0000.parquet", "train"),
        ("my_train_pages.parquet", "train"),
        ("dev.parquet", "validation"),
        ("pages.parquet", None),
        ("latest.parquet", None),
        ("corpus/corpus-00000-of-00002.parquet", None),
    ],
)
def test_a_files_name_says_its_split(name, split):
    assert split_said_by(name) == split


def test_shards_of_the_split_are_taken_in_order():
    names = [f"data/{s}-0000{i}-of-00002.parquet" for i in (1, 0) for s in ("train", "test")]
    found = find_files([*names, "README.md"], wanted("test"))
    assert found.layout == "rows"
    assert found.files == ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"]


def test_a_split_of_its_own_name_is_found():
    found = find_files(["hard.parquet", "train.parquet"], wanted("hard", explicit=True))
    assert found.files == ["hard.parquet"]


def test_files_that_name_no_split_are_any_default_split():
    assert find_files(["b.parquet", "a.parquet"], wanted("test")).files == [
        "a.parquet",
        "b.parquet",
    ]
    with pytest.raises(DataError, match=r"\[unknown-split\]") as caught:
        find_files(["a.parquet"], wanted("test", explicit=True))
    assert caught.value.expected == "no split: the data name none"


def test_an_unknown_split_says_which_there_are():
    names = ["data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"]
    with pytest.raises(DataError) as caught:
        find_files(names, wanted("test"))
    assert str(caught.value) == (
        "DataError [unknown-split]: there is no split 'test'.\n"
        "  where     pages\n"
        "  received  test (the default here)\n"
        "  expected  train or validation\n"
        "  try       {path: pages, split: train}"
    )


def test_a_missing_shard_is_noticed():
    names = [f"data/train-0000{i}-of-00004.parquet" for i in (0, 3)]
    with pytest.raises(DataError, match=r"\[missing-file\]: 2 of 4 files are not there") as caught:
        find_files(names, wanted())
    assert caught.value.expected == "also data/train-00001-of-00004.parquet"


@pytest.mark.parametrize(
    ("names", "corpus"),
    [
        ([f"{t}.parquet" for t in TABLES], ["corpus.parquet"]),
        ([f"{t}/part.parquet" for t in TABLES], ["corpus/part.parquet"]),
        (
            [f"{t}/{s}-00000-of-00001.parquet" for t in TABLES for s in ("test", "train")],
            ["corpus/train-00000-of-00001.parquet"],
        ),
        ([f"{s}/{t}.parquet" for t in TABLES for s in ("test", "train")], ["train/corpus.parquet"]),
        (
            [f"{s}/{t}/{i}.parquet" for t in TABLES for s in ("test", "train") for i in "ba"],
            ["train/corpus/a.parquet", "train/corpus/b.parquet"],
        ),
    ],
)
def test_the_corpus_layout_is_recognised(names, corpus):
    found = find_files(names, wanted())
    assert found.layout == "corpus"
    assert found.tables["corpus"] == corpus
    assert list(found.tables) == TABLES


@pytest.mark.parametrize("missing", ["corpus", "queries"])
def test_a_corpus_without_one_of_its_tables_is_not_complete(missing):
    there = [table for table in TABLES if table != missing]
    with pytest.raises(DataError) as caught:
        find_files([f"train/{table}.parquet" for table in there], wanted())
    assert str(caught.value) == (
        "DataError [missing-file]: the data set is not complete.\n"
        "  where     pages\n"
        f"  received  train/{' and '.join(sorted(there))} only\n"
        f"  expected  train/{missing}.parquet, or folders of these names"
    )


def test_pages_and_rows_without_judgements_may_be_training_rows():
    names = ["corpus.parquet", "queries.parquet"]
    found = find_files(names, wanted())
    assert found.layout == "negatives"
    assert found.tables == {"corpus": ["corpus.parquet"], "rows": ["queries.parquet"]}
    names = ["corpus/0.parquet", "data/test.parquet", "data/train.parquet"]
    assert find_files(names, wanted("test")).tables["rows"] == ["data/test.parquet"]
    inside = [f"train/{name}.parquet" for name in ("corpus", "rows")]
    assert find_files(inside, wanted()).tables == {
        "corpus": ["train/corpus.parquet"],
        "rows": ["train/rows.parquet"],
    }
    with pytest.raises(DataError, match=r"\[missing-file\]: the data set is not complete"):
        find_files(["corpus.parquet", "queries.parquet"], wanted(layout="corpus"))


def test_mined_negatives_stand_beside_a_corpus():
    names = [f"{table}.parquet" for table in (*TABLES, "negatives")]
    found = find_files(names, wanted())
    assert found.layout == "corpus"
    assert found.tables["negatives"] == ["negatives.parquet"]
    assert find_files(names, wanted(layout="negatives")).tables == found.tables
    with pytest.raises(DataError) as caught:
        find_files(names[:3], wanted(layout="negatives"))
    assert caught.value.expected == "negatives.parquet, or folders of these names"


def test_a_split_without_its_folder_is_unknown():
    names = [f"{s}/{t}.parquet" for t in TABLES for s in ("test", "train")]
    with pytest.raises(DataError, match=r"\[unknown-split\]: there is no split 'dev'") as caught:
        find_files(names, wanted("dev"))
    assert caught.value.expected == "test or train"


def test_the_layout_can_be_forced():
    names = [f"{t}.parquet" for t in TABLES]
    assert find_files(names, wanted(layout="rows")).layout == "rows"
    with pytest.raises(DataError, match=r"\[missing-file\]: this is not a data set in the corpus"):
        find_files(["data/train.parquet"], wanted(layout="corpus"))


def test_no_parquet_file_is_no_data():
    assert find_files(["README.md"], wanted()) is None
