"""What each query was compared with, and what was asked for."""

from coltrain.recipe import Recipe
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.reproduction.causes.side import Side

NEGATIVES = "batch.negatives"
_RESTATED = (
    "batch.candidates",
    "batch.candidates_met",
    "batch.shared",
    "batch.per_device",
    "batch.accumulation",
    "launch.world_size",
    "launch.data_parallel",
)
"""What negatives follow from: no differences of their own where the negatives differ."""


def put_negatives(recipe: Recipe, side: Side, where: str) -> None:
    """Add the negatives that a query of a recipe meets, in the batch and of its own."""
    batch, loss, hard = recipe.batch, recipe.loss, recipe.hard_negatives
    group = batch.global_size if batch.negatives == "global" else batch.negatives
    wants_own = loss.name in HARD_NEGATIVE_LOSSES
    in_batch = 0 if wants_own and loss.in_batch_weight == 0 else group - 1
    own = hard.per_query if wants_own else 0
    if hard.shared:
        own = hard.per_query * group
    side.put(
        NEGATIVES, in_batch + own, f"{where}, batch.negatives, loss.name, loss.in_batch_weight"
    )
    side.put("negatives.in_batch", in_batch, where)
    side.put("negatives.own", own, where)


def restated(a: Side, b: Side) -> set[str]:
    """Keys that say again what a difference in negatives says."""
    mine, theirs = a.value(NEGATIVES), b.value(NEGATIVES)
    told = {"negatives.in_batch", "negatives.own", "batch.negatives_setting"}
    if mine is None or theirs is None or mine == theirs:
        return told
    return told | set(_RESTATED)


def falls_short(a: Side, b: Side) -> bool:
    """Whether the side with fewer negatives met fewer than the batch that it asked for gives."""
    low = min((a, b), key=lambda side: side.value(NEGATIVES))
    asked = low.value("batch.global_size")
    return isinstance(asked, int) and low.value(NEGATIVES) < asked - 1


def sentence(a: Side, b: Side) -> str | None:
    """The difference in negatives, said first; None where there is none, or nothing is known."""
    mine, theirs = a.value(NEGATIVES), b.value(NEGATIVES)
    if not isinstance(mine, int | float) or not isinstance(theirs, int | float) or mine == theirs:
        return None
    low, few, many = (a, mine, theirs) if mine < theirs else (b, theirs, mine)
    asked = low.value("batch.global_size")
    who = "You" if low is a else low.label
    if falls_short(a, b):
        ended = "" if low is a else f"; on the other side it met {many:g}"
        expected = many if low is a else asked - 1
        return (
            f"{who} asked for a batch of {asked}, but each query met {_negatives(few)}, "
            f"not {expected:g}{ended}."
        )
    return (
        f"Each query met {_negatives(mine)} in {a.label}, and {_negatives(theirs)} in {b.label}: "
        "the batches are of other sizes."
    )


def _negatives(number: float) -> str:
    return f"{number:g} negative" + ("" if number == 1 else "s")


def account(side: Side) -> str | None:
    """How a side comes to its number, in one line."""
    number = side.value(NEGATIVES)
    if number is None:
        return None
    parts = []
    own, in_batch = side.value("negatives.own"), side.value("negatives.in_batch")
    if in_batch is None and isinstance(side.value("batch.candidates"), int):
        in_batch = side.value("batch.candidates") - 1
        own = number - in_batch
    if in_batch is not None:
        parts.append("no in-batch one" if in_batch == 0 else f"{in_batch:g} in-batch")
    if own:
        parts.append(f"{own:g} hard one" + ("s" if own > 1 else "") + " of its own")
    text = f"{_negatives(number)}: " + " and ".join(parts) if parts else _negatives(number)
    each, processes = side.value("batch.per_device"), side.value("launch.world_size")
    if side.kind not in ("run", "recipe") and isinstance(each, int) and isinstance(processes, int):
        text += f"; {each} queries on each of {processes} processes"
    met = side.value("batch.candidates_met")
    if isinstance(met, int | float) and in_batch is not None and abs(met - 1 - in_batch) > 1e-9:
        text += f" (in-batch ones met, median of steps: {met - 1:.1f})"
    return f"{text} [{side.values[NEGATIVES].where}]"
