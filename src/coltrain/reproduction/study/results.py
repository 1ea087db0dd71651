"""What came out of a study, read from its folder and written beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from coltrain.errors import RunError
from coltrain.reproduction.study.document import as_document
from coltrain.reproduction.study.features import shared_features
from coltrain.reproduction.study.findings import Findings, findings
from coltrain.reproduction.study.folder import StudyFolder
from coltrain.reproduction.study.plan import Plan
from coltrain.reproduction.study.scores import read_scores
from coltrain.reproduction.study.tables import as_latex, as_markdown, shares_table, tables
from coltrain.training.run_folder import write_json


def study_findings(folder: StudyFolder, plan: Plan) -> Findings:
    """Work out what the runs say that have finished so far.

    Raises:
        RunError: Runs were not measured on the same queries, or cannot be read.
    """
    outcomes = [(run, folder.outcome(run.identity)) for run in plan.runs]
    failed = [
        (str(run.cell), run.seed, outcome.error)
        for run, outcome in outcomes
        if outcome is not None and not outcome.is_finished
    ]
    missing = sum(outcome is None for _, outcome in outcomes)
    found = findings(plan.study, read_scores(folder, plan), failed=failed, missing=missing)
    return replace(found, shared=shared_features(folder.path))


def write_results(folder: StudyFolder, found: Findings, *, html: bool) -> list[Path]:
    """Write results.json, table.md and table.tex, and the page where it is asked for.

    Raises:
        RunError: `[cannot-write]`
    """
    path = folder.path
    texts = {"table.md": as_markdown(tables(found)), "table.tex": as_latex(shares_table(found))}
    if html:
        from coltrain.reproduction.study.page import html_page

        texts["report.html"] = html_page(found)
    try:
        write_json(path / "results.json", as_document(found))
        for name, text in texts.items():
            (path / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            "cannot-write",
            "the results of the study cannot be written.",
            where=str(path),
            received=error.strerror or str(error),
            suggestion="make room, then the same command again: no run is trained twice",
        ) from error
    return [path / name for name in ("results.json", *texts)]
