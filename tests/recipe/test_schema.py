import pytest
from pydantic import ValidationError

from coltrain.errors import RecipeError
from coltrain.recipe import load_recipe, recipe_from_mapping
from coltrain.recipe.keys import all_paths, leaf_paths


def test_a_recipe_is_frozen():
    recipe = load_recipe("tiny")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.lora.r = 8
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"
    assert isinstance(recipe.data.train, tuple)
    assert isinstance(recipe.optimizer.betas, tuple)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train__steps", "3", "a whole number of at least 1 and at most 1000000000, or null"),
        ("train__steps", True, "a whole number of at least 1 and at most 1000000000, or null"),
        ("train__steps", 3.0, "a whole number of at least 1 and at most 1000000000, or null"),
        ("train__steps", 0, "a whole number of at least 1 and at most 1000000000, or null"),
        ("train__seed", -1, "a whole number of at least 0"),
        ("train__seed", None, "a whole number of at least 0"),
        ("lora__r", True, "a whole number of at least 1"),
        ("lora__alpha", "32", "a number above 0"),
        ("lora__alpha", True, "a number above 0"),
        ("lora__dropout", 1.0, "a number of at least 0 and below 1"),
        ("lora__dropout", -0.1, "a number of at least 0 and below 1"),
        ("lora__init", "normal", "gaussian or kaiming"),
        ("lora__dtype", "float16", "float32 or bfloat16"),
        ("loss__temperature", 0.0, "a number above 0"),
        ("loss__temperature", float("nan"), "a number above 0"),
        ("loss__temperature", float("inf"), "a number above 0"),
        ("loss__normalize", 1, "true or false"),
        ("loss__in_batch_weight", 1.1, "a number of at least 0 and at most 1"),
        ("loss__name", "pair", "pairwise, softmax, sigmoid, pairwise_hard_negatives or "),
        ("batch__global_size", 1, "a whole number of at least 2"),
        ("batch__chunk_size", 0, "a whole number of at least 1"),
        ("batch__negatives", 1, "global, or a whole number of at least 2"),
        ("batch__negatives", True, "global, or a whole number of at least 2"),
        ("batch__negatives", "all", "global, or a whole number of at least 2"),
        ("model__max_visual_tokens", 3, "a whole number of at least 4 and at most 16384"),
        ("model__max_visual_tokens", 16385, "a whole number of at least 4 and at most 16384"),
        ("model__attention", "eager", "sdpa"),
        ("model__base", "", "a text that is not empty"),
        ("model__base", 3, "a text that is not empty (put it in quotes)"),
        ("model__revision", 1234567, "a text that is not empty, or null (put it in quotes)"),
        ("optimizer__name", "sgd", "adamw, adamw_8bit or paged_adamw_8bit"),
        ("optimizer__learning_rate", -1e-5, "a number above 0"),
        ("optimizer__warmup_steps", 0.5, "a whole number of at least 0"),
        ("optimizer__betas", 0.9, "a list of 2 numbers, each a number of at least 0 and below 1"),
        ("optimizer__max_grad_norm", 0, "a number above 0, or null"),
        ("precision__compute", "fp16", "float32, bfloat16, float16 or auto"),
        ("data__train", [], "a list of one or more sources"),
        ("data__num_workers", -1, "a whole number of at least 0"),
        ("data__batches", "one", "mixed or one_source"),
        ("data__max_broken_share", 1.5, "a number of at least 0 and at most 1"),
        ("hard_negatives__per_query", 0, "a whole number of at least 1"),
        ("hard_negatives__among_first", 0, "a whole number of at least 1, or null"),
        ("hard_negatives__shared", "own", "true or false"),
        ("eval__data", {}, "a list of any number of sources"),
        ("eval__every", 0, "a whole number of at least 1, or null"),
        ("checkpoint__keep", 0, "a whole number of at least 1"),
        (
            "logging__watchers",
            "wandb",
            "a list of any number of these: tensorboard, wandb or trackio",
        ),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_with_what_was_expected(
    with_values, key, value, expected
):
    with pytest.raises(RecipeError) as caught:
        with_values(**{key: value})
    assert caught.value.code == "invalid-recipe"
    assert caught.value.where == f"recipe: {key.replace('__', '.')}"
    assert caught.value.expected.startswith(expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora__alpha", 16),
        ("lora__dropout", 0),
        ("batch__negatives", 4),
        ("batch__negatives", "global"),
        ("optimizer__max_grad_norm", None),
        ("loss__filter_threshold", 0.95),
        ("precision__compute", "float16"),
        ("eval__data", []),
    ],
)
def test_values_inside_their_range_are_kept(with_values, key, value):
    section, name = key.split("__")
    kept = getattr(getattr(with_values(**{key: value}), section), name)
    assert kept == (tuple(value) if isinstance(value, list) else value)


