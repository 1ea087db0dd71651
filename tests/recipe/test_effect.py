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
            "hard_negatives.per_query=2",
            "loss.name=softmax_hard_negatives",
            "hard_negatives.per_query is read by pairwise_hard_negatives and "
            "softmax_hard_negatives, or with hard_negatives.shared, only",
        ),
        (
            "hard_negatives.among_first=9",
            "hard_negatives.shared=true",
            "hard_negatives.among_first is read by pairwise_hard_negatives and "
            "softmax_hard_negatives, or with hard_negatives.shared, only",
        ),
        (
            "data.batches=one_source",
            "data.train=[tiny:train, tiny:dev]",
            "data.batches is read with several sources under data.train only",
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


def test_a_weight_that_nothing_reads_is_named():
    assert without_effect(
        load_recipe(
            "tiny",
            ["data.train=[{path: ./a, weight: 2}]", "eval.data=[{path: ./b, weight: 2}]"],
        )
    ) == [
        "a source's weight is read with several sources under data.train only",
        "a source's weight is read under data.train only",
    ]
