"""The recipes that ship with the package say what was published, and where each value comes from."""

from importlib import resources
from pathlib import Path

import pytest

from coltrain.recipe import load_recipe, recipe_from_yaml, shipped_names
from coltrain.recipe.dialect import read_document
from coltrain.recipe.keys import leaf_paths

_FILES = sorted(Path(str(resources.files("coltrain.recipe"))).rglob("*.yaml"))


def test_every_recipe_in_the_package_ships_by_name():
    assert sorted(file.stem for file in _FILES) == shipped_names()
    assert len(_FILES) == 6


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_a_shipped_recipe_has_the_name_of_its_file(file):
    assert recipe_from_yaml(file.read_text(), file.name).name == file.stem


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_a_shipped_recipe_spells_out_every_key(file):
    spelled = set(read_document(file.read_text(), file.name).lines)
    # A registered template is spelled by its name.
    expected = {
        "model.template" if path.startswith("model.template.") else path for path in leaf_paths()
    }
    assert expected - spelled == set()


@pytest.mark.parametrize("name", shipped_names())
def test_every_value_of_a_shipped_recipe_has_a_source(name):
    sources = load_recipe(name).sources
    without = [
        path
        for path in leaf_paths()
        if path not in ("name", "description", "sources")
        and not any(
            path == key or path.startswith(key + ".") for key, text in sources.items() if text
        )
    ]
    assert without == []


def _said(name):
    recipe = load_recipe(name)
    return {
        "base": recipe.model.base,
        "dtype": recipe.model.dtype,
        "template": recipe.model.template.name,
        "tokens": recipe.model.max_visual_tokens,
        "projection": (recipe.projection.dim, recipe.projection.start, recipe.projection.train),
        "lora": (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout, recipe.lora.init),
        "loss": (recipe.loss.name, recipe.loss.temperature, recipe.loss.normalize),
        "batch": (recipe.batch.global_size, recipe.batch.negatives),
        "length": (recipe.train.epochs, recipe.train.steps),
        "optimizer": (
            recipe.optimizer.name,
            recipe.optimizer.learning_rate,
            recipe.optimizer.warmup_steps,
            recipe.optimizer.schedule,
        ),
        "compute": recipe.precision.compute,
        "data": [source.path for source in recipe.data.train],
        "eval": [(source.path, source.split) for source in recipe.eval.data],
        "every": recipe.eval.every,
    }


_V01 = {
    "base": "vidore/colqwen2-base",
    "dtype": "bfloat16",
    "template": "engine-0.3.3",
    "tokens": 768,
    "projection": (128, "from_base", "lora"),
    "lora": (32, 32, 0.1, "gaussian"),
    "loss": ("pairwise", 1.0, False),
    "batch": (32, "global"),
    "length": (1, None),
    "optimizer": ("adamw", 5e-5, 500, "linear"),
    "compute": "bfloat16",
    "data": ["colpali_train_set_detailed"],
    "eval": [("colpali_train_set_detailed", "test")],
    "every": 100,
}
_V100 = _V01 | {
    "dtype": "float16",
    "compute": "float16",
    "data": ["vidore/colpali_train_set"],
    "eval": [("vidore/colpali_train_set", "test")],
}
_PUBLISHED = {
    "colqwen2-v0.1": _V01,
    "colqwen2-v1.0": _V01
    | {
        "template": "engine-0.3.12",
        "batch": (256, "global"),
        "length": (5, None),
        "optimizer": ("adamw", 5e-4, 100, "linear"),
        "data": ["vidore/colpali_train_set"],
        "eval": [("vidore/colpali_train_set", "test")],
    },
    "colqwen2-v100": _V100,
    "colqwen2-v100-paged-adamw-8bit": _V100
    | {"optimizer": ("paged_adamw_8bit", 5e-5, 500, "linear")},
    "colqwen2-hard-negatives": _V01
    | {
        "loss": ("pairwise_hard_negatives", 1.0, False),
        "data": ["manu/colpali-data-ir"],
        "eval": [("manu/colpali-data-ir", "test")],
    },
}


@pytest.mark.parametrize("name", _PUBLISHED)
def test_a_published_recipe_says_what_was_published(name):
    assert _said(name) == _PUBLISHED[name]


def test_the_hard_negative_configuration_had_no_in_batch_term():
    assert load_recipe("colqwen2-hard-negatives").loss.in_batch_weight == 0.0


def test_all_real_recipes_train_the_same_modules():
    patterns = {load_recipe(name).lora.target_modules for name in shipped_names() if name != "tiny"}
    assert patterns == {
        "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$"
        "|.*(custom_text_proj).*$)"
    }


def test_tiny_does_what_the_real_recipes_do_without_network():
    said = _said("tiny")
    assert said["lora"] == _V01["lora"]
    assert said["batch"] == _V01["batch"]
    assert said["base"] == "tiny"
    assert said["data"] == ["tiny:train"]
    assert said["eval"] == [("tiny:test", None)]


def test_values_that_are_not_known_say_so():
    sources = load_recipe("colqwen2-v0.1").sources
    for path in ("model.base", "lora.dtype", "projection.start"):
        assert "inferred" in sources[path]
    assert sources["model.revision"].startswith("not known")
