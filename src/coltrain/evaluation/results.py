"""Evaluation results as JSON: the form of `evaluation/*.json` in a run and of `coltrain eval --json`.

    {"results": [{"dataset": "tiny:test", "num_queries": 200, "num_pages": 240,
                  "measures": {"nDCG@5": 0.81, …},
                  "per_query": {"q17": {"nDCG@5": 1.0, …}, …}}], …}

Measures are fractions, ids are those of the data, and unjudged queries are absent. A result may
say more; what it does not say is absent:

    "ranking": {"q17": {"page_ids": ["p3", …], "scores": [17.25, …]}, …}   best first, judged queries
    "intervals": {"nDCG@5": {"low": 0.77, "high": 0.85, "method": …, "flag": …}, …}   95 % of a mean
    "judged_but_missing": ["p9", …]                    pages that were judged and are not in the data
    "subsets": {"french": {"nDCG@5": 0.7, …}, …}        a benchmark's task: measures by language,
    "languages": {"q17": "french", …}                  the language of each judged query,
    "base_queries": {"q17": "q1", …}                   the query that each is a translation of,
    "data": {"repository": …, "revision": …, …}        and where its data come from
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coltrain.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

    from coltrain.data.collection import Collection


@dataclass(frozen=True)
class Result:
    """What one model reached on one data set."""

    dataset: str
    num_queries: int
    """Judged queries, those that the means are taken over."""

    num_pages: int
    """Pages that were searched."""

    measures: dict[str, float]
    per_query: dict[str, dict[str, float]]
    ranking: dict[str, dict[str, list]] | None = None
    """For each judged query its best page ids and their float32 scores."""

    intervals: dict[str, dict[str, Any]] | None = None
    """For each measure the mean's 95 % interval over queries: `low`, `high`, `method`, `flag`."""

    judged_but_missing: list[str] | None = None
    """Judged pages that the data do not hold: relevant, and never found."""

    subsets: dict[str, dict[str, float]] | None = None
    """For each language of a benchmark's task its measures, whose means are the task's."""

    languages: dict[str, str] | None = None
    """For each judged query of a benchmark's task its language."""

    base_queries: dict[str, str] | None = None
    """For each such query the one that it is a translation of: what statistics draw together."""

    data: dict[str, Any] | None = None
    """Of a benchmark's task: repository, revision, edition, layout, rule for duplicates."""


_OPTIONAL = {
    "ranking": Mapping,
    "intervals": Mapping,
    "judged_but_missing": list,
    "subsets": Mapping,
    "languages": Mapping,
    "base_queries": Mapping,
    "data": Mapping,
}


def tie_order(page_ids: Sequence[str]) -> np.ndarray:
    """Each page's place among the ids in ascending order: of two that tie, the larger wins."""
    order = np.empty(len(page_ids), dtype=np.int64)
    order[sorted(range(len(page_ids)), key=page_ids.__getitem__)] = np.arange(len(page_ids))
    return order


def ranked(collection: "Collection", scores: "Tensor", top_k: int) -> dict[str, dict[str, list]]:
    """The best pages of each judged query, by the measures' rule.

    Scores in float32, descending; ties to the larger page id, compared as strings.

    Args:
        collection: Pages, queries and judgements.
        scores: queries x pages.
        top_k: Pages of a query at most.

    Returns:
        Query id to `page_ids` and `scores`, both best first.
    """
    rows = scores.cpu().numpy().astype(np.float32)
    ids = collection.page_ids
    by_id = tie_order(ids)
    ranking = {}
    for query, row in zip(collection.queries, rows, strict=True):
        if collection.qrels.get(query.id):
            order = np.lexsort((-by_id, -row))[:top_k]
            ranking[query.id] = {
                "page_ids": [ids[place] for place in order],
                "scores": [float(row[place]) for place in order],
            }
    return ranking


