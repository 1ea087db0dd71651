import pytest

from coltrain.errors import RecipeError
from coltrain.recipe import (
    Difference,
    difference,
    full_hash,
    load_recipe,
    recipe_from_mapping,
    result_hash,
)
from coltrain.recipe.identity import DESCRIPTION_ONLY, EXECUTION_ONLY, affects_result
from coltrain.recipe.keys import all_paths, leaf_paths

_EXECUTION = [
    "batch.chunk_size=2",
    "data.num_workers=3",
    "model.activation_checkpointing=true",
    "checkpoint.every=10",
    "checkpoint.keep=3",
    "logging.every=5",
    "logging.watchers=[wandb]",
]
_RESULT = [
    "model.base=other",
    "model.template=colqwen2-engine-0.3.13",
    "lora.r=8",
    "loss.normalize=false",
    "loss.temperature=0.03",
    "batch.global_size=16",
    "batch.negatives=8",
    "train.seed=1",
    "optimizer.learning_rate=2.1e-3",
    "precision.compute=bfloat16",
    "data.train=[tiny:dev]",
    "data.train=[{path: 'tiny:train', weight: 2}]",
    "data.batches=one_source",
    "data.max_broken_share=0.1",
    "hard_negatives.per_query=2",
    "hard_negatives.among_first=5",
    "hard_negatives.shared=true",
    "eval.every=10",
]


@pytest.mark.parametrize("override", _EXECUTION)
def test_execution_moves_only_the_full_hash(override):
    left, right = load_recipe("tiny"), load_recipe("tiny", [override])
    assert result_hash(left) == result_hash(right)
    assert full_hash(left) != full_hash(right)


@pytest.mark.parametrize("override", _RESULT)
def test_what_can_change_the_result_moves_both_hashes(override):
    left, right = load_recipe("tiny"), load_recipe("tiny", [override])
    assert result_hash(left) != result_hash(right)
    assert full_hash(left) != full_hash(right)


@pytest.mark.parametrize("override", ["name=other", "description=other", "sources={}"])
def test_descriptions_move_only_the_full_hash(override):
    left, right = load_recipe("tiny"), load_recipe("tiny", [override])
    assert result_hash(left) == result_hash(right)
    assert full_hash(left) != full_hash(right)


def test_a_hash_does_not_depend_on_how_a_value_was_typed(with_values):
    whole = with_values(lora__alpha=32, data__train=["tiny:train"], sources={})
    point = with_values(lora__alpha=32.0, data__train=[{"path": "tiny:train"}], sources={})
    assert full_hash(whole) == full_hash(point)


_FIXED = {
    "name": "golden",
    "model": {
        "base": "tiny",
        "dtype": "float32",
        "template": "colqwen2-engine-0.3.4",
        "max_visual_tokens": 64,
    },
    "lora": {
        "r": 32,
        "alpha": 32,
        "dropout": 0.1,
        "init": "gaussian",
        "target_modules": ".*q_proj",
        "dtype": "float32",
    },
    "loss": {"name": "softmax", "temperature": 0.02, "normalize": True},
    "batch": {"global_size": 32, "chunk_size": 8, "negatives": "global", "drop_last": True},
    "train": {"steps": 60, "seed": 0},
    "optimizer": {
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 5,
        "schedule": "linear",
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    },
    "precision": {"compute": "float32"},
    "data": {"train": ["tiny:train"]},
    "eval": {"data": ["tiny:test"], "every": 20},
}


def test_hashes_do_not_change_between_versions():
    # A change here means that a recorded run no longer finds the recipe that it was made with.
    recipe = recipe_from_mapping(_FIXED)
    assert result_hash(recipe) == "4185f1ec1bd930db"
    assert full_hash(recipe) == "6041a94d11d9f1c1"


def test_a_key_that_was_added_later_moves_the_hash_with_another_value_only():
    loss = {**_FIXED["loss"], "padding": "masked"}
    assert full_hash(recipe_from_mapping(_FIXED | {"loss": loss})) == "6041a94d11d9f1c1"
    loss["padding"] = "zero"
    assert result_hash(recipe_from_mapping(_FIXED | {"loss": loss})) != "4185f1ec1bd930db"
    precision = {"compute": "float32", "keep_float32": []}
    assert full_hash(recipe_from_mapping(_FIXED | {"precision": precision})) == "6041a94d11d9f1c1"
    precision["keep_float32"] = ["visual.*"]
    assert result_hash(recipe_from_mapping(_FIXED | {"precision": precision})) != "4185f1ec1bd930db"


def test_a_cache_of_visual_tokens_moves_the_result_s_hash_only_where_it_rounds():
    def with_cache(**settings):
        data = {**_FIXED["data"], "vision_cache": settings}
        return recipe_from_mapping(_FIXED | {"data": data})

    assert full_hash(with_cache()) == "6041a94d11d9f1c1"
    kept = with_cache(path="./features", max_gib=3.0)
    assert result_hash(kept) == "4185f1ec1bd930db"
    assert full_hash(kept) != "6041a94d11d9f1c1"
    assert result_hash(with_cache(path="auto", dtype="bfloat16")) != "4185f1ec1bd930db"
    with pytest.raises(RecipeError, match=r"dtype = bfloat16 and path = null"):
        with_cache(dtype="bfloat16")


def test_a_template_by_its_new_name_has_the_hash_of_its_first():
    model = {**_FIXED["model"], "template": "engine-0.3.12"}
    assert full_hash(recipe_from_mapping(_FIXED | {"model": model})) == "6041a94d11d9f1c1"
    model["template"] = "engine-0.3.13"
    assert full_hash(recipe_from_mapping(_FIXED | {"model": model})) != "6041a94d11d9f1c1"


def test_equal_recipes_have_no_difference():
    assert difference(load_recipe("tiny"), load_recipe("tiny")) == []


def test_a_difference_says_whether_it_affects_the_result():
    right = load_recipe("tiny", ["batch.chunk_size=4", "lora.r=8", "name=other"])
    assert difference(load_recipe("tiny"), right) == [
        Difference("lora.r", 32, 8, affects_result=True),
        Difference("batch.chunk_size", 8, 4, affects_result=False),
    ]


def test_the_two_v100_recipes_differ_in_their_optimizer_only():
    left, right = load_recipe("colqwen2-v100"), load_recipe("colqwen2-v100-paged-adamw-8bit")
    assert difference(left, right) == [
        Difference("optimizer.name", "adamw", "paged_adamw_8bit", affects_result=True)
    ]


def test_the_v100_recipe_is_v0_1_with_stated_exceptions():
    changes = difference(load_recipe("colqwen2-v0.1"), load_recipe("colqwen2-v100"))
    assert {change.path: change.right for change in changes} == {
        "model.dtype": "float16",
        "lora.dtype": "float32",
        "batch.chunk_size": 2,
        "precision.compute": "float16",
        "precision.keep_float32": "auto",
        "data.train": ["vidore/colpali_train_set"],
        "eval.data": [
            {
                "path": "vidore/colpali_train_set",
                "revision": None,
                "split": "test",
                "layout": "auto",
            }
        ],
    }


def test_keys_that_do_not_affect_the_result_exist():
    assert set(EXECUTION_ONLY + DESCRIPTION_ONLY) <= set(all_paths())
    assert sum(not affects_result(path) for path in leaf_paths()) == 14
