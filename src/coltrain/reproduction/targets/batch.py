"""Derived facts: what a query was compared with, from batch, launch, library and loss."""

from coltrain.reproduction.targets.engine import GATHERS_FROM
from coltrain.reproduction.targets.facts import UNKNOWN, Facts
from coltrain.reproduction.targets.versions import Versions


def put_batch(facts: Facts, kind: str) -> None:
    """Add the global batch and the candidates of a query, as far as they follow.

    Args:
        facts: With the batch on a device, the launch and the library's version, where known.
        kind: Whose training it is.

    Source:
        colpali-engine, `trainer/contrastive_trainer.py` (0.3.18: documents are gathered on the last
        of the accumulated passes only; before 0.3.11 never); illuin-tech/colpali#124 for the one
        process with DataParallel; sentence-transformers' `gather_across_devices`.
    """
    each = facts.value("batch.per_device")
    accumulated = facts.value("batch.accumulation", 1)
    world = facts.value("launch.world_size")
    copies = facts.value("launch.data_parallel", 1) if world == 1 else 1
    if not isinstance(each, int) or not isinstance(world, int):
        return
    where = f"{facts['batch.per_device'].where}; {facts['launch.world_size'].where}"
    local = each * copies
    facts.put("batch.global_size", local * world * accumulated, where, "derived")
    shared = True if world == 1 else _shares(facts, kind)
    facts.put("batch.shared", shared, where, "derived")
    if shared is UNKNOWN:
        return
    candidates = local * world if shared and (accumulated == 1 or world == 1) else local
    if accumulated > 1 and kind == "colpali-engine":
        candidates = local  # of all passes but the last
    weight = facts.value("loss.in_batch_weight", 1.0)
    if weight == 0:
        candidates = 1
        where = facts["loss.in_batch_weight"].where
    facts.put("batch.candidates", candidates, where, "derived")
    own = 1 if facts.value("data.hard_negatives", False) else 0
    facts.put("batch.negatives", candidates - 1 + own, where, "derived")


def _shares(facts: Facts, kind: str) -> object:
    if facts["batch.shared"].is_known:
        return facts.value("batch.shared")
    if kind == "colpali-engine" or facts.knows("versions.colpali-engine"):
        engine = facts.value("versions.colpali-engine", Versions())
        if engine.all_from(*GATHERS_FROM):
            return True
        return False if engine.all_before(*GATHERS_FROM) else UNKNOWN
    return UNKNOWN
