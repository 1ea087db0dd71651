"""`train`, `resume` and `demo`: a run from its recipe to its results."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.doctor import print_findings
from coltrain.cli.options import (
    DeviceOption,
    JsonLinesOption,
    JsonOption,
    StopSignalOption,
    chosen_device,
    quiet_libraries,
    refuse_both,
    stop_signals,
)
from coltrain.errors import UsageError

if TYPE_CHECKING:
    from coltrain.training.loop import Training


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; new or empty.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete an earlier run in that folder.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="TRAP", help="Train though the doctor finds this trap."),
    ] = None,
    device: DeviceOption = None,
    stop_signal: StopSignalOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> None:
    """Train by a recipe: evaluate, train, evaluate, and leave a run folder."""
    if out is None:
        raise UsageError("missing-out", "say where the run goes.", expected="--out FOLDER")
    refuse_both(as_json, as_lines)
    results = _train(
        recipe, overrides or [], out, replace, device, stop_signal, as_lines, accept or []
    )
    if not as_lines:
        _print_run(results, out, as_json)


def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was killed or stopped.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes that move no result."),
    ] = None,
    device: DeviceOption = None,
    stop_signal: StopSignalOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> None:
    """Go on with a run from its newest whole checkpoint, to the same bits."""
    refuse_both(as_json, as_lines)
    quiet_libraries()
    from coltrain.evaluation.results import read_results
    from coltrain.training.resume import resume as prepare

    prepared = prepare(run, chosen_device(device), overrides or [], stop_signals(stop_signal))
    for word in prepared.words:
        console.stderr().print(word, soft_wrap=True)
    if prepared.training is not None:
        _follow(prepared.training, run, as_lines)
    final = run / "evaluation" / "final.json"
    if not as_lines:
        _print_run(read_results(final) if final.is_file() else [], run, as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the run.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train the shipped tiny base on drawn pages, on a CPU, in a minute or two."""
    results = _train("tiny", [f"train.seed={seed}"], out, True, "cpu")
    quiet_libraries()
    from coltrain.reproduction.demo import demo_summary

    summary = demo_summary(out)
    if as_json:
        console.print_json({**summary, "run": str(out)})
        return
    facts = summary["test"]
    console.print_results(results)
    console.print_table(
        "nDCG@5 on unseen pages",
        ["", "nDCG@5"],
        [[name, f"{value:.3f}"] for name, value in summary["nDCG@5"].items()],
    )
    console.print_text(
        f"{facts['num_pages']} pages of at least {facts['fewest_words']} words; "
        f"{facts['pages_sharing_training_text']} share six words in a row with training text; "
        f"queries of {facts['query_lengths'][0]} to {facts['query_lengths'][1]} words, "
        f"{facts['queries_on_several_pages']} of them on more than one page."
    )
    console.stderr().print(f"run: {out}, report: {out / 'report.html'}", soft_wrap=True)


def _print_run(results: list, out: Path, as_json: bool) -> None:
    """The final results of a run."""
    if as_json:
        from coltrain.evaluation.results import results_to_json

        console.print_json(results_to_json(results, run=str(out)))
    elif results:
        console.print_results(results)
    console.stderr().print(f"run: {out}", soft_wrap=True)


def _train(
    recipe: str,
    overrides: list[str],
    out: Path,
    replace: bool,
    device: str | None,
    stop_signal: str | None = None,
    as_lines: bool = False,
    accepted: Sequence[str] = (),
) -> list:
    """Train and return the final results, one for each data set."""
    from coltrain.recipe import load_recipe
    from coltrain.reproduction.traps import examine_before

    resolved = load_recipe(recipe, overrides)
    findings = examine_before(resolved, accepted)
    print_findings(findings)
    quiet_libraries()
    from coltrain.training.loop import Training

    with console.item_progress("checking pages", None) as advance:
        training = Training(
            resolved,
            out,
            chosen_device(device),
            replace=replace,
            stop_signals=stop_signals(stop_signal),
            on_page=advance,
        )
    training.run.record(doctor={"before": findings, "after": None})
    return _follow(training, out, as_lines)


def _follow(training: "Training", out: Path, as_lines: bool = False) -> list:
    """Show a run while it happens; returns the results of its last evaluation.

    Raises:
        typer.Exit: The run was asked to stop.
    """
    from coltrain.reproduction.report import write_report
    from coltrain.training.events import EvaluationResult, EvaluationStarts, Stopped, event_line

    final = []
    stopped = None
    with console.TrainingView(training.recipe.logging.every) as view:
        training.on_item = view.advance_item
        for event in training.events():
            view.show(event)
            if as_lines:
                console.print_json_line(event_line(event))
            if isinstance(event, EvaluationStarts):
                final = []  # the last evaluation is the one that counts
            elif isinstance(event, EvaluationResult):
                final.append(event.result)
            elif isinstance(event, Stopped):
                stopped = event
    if stopped is None:
        _examine_after(training, out)
    write_report(out)
    if stopped is not None:
        console.stderr().print(f"go on with: coltrain resume {out}", soft_wrap=True)
        raise typer.Exit(128 + signal.Signals[stopped.signal_name])
    return final


def _examine_after(training: "Training", out: Path) -> None:
    """Look at what the run became; a finding is recorded and said, and stops nothing any more."""
    from coltrain.reproduction.traps import examine_after

    before = (training.run.facts.get("doctor") or {}).get("before", [])
    known = {one["id"] for one in before}
    findings = examine_after(out)
    training.run.record(doctor={"before": before, "after": findings})
    print_findings([one for one in findings if one["id"] not in known])
