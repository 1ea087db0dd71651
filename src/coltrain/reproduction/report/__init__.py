"""The reproduction report of a run: one page for people, its Markdown twin, and its JSON.

reading      the run's files, as far as they are there
asked        what was asked for, what was run, every deviation with its reason
beside       results beside published ones, and the verdict
diagnosis    what the doctor finds in it
cost         time, memory, machine, energy
missing      what of the folder is not there
scores       before and after
curves       what went on between: loss, learning rate, gradient norm, nDCG@5
ledger       what the batches were made of
pictures     score distributions and the gallery
findings     what the check of the data left out or converted
provenance   recipe, data, environment, and how to run it again
content      all of this as plain values, which page and twin both print
document     the same as JSON
"""

from pathlib import Path
from typing import Any

from coltrain.errors import RunError
from coltrain.reproduction.report.content import report_of
from coltrain.reproduction.report.document import report_to_json
from coltrain.reproduction.report.page import html_page, markdown_twin
from coltrain.reproduction.report.reading import read_run

__all__ = ["report_json", "report_markdown", "write_report"]


def write_report(run: Path) -> Path:
    """Write `report.html` and `report.md` into a run's folder.

    A run that is still going, was stopped or was killed gets the report of what is there.

    Args:
        run: A run's folder.

    Returns:
        The HTML page: one file that asks for nothing from anywhere.

    Raises:
        RunError: [not-a-run] The folder is no run. [cannot-write] It cannot be written.
    """
    report = report_of(read_run(run))
    page = run / "report.html"
    # Written in place: a page that was cut off can be made again from the run.
    try:
        (run / "report.md").write_text(markdown_twin(report), encoding="utf-8")
        page.write_text(html_page(report), encoding="utf-8")
    except OSError as error:
        raise RunError(
            "cannot-write",
            "the report cannot be written into the run's folder.",
            where=str(error.filename or page),
            received=error.strerror or str(error),
            suggestion="make room, or copy the run to a folder that can be written",
        ) from error
    return page


def report_markdown(run: Path) -> str:
    """The report as Markdown, without the pictures.

    Args:
        run: A run's folder.

    Raises:
        RunError: [not-a-run] The folder is no run.
    """
    return markdown_twin(report_of(read_run(run)))


def report_json(run: Path) -> dict[str, Any]:
    """The report as one document, without the pictures.

    Args:
        run: A run's folder.

    Raises:
        RunError: [not-a-run] The folder is no run.
    """
    return report_to_json(report_of(read_run(run)))