def results_to_json(results: Sequence[Result], **more: Any) -> dict[str, Any]:
    """The JSON document of some results.

    Args:
        results: One for each data set.
        **more: What else the document says beside "results", such as `step`.

    Raises:
        ValueError: A measure is not finite: JSON has no such number.
    """
    for result in results:
        tables = {"the mean": result.measures, **result.per_query}
        for place, table in tables.items():
            for name, value in table.items():
                if not math.isfinite(value):
                    raise ValueError(f"{name} of {place} on {result.dataset} is {value}")
    return {"results": [_entry(result) for result in results], **more}


def results_from_json(document: Any, where: str = "the document") -> list[Result]:
    """Results from their JSON document.

    Args:
        document: The document, parsed.
        where: What an error calls it.

    Raises:
        RunError: `[not-results]`, what is missing or of the wrong kind named.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("results"), list):
        raise _not_results(where, _kind(document), 'a mapping with a list "results"')
    return [
        _result(entry, f"{where}, results[{index}]")
        for index, entry in enumerate(document["results"])
    ]


def write_results(path: str | Path, results: Sequence[Result], **more: Any) -> None:
    """Write results to a file, whole or not at all.

    Args:
        path: The file; its folder is made where it is missing.
        results: One for each data set.
        **more: What else the document says beside "results".
    """
    path = Path(path)
    text = json.dumps(results_to_json(results, **more), indent=2, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def read_results(path: str | Path) -> list[Result]:
    """Results from a file.

    Raises:
        RunError: `[not-results]`: the file is missing or is not a document of results.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise _not_results(str(path), error.strerror or str(error), "a readable file") from error
    except ValueError as error:
        raise _not_results(str(path), f"no JSON: {error}", "a JSON document") from error
    return results_from_json(document, str(path))


def _entry(result: Result) -> dict[str, Any]:
    entry = asdict(result)
    return {key: value for key, value in entry.items() if key not in _OPTIONAL or value is not None}


def _result(entry: Any, where: str) -> Result:
    if not isinstance(entry, Mapping):
        raise _not_results(where, _kind(entry), "a mapping")
    kinds = {
        "dataset": str,
        "num_queries": int,
        "num_pages": int,
        "measures": Mapping,
        "per_query": Mapping,
    }
    for key, kind in kinds.items():
        if key not in entry:
            raise _not_results(
                where, f"keys {', '.join(map(str, entry)) or 'none'}", f"a key {key}"
            )
        if not isinstance(entry[key], kind) or isinstance(entry[key], bool):
            expected = "a mapping" if kind is Mapping else kind.__name__
            raise _not_results(f"{where}.{key}", _kind(entry[key]), expected)
    for key, kind in _OPTIONAL.items():
        if key in entry and not isinstance(entry[key], kind):
            expected = "a mapping" if kind is Mapping else "a list"
            raise _not_results(f"{where}.{key}", _kind(entry[key]), expected)
    per_query = {query: _table(table, where) for query, table in entry["per_query"].items()}
    return Result(
        dataset=entry["dataset"],
        num_queries=entry["num_queries"],
        num_pages=entry["num_pages"],
        measures=_table(entry["measures"], where),
        per_query=per_query,
        **{key: entry[key] for key in _OPTIONAL if entry.get(key) is not None},
    )


def _table(table: Any, where: str) -> dict[str, float]:
    if not isinstance(table, Mapping):
        raise _not_results(where, _kind(table), "measures by name")
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _not_results(where, f"{name} = {value!r}", "a number")
    return {name: float(value) for name, value in table.items()}


def _kind(value: Any) -> str:
    return f"{type(value).__name__}: {str(value)[:60]}"


def _not_results(where: str, received: str, expected: str) -> RunError:
    return RunError(
        "not-results",
        "this is not a document of evaluation results.",
        where=where,
        received=received,
        expected=expected,
        suggestion="`coltrain eval --json` and the evaluation folder of a run hold such documents",
    )
