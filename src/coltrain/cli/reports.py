"""`report`: the reproduction report of a run, or the report of a study."""

import json
from pathlib import Path
from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption, quiet_libraries
from coltrain.errors import RunError


def report(
    target: Annotated[
        Path,
        typer.Argument(
            help="A run, also one that is going on or was killed; or the folder of a study."
        ),
    ],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the report as Markdown on stdout.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write report.html and report.md: what was asked, what was run, how far it is, and again how."""
    if (target / "study.json").is_file():
        _study(target, markdown, as_json)
        return
    from coltrain.reproduction.report import report_json, report_markdown, write_report

    quiet_libraries()  # the doctor may load a small model
    path = write_report(target)
    if as_json:
        console.print_json(report_json(target))
    elif markdown:
        console.print_text(report_markdown(target))
    else:
        console.print_text(str(path))


def _study(folder: Path, markdown: bool, as_json: bool) -> None:
    """What a study's runs say so far, written beside them."""
    from coltrain.reproduction.study.document import as_document
    from coltrain.reproduction.study.folder import StudyFolder
    from coltrain.reproduction.study.plan import make_plan
    from coltrain.reproduction.study.reading import study_from_yaml
    from coltrain.reproduction.study.results import study_findings, write_results

    file = folder / "study.json"
    try:
        asked = json.dumps(json.loads(file.read_text(encoding="utf-8"))["study"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            "broken-run-file",
            "the record of a study is cut off or changed.",
            where=str(file),
            received=str(error) or type(error).__name__,
            suggestion=f"coltrain study STUDY --out {folder} writes it again",
        ) from error
    kept = StudyFolder(folder)
    found = study_findings(kept, make_plan(study_from_yaml(asked, str(file))))
    written = write_results(kept, found, html=True)
    if as_json:
        console.print_json(as_document(found))
    elif markdown:
        table = next(path for path in written if path.suffix == ".md")
        console.print_text(table.read_text(encoding="utf-8"))
    else:
        pages = [path for path in written if path.suffix == ".html"] or written
        console.print_text(str(pages[0]))
