"""What differences are known to do: every entry is usable, and its source is there."""

from pathlib import Path

from coltrain.recipe.keys import leaf_paths
from coltrain.reproduction.causes.known import EVIDENCE, all_known, known_of
from coltrain.reproduction.targets.facts import NAMES
from coltrain.reproduction.traps import TRAPS

ROOT = Path(__file__).parents[3]


def test_every_entry_has_a_class_of_evidence_and_what_goes_with_it():
    for entry in all_known():
        assert entry.evidence in EVIDENCE, entry.what
        assert entry.effect.endswith("."), entry.what
        if entry.evidence == "reported in a public thread":
            assert entry.source.startswith("https://"), entry.what
        if entry.evidence == "measured here by a study":
            assert not entry.source.startswith("https://"), entry.what
        if entry.source and not entry.source.startswith("https://"):
            assert (ROOT / entry.source).exists(), entry.source


def test_costs_of_traps_are_the_doctors_own():
    costs = {trap.id: (trap.cost, trap.source) for trap in TRAPS}
    entries = [entry for entry in all_known() if entry.trap is not None]
    assert len(entries) >= 5
    for entry in entries:
        cost, source = costs[entry.trap]
        assert cost in entry.effect
        assert entry.source == source


def test_every_key_of_a_recipe_that_can_move_a_number_is_known():
    told_otherwise = ("name", "description", "sources", "model.template", "lora.dtype")
    told_otherwise += ("model.dtype", "model.max_visual_tokens", "model.template")
    for key in leaf_paths():
        if not key.startswith(told_otherwise):
            assert known_of(key).what, key


def test_a_setting_that_cannot_move_the_result_weighs_nothing():
    for key in ("batch.chunk_size", "model.activation_checkpointing", "data.num_workers"):
        assert known_of(key).weight == 0
    assert known_of("batch.negatives").weight == max(e.weight or 0 for e in all_known())


def test_facts_that_are_compared_are_known():
    unknown = {name for name in NAMES if not known_of(name).what}
    # Facts about files and code, of which the values that matter follow.
    assert unknown <= {
        "loss.class",
        "model.class",
        "model.layout",
        "data.hard_negatives",
        "data.rows",
        "eval.form",
        "precision.cast_whole_model",
        "train.removed_argument",
    }
