"""Traps of the loss: what it computes, and where it stands."""

import math

from coltrain.reproduction.targets import Target
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import is_colqwen2

_IN_A_ROW = 10
_TOLERANCE = 0.01


def loss_stuck(target: Target) -> Outcome:
    """Trap 8: a loss that stays where a model that tells nothing apart has it, or cannot move."""
    facts = target.facts
    candidates = facts.value("batch.candidates")
    losses = (
        [(line["step"], line.get("loss")) for line in target.run.steps]
        if target.run is not None
        else [(line.get("step"), line.get("loss")) for line in target.log if "loss" in line]
    )
    known = [(step, loss) for step, loss in losses if isinstance(loss, int | float)]
    name = str(facts.value("loss.name", ""))
    values = {"ln 2": math.log(2)} if name in ("pairwise", "") or "pairwise" in name else {}
    if name.startswith("softmax") and candidates and candidates > 1:
        values[f"ln {candidates:g}"] = math.log(candidates)
    together = facts.value("batch.per_device")
    if not name and isinstance(together, int) and together > 2 and known:
        # A log alone: no loss says what it is, so most of it must stand there.
        value = math.log(together)
        if _longest(known, value) > len(known) / 2:
            values[f"ln {together}, the batch"] = value
    for said, value in values.items():
        stuck = _longest(known, value)
        if stuck >= min(_IN_A_ROW, max(3, len(known))):
            return failed(
                f"the loss stood at {value:.4f} ({said}) for {stuck} lines in a row",
                "a loss that falls below it: pages that can be told apart",
                "metrics.jsonl" if target.run is not None else target.log_where,
            )
    collapsed = _collapsed(target)
    if collapsed is not None:
        return collapsed
    if candidates == 1 and not facts.value("data.hard_negatives", False):
        return failed(
            "one candidate a query: its own page", "at least two", facts["batch.candidates"]
        )
    rate = facts["optimizer.learning_rate"]
    limit = 5e-3 if is_colqwen2(target) else 1e-2
    if rate.is_known and isinstance(rate.value, int | float) and rate.value > limit:
        return failed(
            f"a learning rate of {rate.value:g}, at which embeddings collapse",
            "at most 5e-4, the highest published" if is_colqwen2(target) else f"at most {limit:g}",
            rate,
        )
    if not known:
        return (
            unknown("the losses of the training")
            if target.kind != "recipe"
            else passed("not trained yet")
        )
    return passed(f"last loss {known[-1][1]:.4f}", "the log of losses")


def _longest(losses: list[tuple[int, float]], value: float) -> int:
    longest = run = 0
    for _, loss in losses:
        run = run + 1 if abs(loss - value) < _TOLERANCE * value else 0
        longest = max(longest, run)
    return longest


def _collapsed(target: Target) -> Outcome | None:
    """What a run's last evaluation shows: one page nearest to most queries."""
    run = target.run
    if run is None:
        return None
    for name, spread in (run.fact("embeddings", {}) or {}).items():
        if spread.get("num_pages", 0) < 20:
            continue
        for key, limit in (("variance", 1e-4), ("effective_rank", 2.0)):
            if spread.get(key, limit) < limit:
                return failed(
                    f"{key} of the pages of {name} {spread[key]:g}: they have one embedding",
                    f"at least {limit:g}",
                    "run.json, embeddings",
                )
        if spread.get("same_nearest", 0) > 0.5:
            return failed(
                f"one page is nearest to {100 * spread['same_nearest']:.0f} % of the queries of {name}",
                "many pages",
                "run.json, embeddings",
            )
    if run.after is None:
        return None
    for name, document in run.pictures_after.items():
        winners = [one.get("winner") for one in document.get("queries", [])]
        if len(winners) >= 20:
            most = max(winners.count(one) for one in set(winners))
            if most > 0.5 * len(winners):
                return failed(
                    f"one page is nearest to {most} of {len(winners)} queries of {name}",
                    "many pages",
                    "evaluation/illustrations/final.json",
                )
    return None


