"""`report`: the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from coltrain import console


def report(
    run: Annotated[Path, typer.Argument(help="A run, also one that is going on or was killed.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the report as Markdown on stdout.")
    ] = False,
) -> None:
    """Write report.html (and report.md) into a run: one page, nothing loaded from elsewhere."""
    from coltrain.reproduction.report import report_markdown, write_report

    path = write_report(run)
    if markdown:
        console.print_text(report_markdown(run))
    else:
        console.print_text(str(path))
