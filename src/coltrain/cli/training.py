"""`train`, `resume` and `demo`: a run from its recipe to its results."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.doctor import print_findings
from coltrain.cli.options import (
    ConnectOption,
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
    import torch

    from coltrain.training.events import Stopped
    from coltrain.training.loop import Training
    from coltrain.training.ranks import Ranks


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
    connect_seconds: ConnectOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> None:
    """Train by a recipe: evaluate, train, evaluate, and leave a run folder."""
    if out is None:
        raise UsageError("missing-out", "say where the run goes.", expected="--out FOLDER")
    refuse_both(as_json, as_lines)
    results = _train(
        recipe,
        overrides or [],
        out,
        replace,
        device,
        stop_signal,
        connect_seconds,
        as_lines,
        accept or [],
    )
    if not as_lines and results is not None:
        _print_run(results, out, as_json)


def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was killed or stopped.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes that move no result."),
    ] = None,
    device: DeviceOption = None,
    stop_signal: StopSignalOption = None,
    connect_seconds: ConnectOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> None:
    """Go on with a run from its newest whole checkpoint, to the same bits."""
    refuse_both(as_json, as_lines)
    quiet_libraries()
    from coltrain.evaluation.results import read_results
    from coltrain.training.resume import resume as prepare

    with _rank("resume", None, device, connect_seconds) as (ranks, chosen):
        prepared = prepare(run, chosen, overrides or [], stop_signals(stop_signal), ranks)
        if ranks.is_first:
            for word in prepared.words:
                console.stderr().print(word, soft_wrap=True)
        stopped = None
        if prepared.training is not None:
            _, stopped = _follow(prepared.training, run, as_lines)
    _leave_if(stopped, run, ranks)
    final = run / "evaluation" / "final.json"
    if ranks.is_first and not as_lines:
        _print_run(read_results(final) if final.is_file() else [], run, as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the run.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train the shipped tiny base on drawn pages, on a CPU, in a minute or two."""
    results = _train("tiny", [f"train.seed={seed}"], out, True, "cpu")
    if results is None:
        return  # rank 0 prints
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
    connect_seconds: float | None = None,
    as_lines: bool = False,
    accepted: Sequence[str] = (),
) -> list | None:
    """Train; returns the final results, one for each data set, on the rank that prints them."""
    from coltrain.recipe import load_recipe
    from coltrain.reproduction.traps import examine_before

    resolved = load_recipe(recipe, overrides)
    findings = examine_before(resolved, accepted)
    quiet_libraries()
    from coltrain.training.loop import Training

    with _rank("train", resolved.batch.global_size, device, connect_seconds) as (ranks, chosen):
        with (
            console.item_progress("checking pages", None)
            if ranks.is_first
            else nullcontext() as advance
        ):
            training = Training(
                resolved,
                out,
                chosen,
                replace=replace,
                stop_signals=stop_signals(stop_signal),
                on_page=advance,
                ranks=ranks,
            )
        if ranks.is_first:
            print_findings(findings)
            training.run.record(doctor={"before": findings, "after": None})
        results, stopped = _follow(training, out, as_lines)
    _leave_if(stopped, out, ranks)
    return results if ranks.is_first else None


@contextmanager
def _rank(
    verb: str, global_size: int | None, device: str | None, connect_seconds: float | None
) -> Iterator[tuple["Ranks", "torch.device"]]:
    """Be the rank that torchrun started, or one process by itself; and what it computes on.

    Args:
        verb: The command, which is one for all ranks.
        global_size: Of the recipe, where it is known: ranks must divide it.
        device: `--device`.
        connect_seconds: `--connect-seconds`.
    """
    import torch

    from coltrain.training.ranks.joining import (
        CONNECT_SECONDS,
        device_of,
        joined,
        place_of,
        refuse_uneven,
    )
    from coltrain.training.ranks.sameness import refuse_others

    place = place_of(os.environ)
    if place is None:
        chosen = chosen_device(device)
    else:
        if global_size is not None:
            refuse_uneven(global_size, place.size)
        chosen = device_of(place, device, torch.cuda.device_count())
    with joined(place, chosen, connect_seconds or CONNECT_SECONDS) as ranks:
        refuse_others("command", {"verb": verb}, ranks)
        yield ranks, chosen


def _leave_if(stopped: "Stopped | None", out: Path, ranks: "Ranks") -> None:
    """End the command if the run was asked to stop.

    Raises:
        typer.Exit: It was.
    """
    if stopped is None:
        return
    if ranks.is_first:
        console.stderr().print(f"go on with: coltrain resume {out}", soft_wrap=True)
    raise typer.Exit(128 + signal.Signals[stopped.signal_name])


def _follow(
    training: "Training", out: Path, as_lines: bool = False
) -> tuple[list, "Stopped | None"]:
    """Show a run while it happens.

    Returns:
        The results of its last evaluation, and how it was stopped if it was asked to.
    """
    from coltrain.reproduction.report import write_report
    from coltrain.training.events import EvaluationResult, EvaluationStarts, Stopped, event_line

    final = []
    stopped = None
    is_shown = training.ranks.is_first
    with console.TrainingView(training.recipe.logging.every) if is_shown else nullcontext() as view:
        training.on_item = view.advance_item if is_shown else None
        for event in training.events():
            if is_shown:
                view.show(event)
                if as_lines:
                    console.print_json_line(event_line(event))
            if isinstance(event, EvaluationStarts):
                final = []  # the last evaluation is the one that counts
            elif isinstance(event, EvaluationResult):
                final.append(event.result)
            elif isinstance(event, Stopped):
                stopped = event
    with (
        training.ranks.together()
    ):  # torchrun ends all ranks once one has left with a signal's code
        if is_shown:
            if stopped is None:
                _examine_after(training, out)
            write_report(out)
    return final, stopped


def _examine_after(training: "Training", out: Path) -> None:
    """Look at what the run became; a finding is recorded and said, and stops nothing any more."""
    from coltrain.reproduction.traps import examine_after

    before = (training.run.facts.get("doctor") or {}).get("before", [])
    known = {one["id"] for one in before}
    findings = examine_after(out)
    training.run.record(doctor={"before": before, "after": findings})
    print_findings([one for one in findings if one["id"] not in known])