def test_a_whole_number_is_kept_as_a_float_where_a_number_is_expected(with_values):
    assert type(with_values(lora__alpha=16).lora.alpha) is float


@pytest.mark.parametrize("key", ["name", "temperature", "normalize"])
def test_the_loss_has_to_be_spelled_out(values, key):
    del values["loss"][key]
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(values)
    assert f"loss.{key} is missing." in str(caught.value)
    assert caught.value.received == "nothing"


@pytest.mark.parametrize(
    "section", ["projection", "hard_negatives", "eval", "checkpoint", "logging"]
)
def test_a_section_with_defaults_can_be_left_out(values, section):
    del values[section]
    assert getattr(recipe_from_mapping(values), section) is not None


def test_steps_and_epochs_together_are_refused(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(train__epochs=2, train__steps=30)
    assert str(caught.value) == (
        "RecipeError [steps-and-epochs]: a run has one length: steps or epochs.\n"
        "  where     recipe: train\n"
        "  received  train.epochs = 2.0 and train.steps = 30\n"
        "  expected  exactly one of the two"
    )


def test_neither_steps_nor_epochs_is_refused(with_values):
    with pytest.raises(RecipeError, match=r"neither train\.epochs nor train\.steps"):
        with_values(train__steps=None)


def test_groups_that_do_not_share_the_batch_evenly_are_refused_with_sizes_that_do(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(batch__negatives=5)
    assert caught.value.code == "batch-not-divisible"
    assert caught.value.received == "5 with batch.global_size = 32"
    assert caught.value.suggestion == "4 or 8"


def test_a_group_larger_than_the_batch_is_refused(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(batch__negatives=64)
    assert caught.value.suggestion == "32"


def test_negatives_are_drawn_from_at_least_as_many(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(hard_negatives={"per_query": 3, "among_first": 2})
    assert caught.value.where == "recipe: hard_negatives"
    assert caught.value.received == "among_first = 2 and per_query = 3"
    assert caught.value.expected == "among_first of at least per_query, or null"


def test_target_modules_must_be_a_regular_expression(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(lora__target_modules="(q_proj")
    assert caught.value.expected == (
        "a regular expression; this one does not compile: "
        "missing ), unterminated subpattern at position 0"
    )


def test_sources_explain_keys_that_exist(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(sources={"lora.rank": "a guess", "lora": "the paper"})
    assert caught.value.code == "unknown-key"
    assert caught.value.received == "lora.rank"
    assert caught.value.suggestion == "lora.r"


def test_every_key_and_section_is_known_by_its_path():
    assert {"lora", "lora.r", "model.template.page_prompt", "data.train"} <= set(all_paths())
    assert "lora" not in leaf_paths()


def test_every_key_is_documented():
    undocumented = [
        path for path, field in leaf_paths().items() if not (field.description or "").strip()
    ]
    assert undocumented == []


def test_an_unknown_watcher_is_named_with_its_place(with_values):
    with pytest.raises(RecipeError) as caught:
        with_values(logging__watchers=["wandb", "mlflow"])
    assert "logging.watchers[1]" in str(caught.value)
    assert caught.value.expected == "tensorboard, wandb or trackio"
