"""How good a ranking is: nDCG, Recall, MRR and MAP, as trec_eval counts them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from coltrain.errors import UsageError

DEFAULT_MEASURES = (
    "nDCG@1",
    "nDCG@5",
    "nDCG@10",
    "Recall@1",
    "Recall@5",
    "Recall@10",
    "Recall@100",
    "MRR@10",
    "MAP",
)


@dataclass(frozen=True)
class Measured:
    """The measures of one ranking, as fractions."""

    measures: dict[str, float]
    """The mean over all judged queries of each measure."""

    per_query: dict[str, dict[str, float]]
    """For each judged query, in the order of the qrels, each measure."""


def measure(
    qrels: Mapping[str, Mapping[str, int]],
    ranking: Mapping[str, Mapping[str, float]],
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> Measured:
    """Measure a ranking against judgements.

    Any of nDCG, Recall, MRR and MAP, whole or at a cut-off (`nDCG@5`). Gains are linear (the
    judgement itself), a page is relevant from a judgement of 1 on, and pages without a judgement
    are not relevant. Scores are compared in float32, and ties go to the larger page id, compared
    as strings: trec_eval's rule.

    Which queries count: those with at least one judgement. One that the ranking lacks counts 0,
    so that losing a query never raises a mean (trec_eval -c; pytrec_eval leaves it out). One
    whose judgements are all 0 counts 0 too, as in trec_eval. A query without any judgement is
    absent from the result, whether the ranking has it or not.

    Args:
        qrels: For each query id, the judgement of each judged page id.
        ranking: For each query id, the score of each retrieved page id.
        measures: Names of measures; the result keeps their order.

    Returns:
        Means over queries, and the values of each query.

    Raises:
        UsageError: `[unknown-measure]` for a name that is none; `[not-a-score]` for a score that
            is not a number; `[nothing-judged]` when no query has a judgement.

    Source:
        trec_eval through pytrec_eval (Van Gysel and de Rijke, 2018), which ViDoRe uses: equal to
        1e-9. nDCG: Järvelin and Kekäläinen, 2002.

    Example:
        >>> measure({"q": {"a": 1}}, {"q": {"a": 0.2, "b": 0.7}}, ["nDCG@5", "MRR@10"]).measures
        {'nDCG@5': 0.6309297535714575, 'MRR@10': 0.5}
    """
    functions = {name: _parse(name) for name in measures}
    page_ids = sorted({page for scores in ranking.values() for page in scores})
    place = {page: index for index, page in enumerate(page_ids)}
    per_query: dict[str, dict[str, float]] = {}
    for query, judgements in qrels.items():
        if not judgements:
            continue
        ranked = _rank(query, ranking.get(query, {}), place)
        gains = np.array([max(judgements.get(page, 0), 0) for page in ranked], dtype=np.float64)
        ideal = np.array(sorted((g for g in judgements.values() if g > 0), reverse=True), float)
        per_query[query] = {name: function(gains, ideal) for name, function in functions.items()}
    if not per_query:
        raise UsageError(
            "nothing-judged",
            "no query has a judgement, so there is nothing to measure.",
            received=f"qrels of {len(qrels)} queries",
            expected="at least one query with at least one judged page",
        )
    means = {
        name: math.fsum(values[name] for values in per_query.values()) / len(per_query)
        for name in functions
    }
    return Measured(measures=means, per_query=per_query)


def _rank(query: str, scores: Mapping[str, float], place: Mapping[str, int]) -> list[str]:
    """Page ids by descending float32 score, ties by descending id."""
    pages = list(scores)
    with np.errstate(over="ignore"):
        values = np.fromiter(scores.values(), dtype=np.float64, count=len(pages))
        values = values.astype(np.float32)
    if np.isnan(values).any():
        page = pages[int(np.isnan(values).argmax())]
        raise UsageError(
            "not-a-score",
            "a score in the ranking is not a number, so the ranking has no order.",
            where=f"query {query!r}, page {page!r}",
            received=str(scores[page]),
            expected="a number",
            suggestion="look for NaN in the embeddings; float16 overflows where bfloat16 does not",
        )
    places = np.fromiter((place[page] for page in pages), dtype=np.int64, count=len(pages))
    return [pages[index] for index in np.lexsort((-places, -values))]


Function = Callable[[np.ndarray, np.ndarray], float]


def _parse(name: str) -> Function:
    """The function of a name such as nDCG@5: of gains in ranked order, and of the ideal order."""
    match = re.fullmatch(r"(nDCG|Recall|MRR|MAP)(?:@([1-9]\d*))?", name)
    if match is None or name == "Recall":
        near = get_close_matches(name, DEFAULT_MEASURES, n=1, cutoff=0.4)
        raise UsageError(
            "unknown-measure",
            f"there is no measure {name!r}.",
            received=name,
            expected="nDCG, MRR or MAP, whole or at a cut-off as in nDCG@5, or Recall@10",
            suggestion=f"did you mean {near[0]}?" if near else None,
        )
    function = {
        "nDCG": _ndcg,
        "Recall": _recall,
        "MRR": _reciprocal_rank,
        "MAP": _average_precision,
    }[match[1]]
    cut = int(match[2]) if match[2] else None
    return lambda gains, ideal: function(gains[:cut], ideal, cut)


def _ndcg(gains: np.ndarray, ideal: np.ndarray, cut: int | None) -> float:
    best = _dcg(ideal[:cut])
    return _dcg(gains) / best if best else 0.0


def _dcg(gains: np.ndarray) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _recall(gains: np.ndarray, ideal: np.ndarray, cut: int | None) -> float:
    return float((gains > 0).sum()) / len(ideal) if len(ideal) else 0.0


def _reciprocal_rank(gains: np.ndarray, ideal: np.ndarray, cut: int | None) -> float:
    relevant = np.flatnonzero(gains > 0)
    return 1.0 / (int(relevant[0]) + 1) if len(relevant) else 0.0


def _average_precision(gains: np.ndarray, ideal: np.ndarray, cut: int | None) -> float:
    relevant = np.flatnonzero(gains > 0)
    precisions = np.arange(1, len(relevant) + 1) / (relevant + 1)
    return float(precisions.sum()) / len(ideal) if len(ideal) else 0.0
