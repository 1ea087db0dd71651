import pytest

from coltrain.errors import RecipeError
from coltrain.recipe import Source


@pytest.mark.parametrize(
    ("text", "path", "revision"),
    [
        ("vidore/colpali_train_set", "vidore/colpali_train_set", None),
        ("vidore/colpali_train_set@abc123", "vidore/colpali_train_set", "abc123"),
        ("colpali_train_set_detailed", "colpali_train_set_detailed", None),
        ("tiny:train", "tiny:train", None),
        ("./pages", "./pages", None),
        ("../pages@home", "../pages@home", None),
        ("/data/pages", "/data/pages", None),
        ("~/pages", "~/pages", None),
    ],
)
def test_a_string_says_path_and_revision(text, path, revision):
    source = Source.model_validate(text)
    assert (source.path, source.revision) == (path, revision)
    assert (source.split, source.layout) == (None, "auto")


def test_a_mapping_may_hold_the_revision_in_its_path():
    source = Source.model_validate({"path": "a/b@c", "split": "test"})
    assert (source.path, source.revision, source.split) == ("a/b", "c", "test")


@pytest.mark.parametrize(
    "value",
    [
        "vidore/colpali_train_set",
        "vidore/colpali_train_set@abc",
        "./pages@home",
        {"path": "./pages", "split": "dev", "layout": "corpus"},
        {"path": "a/b", "revision": "c"},
        {"path": "./rows", "corpus": "./pages", "filter": "gold_in_top_100", "weight": 0.5},
        {"path": "./rows", "weight": 2},
    ],
)
def test_a_source_survives_being_written_and_read(value):
    source = Source.model_validate(value)
    assert Source.model_validate(source.model_dump(mode="json")) == source


def test_a_source_with_a_path_only_is_written_as_a_string():
    assert Source.model_validate({"path": "./pages@home"}).model_dump() == "./pages@home"
    assert Source.model_validate("a/b@c").model_dump() == {
        "path": "a/b",
        "revision": "c",
        "split": None,
        "layout": "auto",
    }


def test_drawn_pages_and_folders_are_told_apart():
    assert Source.model_validate("tiny:train").is_builtin
    assert not Source.model_validate("tiny/train").is_builtin
    assert Source.model_validate("../pages").is_folder
    assert not Source.model_validate("vidore/pages").is_folder


@pytest.mark.parametrize(
    ("value", "where", "expected"),
    [
        (3, "[0]", "a source: a hub name, a folder such as ./pages, tiny:train, or a mapping"),
        ("", "[0].path", "a text that is not empty"),
        ("a/b@", "[0]", "name@revision, or a name alone"),
        ("@main", "[0]", "name@revision, or a name alone"),
        ({"path": "a@b", "revision": "c"}, "[0]", 'one revision, not "b" and `revision` as well'),
        ({"split": "train"}, "[0].path", "a text that is not empty"),
        (
            {"path": "a", "corpus": "b", "layout": "rows"},
            "[0]",
            "`corpus` with the layout negatives",
        ),
        ({"path": "a", "weight": 0}, "[0].weight", "a number above 0, or null"),
        ({"path": "a", "weight": "2"}, "[0].weight", "a number above 0, or null"),
        ({"path": "a", "layout": "row"}, "[0].layout", "auto, rows, corpus, negatives or mix"),
    ],
)
def test_a_source_that_cannot_be_one_is_refused(with_values, value, where, expected):
    with pytest.raises(RecipeError) as caught:
        with_values(data__train=[value])
    assert caught.value.where == f"recipe: data.train{where}"
    assert caught.value.expected.startswith(expected)


def test_an_unknown_key_of_a_source_names_the_nearest(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(eval__data=["a", {"path": "b", "splits": "test"}])
    assert caught.value.code == "unknown-key"
    assert caught.value.suggestion == "eval.data[1].split"
    assert (
        caught.value.expected
        == "one of path, revision, split, layout, corpus, filter, config, language, weight"
    )


def test_one_source_without_its_list_is_refused_with_the_list(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(data__train="./pages")
    assert caught.value.suggestion == "[./pages]"


def test_what_is_rarely_said_is_written_only_where_it_is_said():
    assert Source.model_validate({"path": "./a", "weight": 2}).model_dump() == {
        "path": "./a",
        "revision": None,
        "split": None,
        "layout": "auto",
        "weight": 2.0,
    }


def test_a_weight_for_some_sources_only_is_refused(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(data__train=[{"path": "./a", "weight": 2}, "./b"])
    assert caught.value.where == "recipe: data.train"
    assert caught.value.received == "no weight for ./b"
    assert caught.value.expected == "a weight for every source, or for none"
