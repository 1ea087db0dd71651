"""`study`: which of several differences between two recipes makes the gap between their scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.options import DeviceOption, JsonOption, chosen_device, quiet_libraries
from coltrain.errors import UsageError

if TYPE_CHECKING:
    import torch

    from coltrain.reproduction.study.findings import Findings
    from coltrain.reproduction.study.folder import StudyFolder
    from coltrain.reproduction.study.plan import Plan


def study(
    study: Annotated[
        str | None,
        typer.Argument(metavar="STUDY", help="A study's YAML file, or the name of a shipped one."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; default studies/NAME.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in a process.")] = 1,
    device: DeviceOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Begin a large study without being asked.")
    ] = False,
    as_json: JsonOption = False,
    html: Annotated[
        bool, typer.Option("--html", help="Also write report.html into the folder.")
    ] = False,
    list_studies: Annotated[
        bool, typer.Option("--list", help="Only list the studies that ship with the package.")
    ] = False,
) -> None:
    """Run an experiment: what varies between two recipes, and how much of the gap each explains."""
    if list_studies:
        _list(as_json)
        return
    if study is None:
        raise UsageError(
            "missing-study",
            "say which study to run.",
            expected="a YAML file, or a name that `coltrain study --list` prints",
        )
    from coltrain.reproduction.study import load_study

    asked = load_study(study)
    quiet_libraries()
    from coltrain.reproduction.study.folder import StudyFolder
    from coltrain.reproduction.study.plan import make_plan
    from coltrain.reproduction.study.results import study_findings, write_results

    chosen = chosen_device(device)
    plan = make_plan(asked)
    folder = StudyFolder(out or Path("studies") / asked.name)
    for word in folder.begin(plan):
        console.stderr().print(word, soft_wrap=True)
    _run(folder, plan, chosen, jobs, yes)
    found = study_findings(folder, plan)
    for file in write_results(folder, found, html=html):
        console.stderr().print(f"wrote {file}", soft_wrap=True)
    if as_json:
        from coltrain.reproduction.study.document import as_document

        console.print_json(as_document(found))
    else:
        _print(found)
    if found.failed:
        raise typer.Exit(1)


def _run(folder: "StudyFolder", plan: "Plan", device: "torch.device", jobs: int, yes: bool) -> None:
    """Train what is missing, and say so.

    Raises:
        UsageError: The study is large, and nobody said that it is meant.
        typer.Exit: It was asked to stop.
    """
    import signal
    import time
    from datetime import timedelta

    from coltrain.reproduction.study.hours import refuse_too_large
    from coltrain.reproduction.study.jobs import run_all
    from coltrain.training.interruption import Interrupted

    say = console.stderr()
    ended = sum(folder.outcome(run.identity) is not None for run in plan.runs)
    if not yes:
        refuse_too_large(folder, plan, device, jobs)
    say.print(
        f"{len(plan.runs)} runs in {folder.path}, {ended} of them ended before", soft_wrap=True
    )
    started, num_here = time.monotonic(), 0
    try:
        for one in run_all(folder, plan, device, num_jobs=jobs, prepare=quiet_libraries):
            num_here += 1
            done = [run for run in plan.runs if folder.outcome(run.identity) is not None]
            mean = (time.monotonic() - started) / num_here  # of all workers here together
            left = timedelta(seconds=round(mean * (len(plan.runs) - len(done))))
            words = "" if one.outcome.is_finished else f" failed: {one.outcome.error}"
            say.print(
                f"{len(done)}/{len(plan.runs)}  {one.run}  {one.outcome.seconds:.0f} s{words}  "
                f"left {left}",
                soft_wrap=True,
            )
    except Interrupted as stopped:
        say.print("stopped; nothing is lost: the same command goes on", soft_wrap=True)
        raise typer.Exit(128 + signal.Signals[stopped.signal_name]) from None


def _list(as_json: bool) -> None:
    from coltrain.reproduction.study import shipped_studies
    from coltrain.reproduction.study.design import cells

    studies = shipped_studies()
    if as_json:
        console.print_json(
            {
                "studies": [
                    {
                        "name": name,
                        "description": one.description,
                        "factors": list(one.factors),
                        "num_runs": len(cells(one)) * len(one.seed_numbers),
                    }
                    for name, one in studies.items()
                ]
            }
        )
        return
    console.print_table(
        "studies",
        ["name", "runs", "factors", "what for"],
        [
            [
                name,
                f"{len(cells(one)) * len(one.seed_numbers)}",
                ", ".join(one.factors),
                one.description,
            ]
            for name, one in studies.items()
        ],
        is_text=True,
    )


def _print(found: "Findings") -> None:
    from coltrain.reproduction.study.tables import tables
    from coltrain.reproduction.study.words import failures, headline, remarks

    console.print_text(headline(found))
    for table in tables(found):
        console.print_table(table.caption, table.headings, table.rows)
    for remark in remarks(found):
        console.print_text(f"- {remark}")
    for line in failures(found):
        console.print_text(f"failed: {line}")
