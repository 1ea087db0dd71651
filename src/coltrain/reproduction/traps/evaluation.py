"""Traps of measuring: the evaluator, the evaluation set, scores that depend on the batch."""

import json

from coltrain.recipe import Source
from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown

_OLD_EVALUATORS = ("CustomRetrievalEvaluator", "ViDoReEvaluatorBEIR")


def other_evaluator(target: Target) -> Outcome:
    """Trap 13: a score by an evaluator, or on data, with which the published one cannot be compared."""
    recipe = target.recipe
    if recipe is not None:
        trained = {_rows_of(one, "train") for one in recipe.data.train}
        both = [one.path for one in recipe.eval.data if _rows_of(one, "test") in trained]
        if both:
            return failed(
                f"evaluates on {both[0]}, which it trains on", "another split", "eval.data"
            )
        if target.run is not None:
            return _of_run(target)
        return passed("protocols are named with every score", "eval.data")
    where = target.mentioned(*_OLD_EVALUATORS)
    if where:
        name = next(m.name for m in target.mentions if m.name in _OLD_EVALUATORS)
        return failed(
            f"{name}, which does not deduplicate queries as the leaderboard does",
            "vidore-benchmark's ViDoReEvaluatorQA as published, or mteb with its version",
            where,
        )
    where = target.mentioned("CustomEvaluator")
    if where and target.mentioned("compute_metrics"):  # without them it only scores, for a search
        return failed(
            "colpali-engine's CustomEvaluator, which does not deduplicate queries",
            "vidore-benchmark's ViDoReEvaluatorQA as published, or mteb with its version",
            where,
        )
    evaluator = target.facts["eval.evaluator"]
    mteb = target.facts.value("versions.mteb", Versions())
    if mteb.all_from(2, 0) or mteb.all_before(2, 0):
        if mteb.all_before(1, 38, 33):
            return failed(f"mteb {mteb}", "mteb 1.38.33 or later", target.facts["versions.mteb"])
        if mteb.all_from(2, 0, 1) and mteb.all_before(2, 12, 16):
            return failed(
                f"mteb {mteb}, whose scores of these models lie below the published ones",
                "mteb 2.12.16 or later, or 1.38.33 to 2.0.0",
                target.facts["versions.mteb"],
            )
        return passed(f"mteb {mteb}", target.facts["versions.mteb"].where)
    if evaluator.is_known:
        return passed(str(evaluator.value), evaluator.where)
    return unknown("the evaluator of the score, and its version")


def _rows_of(source: Source, usual: str) -> tuple[str, str]:
    """Name and split; drawn pages have their split in the name."""
    return source.path, "" if source.is_builtin else source.split or usual


def _of_run(target: Target) -> Outcome:
    """A run's results: measures that follow from its ranks, on the data that its recipe names."""
    run = target.run
    assert run is not None
    assert target.recipe is not None
    asked = {source.path for source in target.recipe.eval.data}
    for name in ("before", "final"):
        file = run.folder / "evaluation" / f"{name}.json"
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for result in document.get("results", []):
            measures, each = result.get("measures") or {}, result.get("per_query") or {}
            values = [one.get("nDCG@5") for one in each.values() if isinstance(one, dict)]
            values = [one for one in values if isinstance(one, int | float)]
            stated = measures.get("nDCG@5")
            if (
                values
                and isinstance(stated, int | float)
                and abs(sum(values) / len(values) - stated) > 1e-3
            ):
                return failed(
                    f"nDCG@5 {stated:.4f} of {result.get('dataset')}",
                    f"{sum(values) / len(values):.4f}, the mean over its queries",
                    f"evaluation/{name}.json",
                )
            protocol = result.get("protocol")
            if isinstance(protocol, dict | str) and "mteb-2.0" in json.dumps(protocol):
                return failed(
                    str(protocol)[:80],
                    "the protocol of the published score",
                    f"evaluation/{name}.json",
                )
    return passed(f"results per query on {', '.join(sorted(asked)) or 'nothing'}", "evaluation/")


def evaluation_set_is_raw(target: Target) -> Outcome:
    """Trap 24: an evaluation set of raw rows, at which the training stops at its first evaluation."""
    form = target.facts["eval.form"]
    if form.is_known and target.kind == "colpali-engine":
        return failed("raw rows without pos_target", "ColPaliEngineDataset(…)", form)
    return passed("no raw rows", target.facts["eval.data"].where)


def batch_dependent_scores(target: Target) -> Outcome:
    """Trap 18: scores that depend on who else is in the batch."""
    facts = target.facts
    smooth = facts["loss.smooth_max"]
    if smooth.value is True:
        return failed("a smooth maximum over padding too", "use_smooth_max=False", smooth)
    padding = facts["loss.padding"]
    if target.recipe is not None and padding.value == "zero":
        return failed(
            "padding stays in the maximum as a zero vector", "loss.padding: masked", padding
        )
    half = target.mention("half scores")
    if half is not None:
        return failed(f"scores after .{half.text}()", "scores in float32", half.where)
    for call in target.calls:
        if call.last in ("score_multi_vector", "score") and call.on is not None:
            for cast in target.calls:
                if cast.last in ("half", "bfloat16"):
                    return failed(f"scores after .{cast.last}()", "scores in float32", cast.where)
    if target.kind in ("colpali-engine",):
        return passed(
            "a hard maximum; padding counts as zero, as it did when published", padding.where
        )
    return passed(
        f"padding {padding.value}" if padding.is_known else "no scores here", padding.where
    )
