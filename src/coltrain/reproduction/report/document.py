"""The report as one JSON document: what page and Markdown twin say, pictures left out."""

from dataclasses import asdict
from typing import Any

from coltrain.reproduction.comparison.comparison import comparison_to_json
from coltrain.reproduction.report.content import Report
from coltrain.reproduction.report.table import Table

FORMAT = 1


def report_to_json(report: Report) -> dict[str, Any]:
    """Plain values: tables as rows by heading, as the page shows them; measures as fractions too."""
    return {
        "format": FORMAT,
        "title": report.title,
        "description": report.asked.description,
        "state": report.state,
        "summary": report.summary,
        "facts": [
            {"name": name, "figure": figure, "remark": remark}
            for name, figure, remark in report.facts
        ],
        "notices": list(report.notices),
        "missing": list(report.missing),
        "asked": report.asked.sentence,
        "published_recipe": report.asked.published,
        "deviations": [
            *_rows(report.asked.from_published),
            *_rows(report.asked.of_the_run),
        ],
        "scores": None
        if report.scores is None
        else {
            "measure": report.scores.measure,
            "shown": _rows(report.scores.summary),
            "measures": report.measures,
        },
        "published": {
            "model": report.beside.model,
            "verdict": report.beside.verdict,
            "comparison": None
            if report.beside.comparison is None
            else comparison_to_json(report.beside.comparison),
        },
        "findings": [asdict(one) for one in report.diagnosis.ailments],
        "findings_summary": report.diagnosis.summary,
        "curves": [{"name": name, "ends": ends} for name, _, ends in report.curves.sparklines],
        "cost": dict(report.cost.rows),
        "batches": _rows(report.ledger.table),
        "data": _rows(report.provenance.data),
        "environment": dict(report.provenance.environment.rows),
        "hashes": _rows(report.provenance.hashes),
        "recipe_yaml": report.provenance.yaml,
        "again": list(report.provenance.again),
        "again_with": list(report.provenance.again_with),
        "again_remark": report.provenance.again_remark,
    }


def _rows(table: Table | None) -> list[dict[str, str]]:
    if table is None:
        return []
    # A column without a heading stands beside one that names it: what it is, and how much.
    unnamed = iter(("name", "value", "remark"))
    headings = [heading or next(unnamed) for heading in table.headings]
    return [dict(zip(headings, row, strict=True)) for row in table.rows]