def same_file_new_loss(target: Target) -> Outcome:
    """Trap 9: a pairwise loss that divides its scores, so that it cannot fall below 0.313."""
    facts = target.facts
    name, normalize = facts.value("loss.name"), facts["loss.normalize"]
    temperature = facts["loss.temperature"]
    if name is None:
        return (
            unknown("the loss")
            if target.kind not in ("model",)
            else unknown("a loss; weights do not tell")
        )
    if name == "pairwise" and not normalize.is_known:
        floor = _never_below_the_floor(target)
        if floor is not None:
            return floor
    if not normalize.is_known:
        return unknown(
            "the version of colpali-engine: since 0.3.11 the pairwise loss divides its scores"
        )
    if name == "pairwise":
        warmth = temperature.value or 1.0
        if normalize.value and warmth > 0.2:
            how = "by default" if normalize.sure == "default" else "as the file says"
            return failed(
                f"scores divided by the number of query tokens ({how}), temperature {warmth:g}",
                "normalize_scores=False, as the published models were trained",
                normalize,
            )
        if (
            not normalize.value
            and temperature.is_known
            and temperature.value
            and temperature.value < 0.5
        ):
            return failed(
                f"undivided scores over a temperature of {temperature.value:g}",
                "temperature 1",
                temperature,
            )
    if name == "softmax" and target.kind in ("colpali-engine", "recipe", "run"):
        if (
            normalize.value is False
            and temperature.is_known
            and temperature.value
            and temperature.value < 0.2
        ):
            return failed(
                f"undivided scores over a temperature of {temperature.value:g}",
                "normalize with temperature 0.02",
                normalize,
            )
        if (
            normalize.value
            and temperature.is_known
            and temperature.value
            and temperature.value > 0.2
        ):
            return failed(
                f"divided scores with temperature {temperature.value:g}: gradients of almost nothing",
                "temperature 0.02",
                temperature,
            )
    return passed(
        f"{name}, divided: {normalize.value}, temperature {temperature.value}", normalize.where
    )


def clipping_meets_scaled_gradients(target: Target) -> Outcome:
    """Trap F4: PyLate's cached loss, whose gradients are B times too large before clipping."""
    facts = target.facts
    if target.kind != "pylate":
        if target.run is not None:
            return _clipped(target)
        return passed("gradients of a mean over the batch")
    if not facts.value("batch.cached", False) or facts.value("loss.class") != "CachedContrastive":
        return passed(str(facts.value("loss.class")), facts["loss.class"].where)
    norm = facts["optimizer.max_grad_norm"]
    if isinstance(norm.value, int | float) and 0 < norm.value <= 10:
        return failed(
            f"CachedContrastive with max_grad_norm {norm.value:g}: every step is clipped",
            f"Contrastive, or max_grad_norm times {facts.value('batch.per_device')}",
            norm,
        )
    return passed(f"max_grad_norm {norm.value}", norm.where)


def _clipped(target: Target) -> Outcome:
    run = target.run
    assert run is not None
    limit = target.facts.value("optimizer.max_grad_norm")
    norms = [
        line["grad_norm"] for line in run.steps if isinstance(line.get("grad_norm"), int | float)
    ]
    if not limit or not norms:
        return passed("no clipping")
    clipped = sum(norm > limit for norm in norms) / len(norms)
    return passed(
        f"{100 * clipped:.0f} % of steps clipped at {limit:g}", "metrics.jsonl, grad_norm"
    )


_FLOOR = math.log1p(math.exp(-1))  # softplus of -1: divided scores lie between 0 and 1
_LONG = 50


def _never_below_the_floor(target: Target) -> Outcome | None:
    """A pairwise loss whose scores are divided for certain, or not, by how low it came."""
    losses = [line["loss"] for line in target.log if isinstance(line.get("loss"), int | float)]
    if not losses:
        return None
    lowest = min(losses)
    if 0 < lowest < _FLOOR:
        return passed(
            f"a loss of {lowest:.3f}, which divided scores cannot reach", target.log_where
        )
    late = losses[len(losses) // 2 :]
    if len(losses) >= _LONG and max(losses) > 0.55 and sum(late) / len(late) < 0.65:
        return failed(
            f"the loss fell to {lowest:.3f} and never below {_FLOOR:.3f} in {len(losses)} lines, "
            "as that of divided scores cannot",
            "normalize_scores=False, as the published models were trained",
            target.log_where,
        )
    return None
