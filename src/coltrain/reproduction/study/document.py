"""What a study found as one JSON document: `coltrain study --json`, and results.json."""

from __future__ import annotations

from typing import Any

from coltrain.evaluation.statistics import Interval
from coltrain.reproduction.study.contrasts import Estimate
from coltrain.reproduction.study.findings import Findings
from coltrain.reproduction.study.power import Power

FORMAT = 1


def as_document(found: Findings) -> dict[str, Any]:
    """All figures of a study; measures and differences are fractions, None is not known."""
    study = found.study
    return {
        "format": FORMAT,
        "study": study.model_dump(mode="json", by_alias=True),
        "ends": study.ends,
        "measure": study.evaluation.measure,
        "num_runs": found.num_runs,
        "num_queries": found.num_queries,
        "missing": found.missing,
        "failed": [
            {"cell": cell, "seed": seed, "error": error} for cell, seed, error in found.failed
        ],
        "gap": _estimate(found.gap),
        "method": found.method,
        "shares": [
            {
                "factor": one.factor,
                "part": _estimate(one.part),
                "share": _interval(one.share),
                "of_explained": _rounded(one.of_explained),
            }
            for one in found.shares
        ],
        "remainder": _rounded(found.remainder),
        "levels": [
            {
                "factor": one.factor,
                "level": one.level,
                "others": one.others,
                "mean": _estimate(one.mean),
            }
            for one in found.levels
        ],
        "effects": [
            {
                "factor": one.factor,
                "level": one.level,
                "reference": one.reference,
                "others": one.others,
                "change": _estimate(one.change),
                "power": _power(one.power),
            }
            for one in found.effects
        ],
        "interactions": [
            {"factors": list(one.factors), "change": _estimate(one.change)}
            for one in found.interactions
        ],
        "seeds": {
            "sd": _rounded(found.spread.sd),
            "largest_difference": _rounded(found.spread.largest),
            "two_runs_differ_by_less_than": _rounded(found.spread.two_runs),
        },
        "shared_features": found.shared,
        "cells": [
            {
                "levels": dict(cell.levels),
                "mean": _estimate(mean),
                "by_seed": list(map(_rounded, seeds)),
            }
            for (cell, mean), seeds in zip(found.cells, found.seeds_of_cells, strict=True)
        ],
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)


def _interval(found: Interval | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": _rounded(found.mean),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
        "flag": found.flag,
    }


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {**_interval(found.interval), "seeds": list(found.seeds)}


def _power(found: Power | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "smallest_found": _rounded(found.smallest),
        "seeds_for_margin": found.seeds_for_margin,
        "smallest_with_any_seeds": _rounded(found.smallest_with_any_seeds),
    }
