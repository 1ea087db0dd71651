from pathlib import Path

import pytest

from coltrain.errors import RecipeError
from coltrain.recipe import load_recipe, recipe_from_yaml, to_yaml


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("tyni", "tiny"),
        ("colqwen2-v1", "colqwen2-v1.0 or colqwen2-v100"),
        ("ColQwen2-V0.1", "colqwen2-v0.1"),
        ("hard-negatives", "colqwen2-hard-negatives"),
        ("zzz", None),
        ("", None),
    ],
)
def test_an_unknown_recipe_names_the_nearest(name, near):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name)
    assert caught.value.code == "unknown-recipe"
    assert caught.value.suggestion == near
    assert "colqwen2-v0.1, colqwen2-v1.0, colqwen2-v100" in caught.value.expected


def test_an_unknown_recipe_reads_well():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tyni")
    assert str(caught.value) == (
        "RecipeError [unknown-recipe]: no recipe of this name ships with the package.\n"
        "  received  tyni\n"
        "  expected  colqwen2-hard-negatives, colqwen2-v0.1, colqwen2-v1.0, colqwen2-v100, "
        "colqwen2-v100-paged-adamw-8bit or tiny, or the path of a .yaml file\n"
        "  try       tiny"
    )


def test_a_name_without_its_ending_points_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(to_yaml(load_recipe("tiny")))
    with pytest.raises(RecipeError) as caught:
        load_recipe("mine")
    assert caught.value.suggestion == "./mine.yaml"


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_file_is_read_by_its_path(tmp_path, as_type):
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(load_recipe("tiny")), encoding="utf-8-sig")
    assert load_recipe(as_type(file)) == load_recipe("tiny")


@pytest.mark.parametrize(
    ("path", "reason", "near"),
    [
        ("mime.yaml", "No such file or directory", "mine.yaml"),
        ("tiny.yaml", "No such file or directory", "tiny"),
        ("nowhere/x.yml", "No such file or directory", None),
        ("folder/", "Is a directory", "folder/inside.yml"),
        ("nul\0/x.yaml", "null byte", None),
    ],
)
def test_a_file_that_cannot_be_read_points_to_a_near_one(tmp_path, monkeypatch, path, reason, near):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    Path("folder").mkdir()
    Path("folder/inside.yml").touch()
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.code == "unknown-recipe"
    assert reason in caught.value.received
    assert caught.value.suggestion == near


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"name: \xff")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert caught.value.code == "broken-yaml"
    assert caught.value.received == "the byte 0xff at position 6"


def test_one_mistake_in_a_file_is_reported_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    text = to_yaml(load_recipe("tiny"))
    file.write_text(text.replace("dropout: 0.1", "dropout: 1.5"))
    line = 1 + text[: text.index("dropout")].count("\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value) == (
        "RecipeError [invalid-recipe]: lora.dropout cannot be used as it is.\n"
        f"  where     {file}: lora.dropout, line {line}\n"
        "  received  1.5\n"
        "  expected  a number of at least 0 and below 1"
    )


def test_several_mistakes_are_reported_together():
    text = (
        to_yaml(load_recipe("tiny"))
        .replace("dropout: 0.1", "dropuot: 0.1")
        .replace("learning_rate: 0.002", "learning_rate: fast")
        .replace("name: softmax", "name: softmx")
    )
    lines = {
        key: 1 + text[: text.index(key)].count("\n")
        for key in ("dropuot", "learning_rate: fast", "name: softmx")
    }
    with pytest.raises(RecipeError) as caught:
        recipe_from_yaml(text, "mine.yaml", ["train.seed=-1", "steps=3", "oops"])
    assert str(caught.value) == (
        "RecipeError [invalid-recipe]: 7 mistakes in mine.yaml:\n"
        "  - the command line: received oops, expected key.path=value, such as train.steps=30\n"
        "  - lora.dropout: missing; expected a number of at least 0 and below 1\n"
        f"  - lora.dropuot, line {lines['dropuot']}: unknown key; nearest known key lora.dropout\n"
        f'  - loss.name, line {lines["name: softmx"]}: received "softmx", expected pairwise, '
        "softmax, sigmoid, pairwise_hard_negatives or softmax_hard_negatives\n"
        "  - train.seed, on the command line: received -1, expected a whole number of at least 0 and "
        "below 9223372036854775808\n"
        f'  - optimizer.learning_rate, line {lines["learning_rate: fast"]}: received "fast", '
        "expected a number above 0\n"
        "  - steps, on the command line: unknown key; nearest known key train.steps"
    )


def test_several_unknown_keys_keep_their_code():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", ["lr=1e-3", "epochs=3"])
    assert str(caught.value) == (
        "RecipeError [unknown-key]: 2 mistakes in tiny:\n"
        "  - lr, on the command line: unknown key; nearest known key optimizer.learning_rate\n"
        "  - epochs, on the command line: unknown key; nearest known key train.epochs"
    )


def test_a_section_that_is_no_mapping_says_which_keys_it_has():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", ["precision=float32", "lora="])
    assert (
        "  - lora, on the command line: received null, expected a mapping with the keys r, "
        in str(caught.value)
    )
    assert '  - precision, on the command line: received "float32", expected a mapping' in str(
        caught.value
    )


def test_a_key_that_is_a_number_is_an_unknown_key():
    with pytest.raises(RecipeError, match=r"7, line \d+\n|7 is not a key of a recipe"):
        recipe_from_yaml(to_yaml(load_recipe("tiny")) + "7: 8\n")


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(RecipeError) as caught:
        load_recipe("tiny", [f"lora.r=[{'9, ' * 500}9]"])
    assert len(caught.value.received) == 120
    assert caught.value.received.endswith("…")


def test_a_mistake_in_a_list_has_the_line_of_its_key():
    text = to_yaml(load_recipe("tiny")).replace("[0.9, 0.999]", "[0.9, 1.5]")
    line = 1 + text[: text.index("betas")].count("\n")
    with pytest.raises(RecipeError) as caught:
        recipe_from_yaml(text, "mine.yaml")
    assert caught.value.where == f"mine.yaml: optimizer.betas[1], line {line}"
