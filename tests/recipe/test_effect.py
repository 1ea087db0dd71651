import pytest

from coltrain.recipe import load_recipe, shipped_names, without_effect


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_recipes_set_nothing_without_effect(name):
    assert without_effect(load_recipe(name)) == []


@pytest.mark.parametrize(
    ("override", "cure", "sentence"),
    [
        (
            "projection.std=0.5",
            "projection.start=normal",
            "projection.std is read with projection.start = normal only",
        ),
        (
            "loss.in_batch_weight=0.1",
            "loss.name=softmax_hard_negatives",
            "loss.in_batch_weight is read by pairwise_hard_negatives and softmax_hard_negatives only",
        ),
        (
            "loss.filter_factor=0.1",
            "loss.filter_threshold=0.9",
            "loss.filter_factor is read with loss.filter_threshold only",
        ),
        (
            "model.start_from_revision=main",
            "model.start_from=a/b",
            "model.start_from_revision is read with model.start_from only",
        ),
        (
            "checkpoint.keep=7",
            "checkpoint.every=9",
            "checkpoint.keep is read with checkpoint.every only",
        ),
    ],
)
def test_a_setting_that_is_never_read_is_named(override, cure, sentence):
    assert without_effect(load_recipe("tiny", [override])) == [sentence]
    assert without_effect(load_recipe("tiny", [override, cure])) == []


def test_a_cadence_without_evaluation_data_is_named():
    assert without_effect(load_recipe("tiny", ["eval.data=[]"])) == [
        "eval.every is read with eval.data only"
    ]
