"""A study's file: what it says, and every way of getting it wrong."""

from pathlib import Path

import pytest

from coltrain.errors import UsageError
from coltrain.recipe import load_recipe, result_hash, to_yaml
from coltrain.reproduction.study.design import (
    Cell,
    cells,
    check_recipes,
    ends,
    evaluation_sources,
    recipe_of,
)
from coltrain.reproduction.study.reading import load_study, shipped_studies, study_from_yaml

GOOD = """
name: mine
base: tiny
overrides: {train.steps: 4}
factors:
  negatives:
    whole: {batch.negatives: global}
    pairs: {batch.negatives: 2}
  precision: {key: precision.compute, levels: [float32, bfloat16]}
  length: {key: train.steps, levels: [8, 4, 2]}
to: {length: 4}
design: full
seeds: 2
"""


def refusal(text):
    with pytest.raises(UsageError) as caught:
        check_recipes(study_from_yaml(text, "mine.yaml"))
    return str(caught.value)


def test_levels_can_be_said_in_short():
    study = study_from_yaml(GOOD, "mine.yaml")
    assert study.factors["precision"]["bfloat16"] == {"precision.compute": "bfloat16"}
    assert list(study.factors["length"]) == ["8", "4", "2"]


def test_ends_are_first_and_last_levels_unless_they_are_said():
    start, end = ends(study_from_yaml(GOOD, "mine.yaml"))
    assert str(start) == "negatives = whole, precision = float32, length = 8"
    assert str(end) == "negatives = pairs, precision = bfloat16, length = 4"


def test_a_full_design_has_every_combination_once():
    study = study_from_yaml(GOOD, "mine.yaml")
    assert len(cells(study)) == len(set(cells(study))) == 2 * 2 * 3
    assert len({result_hash(recipe) for recipe in check_recipes(study).values()}) == 12


@pytest.mark.parametrize(
    ("around", "number"), [("from", 1 + 4 + 1), ("to", 6), ("both", 2 + 4 + 4)]
)
def test_one_at_a_time_has_the_ends_and_their_neighbours(around, number):
    text = GOOD.replace("design: full", f"design: one-at-a-time\naround: {around}")
    study = study_from_yaml(text, "mine.yaml")
    found = cells(study)
    start, end = ends(study)
    assert found[:2] == [start, end]
    assert len(found) == number
    for cell in found[2:]:
        away = [
            sum(a != b for a, b in zip(cell.levels, x.levels, strict=True)) for x in ends(study)
        ]
        assert min(away) == 1


def test_a_cell_s_recipe_has_its_levels_and_seed_and_is_measured_later():
    study = study_from_yaml(GOOD + "evaluation: {data: ['tiny:dev']}\n", "mine.yaml")
    cell = Cell((("negatives", "pairs"), ("precision", "bfloat16"), ("length", "2")))
    recipe = recipe_of(study, cell, 7)
    assert (recipe.batch.negatives, recipe.precision.compute) == (2, "bfloat16")
    assert (recipe.train.steps, recipe.train.seed) == (2, 7)
    assert recipe.eval.data == ()
    assert [source.path for source in evaluation_sources(study)] == ["tiny:dev"]


