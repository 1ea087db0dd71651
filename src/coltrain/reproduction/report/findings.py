"""What the check of the data found: how much was left out or converted, and which rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table

_SHOWN = 30  # rows; data_check.json has them all


@dataclass(frozen=True)
class Findings:
    """What the check of the data found.

    Attributes:
        summary: In a sentence; empty where the data were not checked.
        kinds: One kind of trouble in one data set a row.
        rows: What was left out, one a row, as far as there is room.
    """

    summary: str
    kinds: Table | None
    rows: Table | None


def findings_of(record: RunRecord) -> Findings:
    """What the check of the data found."""
    checked = [
        (role, source, source["check"])
        for role in ("train", "eval")
        for source in record.fact(f"data.{role}", [])
        if isinstance(source.get("check"), dict)
    ]
    kinds = [
        (role, str(source.get("name", "–")), kind, fate, figures.count(number))
        for role, source, check in checked
        for kind, fate, number in _kinds(check)
    ]
    rows = list(_rows(record))
    table = Table(
        headings=("used for", "data set", "kind", "what became of it", "number"),
        rows=tuple(kinds),
        caption="What the check of the data found",
        text_columns=(0, 1, 2, 3),
    )
    caption = "What was left out" if len(rows) <= _SHOWN else f"The first {_SHOWN} left out"
    return Findings(
        summary=_summary(checked, bool(kinds)),
        kinds=table if kinds else None,
        rows=Table(
            headings=("used for", "data set", "kind", "row", "page", "query", "what is wrong"),
            rows=tuple(rows[:_SHOWN]),
            caption=f"{caption}; data_check.json has {figures.count(len(rows))}",
            text_columns=(0, 1, 2, 4, 5, 6),
        )
        if rows
        else None,
    )


Checked = tuple[str, dict[str, Any], dict[str, Any]]


def _summary(checked: list[Checked], has_findings: bool) -> str:
    if not checked:
        return ""
    pages = figures.number_of(sum(check.get("pages_read") or 0 for _, _, check in checked), "page")
    if not has_findings:
        return f"Checked before training, {pages} decoded: nothing was left out or converted."
    share = max(check.get("share_left_out") or 0 for _, _, check in checked)
    return (
        f"Checked before training, {pages} decoded. Of a data set at most "
        f"{figures.score(share)}% was left out."
    )


def _kinds(check: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    for kind, number in check.get("left_out", {}).items():
        yield kind, "left out", number
    for kind, number in check.get("converted", {}).items():
        yield kind, "used, converted", number
    if number := check.get("judgements_left_out"):
        yield "judgement of a broken page", "left out", number
    if number := check.get("negatives_left_out"):
        yield "hard negative on a broken page", "left out", number
    negatives = check.get("hard_negatives", {})
    if number := negatives.get("none"):
        yield "row without hard negatives", "left out", number
    if number := negatives.get("fewer"):
        yield "row with fewer hard negatives than asked", "used, some twice", number


def _rows(record: RunRecord) -> Iterator[tuple[str, ...]]:
    for role in ("train", "eval"):
        sources = record.fact(f"data.{role}", [])
        for place, check in enumerate(record.checks.get(role, [])):
            name = sources[place].get("name", "–") if place < len(sources) else "–"
            for found in check.get("rows", []):
                keys = ("kind", "row", "page", "query", "message")
                cells = ("–" if found.get(key) is None else str(found[key]) for key in keys)
                yield (role, str(name), *cells)
