"""What studies measured stands beside the difference, taken from their results file."""

import json
from pathlib import Path

import pytest

from coltrain.errors import UsageError
from coltrain.reproduction.causes import (
    causes_text,
    causes_to_json,
    find_causes,
    shipped_effects,
    study_effects,
)
from coltrain.reproduction.causes.side import Side

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "src/coltrain/reproduction/study/shipped/seed-study.json"


def side(**values):
    made = Side("x", "run", recipe=True)
    for key, value in {"model.base": "tiny", "loss.name": "softmax", **values}.items():
        made.put(key.replace("__", "."), value, "here")
    return made


def the(causes, key):
    return next(one for one in causes.differences if one.key == key)


def test_an_effect_is_the_files_and_its_sign_follows_the_sides():
    document = json.loads(PUBLISHED.read_text())
    (stated,) = (
        one["change"]
        for one in document["effects"]
        if one["factor"] == "length" and one["others"] == "others as at the start"
    )
    long, short = side(train__steps=6), side(train__steps=3)
    forward = the(find_causes(short, long, shipped_effects()), "train.steps")
    backward = the(find_causes(long, short, shipped_effects()), "train.steps")
    one = forward.measured[0]
    assert (one.value, one.low, one.high) == (stated["value"], stated["low"], stated["high"])
    assert backward.measured[0].value == -stated["value"] != 0
    assert backward.measured[0].low == -stated["high"]
    assert forward.known.evidence == "measured here by a study"
    assert forward.known.weight == pytest.approx(
        100 * max(abs(effect.value) for effect in forward.measured)
    )


def test_other_levels_and_other_keys_are_not_measured():
    other = find_causes(side(train__steps=6), side(train__steps=4), shipped_effects())
    assert the(other, "train.steps").measured == ()
    rate = find_causes(
        side(optimizer__learning_rate=1), side(optimizer__learning_rate=2), shipped_effects()
    )
    assert the(rate, "optimizer.learning_rate").measured == ()


def test_a_study_of_another_model_is_evidence_and_no_weight():
    big = {"model__base": "vidore/colqwen2-base"}
    a = side(optimizer__name="paged_adamw_8bit", precision__compute="float16", **big)
    b = side(optimizer__name="adamw", precision__compute="bfloat16", **big)
    without, found = find_causes(a, b), find_causes(a, b, shipped_effects())
    optimiser = the(found, "optimizer.name")
    assert optimiser.measured
    assert optimiser.known.evidence == "measured here by a study"  # nothing was known before
    assert the(found, "precision.compute").known.evidence == "reported in a public thread"
    assert [one.known.weight for one in found.differences] == [
        one.known.weight for one in without.differences
    ]
    assert "recipe tiny; 5 seeds, 240 queries" in causes_text(found)


def test_negatives_are_counted_and_mined_ones_are_others():
    whole, groups = side(batch__negatives=31), side(batch__negatives=1)
    found = the(find_causes(groups, whole, shipped_effects()), "batch.negatives")
    assert found.measured[0].value < 0
    mined = side(batch__negatives=1, loss__name="pairwise_hard_negatives")
    assert the(find_causes(mined, whole, shipped_effects()), "batch.negatives").measured == ()


def test_a_users_study_is_read_from_its_folder(tmp_path):
    (tmp_path / "results.json").write_text(PUBLISHED.read_text())
    found = find_causes(side(train__steps=3), side(train__steps=6), study_effects(tmp_path))
    (first, *_) = causes_to_json(found)["differences"][0]["measured"]
    assert first["source"] == str(tmp_path / "results.json")
    assert first["after"] == {"train.steps": 3}


@pytest.mark.parametrize("content", [None, "{", "[]", '{"study": {}}'])
def test_a_folder_without_results_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UsageError) as caught:
        study_effects(tmp_path)
    assert caught.value.code == "no-study-results"
