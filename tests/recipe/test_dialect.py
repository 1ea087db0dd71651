import pytest

from coltrain.errors import RecipeError
from coltrain.recipe.dialect import read_document, read_value, write_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("5E-5", 5e-5),
        ("-1e3", -1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("0.1", 0.1),
        ("30", 30),
        ("010", 10),
        ("true", True),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2024-10-07", "2024-10-07"),
        ("tiny:train", "tiny:train"),
        ("null", None),
        ("~", None),
        ("", None),
        ('""', ""),
        ("[]", []),
        ("[../a/b, x@y]", ["../a/b", "x@y"]),
        ("{path: ./a, split: test}", {"path": "./a", "split": "test"}),
    ],
)
def test_a_value_is_read_as_yaml_1_2(text, value):
    read = read_value(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "5e-5",
        "30",
        "true",
        "null",
        "~",
        "on",
        "a: b",
        "a #b",
        "# a",
        "- a",
        "[a",
        "{",
        "&a",
        "*a",
        "!a",
        "'",
        '"',
        "\\",
        "line\nbreak\n",
        "tab\t",
        "\u2028",
        "\x07",
        "é × 猫 🙂",
        "<|im_start|>user\n<|image_pad|>",
        "---",
        "...",
        "=",
        "<<",
        "x" * 5000 + " y" * 500,
        5e-5,
        1e-8,
        1e300,
        0.1,
        1.0,
        -3,
        None,
        True,
        ["a, b", {"path": "c: d", "split": None}],
        [],
    ],
)
def test_what_is_written_reads_back_unchanged(value):
    text = write_value(value)
    assert "\n" not in text
    assert read_value(text) == value
    assert read_document(f"key: {text}  # comment\n", "x").values == {"key": value}


def test_the_line_of_each_key_is_known():
    document = read_document("a: 1\n\nb:\n  c: 2\n  d:\n  - path: e\n", "x")
    assert document.lines == {"a": 1, "b": 3, "b.c": 4, "b.d": 5, "b.d[0].path": 6}


@pytest.mark.parametrize(
    ("text", "code", "parts"),
    [
        ("", "empty-recipe", ["an empty file", "coltrain recipes show tiny"]),
        ("# only a comment\n", "empty-recipe", ["no keys"]),
        ("null", "empty-recipe", ["no keys"]),
        ("- lora\n- loss\n", "recipe-not-a-mapping", ["a list", "keys such as `model:`"]),
        ("tiny", "recipe-not-a-mapping", ["the single value 'tiny'"]),
        ("a: [1", "broken-yaml", ["my.yaml, line 1, column 6", "expected ',' or ']'"]),
        ("a: 1\n b: 2\n", "broken-yaml", ["my.yaml, line 2, column 3", " b: 2"]),
        ("a:\n\tb: 1\n", "broken-yaml", ["line 2, column 1", "'\\t'"]),
        ("a: 1\n---\nb: 2\n", "broken-yaml", ["line 2, column 1", "another document"]),
        ("a: &x 1\nb: *x\n", "broken-yaml", ["line 2, column 4", "a recipe has no aliases"]),
        ("a: !!python/name:os.system ''\n", "broken-yaml", ["line 1, column 4", "tag"]),
        ("? [a]\n: 1\n", "broken-yaml", ["unhashable key"]),
        ("a: \x00", "broken-yaml", ["special characters are not allowed"]),
        ("[" * 5000, "broken-yaml", ["nested too deeply"]),
        ("a: " + "9" * 5000, "broken-yaml", ["4300"]),
    ],
)
def test_a_text_that_is_no_recipe_is_refused(text, code, parts):
    with pytest.raises(RecipeError) as caught:
        read_document(text, "my.yaml")
    assert caught.value.code == code
    assert "my.yaml" in caught.value.where
    for part in parts:
        assert part in str(caught.value)


def test_every_key_that_stands_twice_is_named_with_its_lines():
    with pytest.raises(RecipeError) as caught:
        read_document("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n", "my.yaml")
    assert str(caught.value) == (
        "RecipeError [duplicate-key]: a key stands more than once, so one of its values would be "
        "lost.\n"
        "  where     my.yaml\n"
        "  received  b.c on lines 3 and 4\n"
        "            a on lines 1 and 5\n"
        "  expected  each key once"
    )


def test_a_value_that_stands_twice_is_written_twice():
    shared = ["a"]
    assert write_value([shared, shared]) == "[[a], [a]]"