def test_a_level_may_say_epochs_where_the_others_say_steps():
    text = GOOD.replace(
        "length: {key: train.steps, levels: [8, 4, 2]}\nto: {length: 4}",
        "length:\n    steps: {train.steps: 8}\n    epoch: {train.epochs: 1}",
    )
    study = study_from_yaml(text, "mine.yaml")
    recipe = recipe_of(study, ends(study)[1], 0)
    assert (recipe.train.steps, recipe.train.epochs) == (None, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("seeds: 2", "seed: 2"), ("seed, line", "unknown key", "try seeds")),
        (("seeds: 2", ""), ("mine.yaml: seeds", "nothing", "it to be there")),
        (("seeds: 2", "seeds: 0"), ("seeds", "greater than or equal to 1")),
        (("seeds: 2", "seeds: [1, 1]"), ("seeds", "different seeds")),
        (("design: full", "design: half"), ("design", "half", "one-at-a-time")),
        (("design: full", "design: full\naround: to"), ("around", "every combination already")),
        (("train.steps: 4", "train.stpes: 4"), ("overrides", "train.stpes", "try", "train.steps")),
        (("batch.negatives: 2", "lr: 2"), ("factors.negatives.pairs", "optimizer.learning_rate")),
        (("{length: 4}", "{lenght: 4}"), ("to", "lenght", "try       length")),
        (("{length: 4}", "{length: 5}"), ("to.length", "5", "8, 4 or 2")),
        (("{length: 4}", "{length: 8}"), ("length = 8 at both", "differ in every factor")),
        (("batch.negatives: 2", "train.seed: 2"), ("train.seed", "seeds: the study repeats")),
        (("batch.negatives: 2", "eval.data: []"), ("eval.data", "measured on the same data")),
        (("name: mine", "name: my study"), ("name", "letters, digits")),
        (
            ("batch.negatives: 2", "batch.negatives: 2, train.steps: 3"),
            ("train.steps, which factor negatives sets too", "one factor whose levels set"),
        ),
        (
            ("batch.negatives: 2", "batch.negatives: 2, train.epochs: 3"),
            ("train.steps beside train.epochs", "each key in one factor only"),
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_with_a_way_out(change, words):
    assert change[0] in GOOD
    text = refusal(GOOD.replace(*change))
    assert "[invalid-study]" in text
    for word in words:
        assert word in text


def test_several_mistakes_are_told_together():
    text = refusal(GOOD.replace("seeds: 2", "seed: 2").replace("design: full", "design: half"))
    assert "seed, line" in text
    assert "design" in text


def test_a_level_that_does_not_go_with_the_recipe_is_named_with_its_cell():
    text = refusal(GOOD.replace("batch.negatives: 2", "batch.negatives: 5"))
    assert "[study-cell-invalid]" in text
    assert "factor negatives, level pairs; in the cell negatives = pairs, precision" in text
    assert "4 or 8" in text


def test_levels_that_clash_with_one_another_are_named_as_such():
    text = GOOD.replace(
        "  length:", "  batch: {key: batch.global_size, levels: [32, 3]}\n  length:"
    )
    assert "the levels together, in the cell negatives = pairs" in refusal(text)


def test_levels_that_are_one_run_are_refused():
    text = refusal(GOOD.replace("batch.negatives: 2", "batch.chunk_size: 4"))
    assert "[levels-alike]" in text
    assert "negatives: whole and pairs" in text


def test_a_mistake_of_the_base_recipe_is_none_of_a_level(tmp_path):
    from coltrain.errors import RecipeError

    study = study_from_yaml(GOOD.replace("base: tiny", "base: tiniest"), "mine.yaml")
    with pytest.raises(RecipeError, match="unknown-recipe"):
        check_recipes(study)


def test_a_study_that_is_not_there_is_named_with_the_nearest(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert load_study(tmp_path / "mine.yaml").name == "mine"
    for name, near in ((str(tmp_path / "mime.yaml"), "mine.yaml"), ("seed-stud", "seed-study")):
        with pytest.raises(UsageError, match=r"\[unknown-study\]") as caught:
            load_study(name)
        assert near in str(caught.value)


def test_a_file_that_is_no_mapping_is_refused():
    assert "a mapping with the keys name, description, base" in refusal("- a\n- b\n")


def test_every_shipped_study_is_valid():
    studies = shipped_studies()
    assert "seed-study" in studies
    for name, study in studies.items():
        assert study.name == name
        check_recipes(study)


def two_recipes(tmp_path, **ends):
    for name, overrides in ends.items():
        text = to_yaml(load_recipe("tiny", overrides))
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def between(folder, more="design: full"):
    text = f"name: mine\nfrom: a.yaml\nto: b.yaml\nseeds: 2\n{more}\n"
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return load_study(folder / "study.yaml")


def test_two_recipes_as_ends_give_the_factors(tmp_path):
    folder = two_recipes(
        tmp_path,
        a=["train.steps=8", "train.seed=1", "batch.chunk_size=8"],
        b=[
            "train.epochs=1",
            "optimizer.learning_rate=2e-4",
            "lora.dropout=0",
            "batch.chunk_size=4",
        ],
    )
    study = between(folder)
    assert set(study.factors) == {"length", "optimizer.learning_rate", "lora.dropout"}
    assert study.factors["length"] == {
        "a": {"train.steps": 8, "train.epochs": None},
        "b": {"train.steps": None, "train.epochs": 1.0},
    }
    start, end = ends(study)
    for recipe, cell in (("a", start), ("b", end)):
        wanted = load_recipe(folder / f"{recipe}.yaml", ["train.seed=0", "eval.data=[]"])
        assert result_hash(recipe_of(study, cell, 0)) == result_hash(wanted)
    assert len(check_recipes(study)) == 8


def test_keys_of_two_recipes_can_be_put_together(tmp_path):
    folder = two_recipes(
        tmp_path, a=[], b=["optimizer.learning_rate=1", "optimizer.warmup_steps=0"]
    )
    study = between(folder, "factors: {rate: optimizer}\ndesign: full")
    assert list(study.factors) == ["rate"]
    assert study.factors["rate"]["b"] == {
        "optimizer.learning_rate": 1.0,
        "optimizer.warmup_steps": 0,
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("factors: {rate: lora.r}\ndesign: full", "what the two recipes differ in"),
        ("factors: [lora.r]\ndesign: full", "names, each with a list of keys"),
        ("base: tiny\ndesign: full", "`from` is the base"),
    ],
)
def test_two_recipes_and_what_does_not_go_with_them(tmp_path, more, words):
    folder = two_recipes(tmp_path, a=[], b=["optimizer.warmup_steps=0"])
    with pytest.raises(UsageError, match=words) as caught:
        between(folder, more)
    assert caught.value.code == "invalid-study"


def test_recipes_that_train_the_same_are_no_ends(tmp_path):
    folder = two_recipes(tmp_path, a=["batch.chunk_size=8"], b=["batch.chunk_size=4"])
    with pytest.raises(UsageError, match="differ in what they train"):
        between(folder)


@pytest.mark.parametrize(
    ("name", "num_cells"), [("rate-and-length", 16), ("tokens-and-temperature", 10)]
)
def test_the_examples_differ_in_four_factors(name, num_cells):
    folder = Path(__file__).parents[3] / "examples" / "planted-gaps"
    study = load_study(folder / f"{name}.yaml")
    assert len(study.factors) == 4
    assert len(check_recipes(study)) == num_cells
