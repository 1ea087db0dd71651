"""What a README declares, and benchmarks with a table for each language."""

import pytest

from coltrain.data import load_collection
from coltrain.data.configs import by_language, declared, of_folders
from coltrain.data.files import Wanted, find_files
from coltrain.errors import DataError
from coltrain.recipe.source import Source

LANGUAGES = ("english", "french")
TABLES = ("corpus", "queries", "qrels")


def wanted(split="test", **more):
    return Wanted(
        split, more.pop("is_explicit", False), more.pop("layout", "auto"), "pages", **more
    )


def readme(*configs):
    lines = ["---", "license: mit", "configs:"]
    for name, *splits in configs:
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits:
            lines += [f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", "# Pages", ""])


def test_a_readme_maps_files_to_configurations_and_splits():
    names = ["a/x-0.parquet", "a/x-1.parquet", "a/deep/x-2.parquet", "b/y.parquet", "b/notes.csv"]
    text = readme(
        ("one", ("train", "a/x-*"), ("test", "a/**")),
        ("two", ("test", "b/*")),
        ("three", ("test", "b")),
    )
    one, two, three = declared(text, names, "pages")
    assert one.splits == {
        "train": ["a/x-0.parquet", "a/x-1.parquet"],
        "test": ["a/deep/x-2.parquet", "a/x-0.parquet", "a/x-1.parquet"],
    }
    assert two.splits == three.splits == {"test": ["b/y.parquet"]}


@pytest.mark.parametrize(
    ("data_files", "splits"),
    [
        ('"*.parquet"', {"train": ["x.parquet"]}),
        ('["x.*", "a/y.parquet"]', {"train": ["x.parquet", "a/y.parquet"]}),
        (
            '[{split: dev, path: ["a/?.parquet", "x.parquet"]}]',
            {"dev": ["a/y.parquet", "x.parquet"]},
        ),
        ("{split: test, path: ./x.parquet}", {"test": ["x.parquet"]}),
    ],
)
def test_every_form_of_data_files_is_read(data_files, splits):
    text = f"---\nconfigs:\n- config_name: default\n  data_files: {data_files}\n---\n"
    [one] = declared(text, ["x.parquet", "a/y.parquet"], "pages")
    assert one.splits == splits


@pytest.mark.parametrize(
    "text", ["", "# Pages\n", "---\nlicense: mit\n---\n", "a\n---\nconfigs:\n---\n"]
)
def test_a_readme_without_configurations_declares_nothing(text):
    assert declared(text, ["x.parquet"], "pages") == []


@pytest.mark.parametrize(
    "text", ["---\nconfigs: [\n---\n", "---\nconfigs: 3\n---\n", "---\nconfigs:\n- a\n---\n"]
)
def test_a_broken_readme_is_named(text):
    with pytest.raises(DataError, match=r"\[broken-readme\]") as caught:
        declared(text, ["x.parquet"], "pages")
    assert caught.value.where == "pages, README.md"


def test_rows_come_from_the_split_that_the_readme_says():
    names = ["first.parquet", "second.parquet"]  # whose names say nothing
    text = readme(("default", ("train", "second.parquet"), ("test", "first.parquet")))
    found = find_files(names, wanted("train"), declared(text, names, "pages"))
    assert (found.layout, found.files) == ("rows", ["second.parquet"])
    with pytest.raises(DataError, match="unknown-split"):
        find_files(names, wanted("dev"), declared(text, names, "pages"))


def test_a_configuration_is_chosen_by_name_by_default_or_because_it_is_alone():
    names = ["a.parquet", "b.parquet"]
    text = readme(("one", ("test", "a.parquet")), ("two", ("test", "b.parquet")))
    several = declared(text, names, "pages")
    assert find_files(names, wanted(config="two"), several).files == ["b.parquet"]
    assert find_files(names, wanted(), several[:1]).files == ["a.parquet"]
    marked = declared(
        text.replace("config_name: two", "config_name: two\n  default: true"), names, "p"
    )
    assert find_files(names, wanted(), marked).files == ["b.parquet"]
    with pytest.raises(DataError) as caught:
        find_files(names, wanted(), several)
    assert str(caught.value) == (
        "DataError [unknown-config]: the data set has several configs, and none is named.\n"
        "  where     pages\n"
        "  received  no `config`\n"
        "  expected  one or two\n"
        "  try       {path: pages, config: one}"
    )
    with pytest.raises(DataError, match="there is no config 'three'"):
        find_files(names, wanted(config="three"), several)
    with pytest.raises(DataError, match="there is no config 'three'"):
        find_files(names, wanted(config="three"))


def test_files_that_a_readme_names_and_that_are_not_there():
    text = readme(("default", ("test", "c.parquet")))
    with pytest.raises(DataError, match=r"\[missing-file\]: the README names files"):
        find_files(["a.parquet"], wanted(), declared(text, ["a.parquet"], "pages"))


def language_files():
    return [f"{one}-{table}/test-00000-of-00001.parquet" for one in LANGUAGES for table in TABLES]


@pytest.mark.parametrize("is_declared", [True, False])
def test_each_language_has_its_tables(is_declared):
    names = language_files()
    text = readme(
        *(
            (f"{one}-{table}", ("test", f"{one}-{table}/test-*"))
            for one in LANGUAGES
            for table in TABLES
        )
    )
    configurations = declared(text, names, "pages") if is_declared else []
    found = find_files(names, wanted(language="french"), configurations)
    assert (found.layout, found.language) == ("corpus", None)
    assert found.tables == {t: [f"french-{t}/test-00000-of-00001.parquet"] for t in TABLES}
    with pytest.raises(DataError) as caught:
        find_files(names, wanted(), configurations)
    assert caught.value.code == "unknown-language"
    assert caught.value.expected == "english or french"
    with pytest.raises(DataError, match="there is no language 'latin'"):
        find_files(names, wanted(language="latin"), configurations)
    only = [name for name in names if name.startswith("french")]
    assert find_files(only, wanted()).tables["corpus"] == [only[0]]


def test_a_corpus_in_a_split_of_its_own_serves_all_judgements():
    names = ["c.parquet", "q.parquet", "r-test.parquet", "r-dev.parquet"]
    text = readme(
        ("corpus", ("corpus", "c.parquet")),
        ("query", ("queries", "q.parquet")),
        ("default", ("test", "r-test.parquet"), ("dev", "r-dev.parquet")),
    )
    found = find_files(names, wanted(), declared(text, names, "pages"))
    assert found.tables == {
        "corpus": ["c.parquet"],
        "queries": ["q.parquet"],
        "qrels": ["r-test.parquet"],
    }
    with pytest.raises(DataError, match="unknown-split"):
        find_files(names, wanted("train"), declared(text, names, "pages"))


def test_languages_need_all_three_tables():
    assert by_language(of_folders(language_files()[:-1])).keys() == {"english"}


def test_a_language_of_a_folder_on_disk(tmp_path, write_table, png):
    for place, language in enumerate(LANGUAGES):
        folder = tmp_path / "pages"
        write_table(
            folder / f"{language}-corpus" / "test-0.parquet", id=[7, 8], image=[png(1), png(2)]
        )
        write_table(folder / f"{language}-queries" / "test-0.parquet", id=["q"], text=[language])
        write_table(
            folder / f"{language}-qrels" / "test-0.parquet",
            query__id=["q"],
            corpus__id=["7"],  # as text, where the corpus has numbers
            score=[1 + place],
        )
    source = {"path": str(tmp_path / "pages"), "language": "french"}
    collection = load_collection(Source.model_validate(source), "test")
    assert [query.text for query in collection.queries] == ["french"]
    assert collection.qrels == {"q": {"7": 2}}
    assert collection.page_ids == ["7", "8"]


def write_with_language_column(folder, write_table, png):
    write_table(
        folder / "corpus" / "test-00000-of-00001.parquet",
        corpus_id=[0, 1, 2],
        doc_id=["report", "report", "slides"],  # the page's document, which is no id of a page
        image=[png(1), png(2), png(3)],
    )
    write_table(
        folder / "queries" / "test-00000-of-00001.parquet",
        query__id=[0, 1, 2],
        query=["how", "comment", "why"],
        language=["english", "french", "english"],
    )
    write_table(
        folder / "qrels" / "test-00000-of-00001.parquet",
        query__id=[0, 1, 2],
        corpus__id=[1, 1, 2],
        score=[1.0, 2.0, 1.0],
    )
    return folder


def test_a_column_of_languages_chooses_queries(tmp_path, write_table, png):
    folder = str(write_with_language_column(tmp_path / "pages", write_table, png))
    everything = load_collection(Source.model_validate(folder), "test")
    assert everything.page_ids == ["0", "1", "2"]
    assert len(everything.queries) == 3
    english = load_collection(Source(path=folder, language="english"), "test")
    assert [query.text for query in english.queries] == ["how", "why"]
    assert english.qrels == {"0": {"1": 1}, "2": {"2": 1}}
    assert len(english.rows) == 2
    assert english.left_out == {"filtered": 1}
    assert english.findings == ()
    with pytest.raises(DataError) as caught:
        load_collection(Source(path=folder, language="latin"), "test")
    assert caught.value.expected == "english or french"


def test_rows_have_no_language(tmp_path, write_table, png):
    write_table(tmp_path / "p" / "test.parquet", query=["q"], image=[png(1)], image_filename=["a"])
    with pytest.raises(DataError, match=r"`language` is for data in the corpus layout"):
        load_collection(Source(path=str(tmp_path / "p"), language="english"), "test")


def test_a_readme_in_a_folder_is_read(tmp_path, write_table, png):
    folder = tmp_path / "pages"
    for name, text in (("a", "one"), ("b", "two")):
        write_table(folder / f"{name}.parquet", query=[text], image=[png(1)], image_filename=["x"])
    (folder / "README.md").write_text(
        readme(("default", ("train", "b.parquet"), ("test", "a.parquet")))
    )
    for split, text in (("train", "two"), ("test", "one")):
        collection = load_collection(Source.model_validate(str(folder)), split)
        assert [query.text for query in collection.queries] == [text]


@pytest.mark.parametrize("key", ["config", "language"])
@pytest.mark.parametrize("path", ["tiny:train", "colpali_train_set_detailed"])
def test_what_would_be_ignored_is_refused(path, key):
    with pytest.raises(DataError, match=f"a data set of this kind has no {key}"):
        load_collection(Source.model_validate({"path": path, key: "english"}), "train")
