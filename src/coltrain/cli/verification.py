"""`verify`: whether training is exact, here or in a run."""

from pathlib import Path
from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import DeviceOption, JsonOption, chosen_device, quiet_libraries
from coltrain.errors import UsageError


def verify(
    run: Annotated[Path | None, typer.Argument(help="A run whose first steps are redone.")] = None,
    check_self: Annotated[
        bool, typer.Option("--self", help="Check coltrain itself on this machine.")
    ] = False,
    ranks: Annotated[
        int | None,
        typer.Option(min=2, help="With --self: so many ranks, started here, against one."),
    ] = None,
    global_batch: Annotated[
        int | None,
        typer.Option(min=2, max=256, help="With --ranks: queries of all ranks; 12 otherwise."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the run to redo.")] = 3,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that training is exact (--self), or that a run's first steps come out again."""
    if check_self == (run is not None):
        raise UsageError(
            "nothing-to-verify",
            "say what to verify.",
            expected="coltrain verify --self, or coltrain verify RUN",
        )
    if check_self and device is not None:
        raise UsageError(
            "option-not-read",
            "the check of coltrain itself computes on the CPU, in float64.",
            where="--device",
            received=device,
            expected="--self alone",
        )
    if ranks is not None and not check_self:
        raise UsageError(
            "option-not-read",
            "ranks are compared with one process by the check of coltrain itself.",
            where="--ranks",
            received=str(ranks),
            expected="coltrain verify --self --ranks N",
        )
    if global_batch is not None and ranks is None:
        raise UsageError(
            "option-not-read",
            "the global batch is that of the check of ranks; a run has the one of its recipe.",
            where="--global-batch",
            received=str(global_batch),
            expected="coltrain verify --self --ranks N --global-batch QUERIES",
        )
    quiet_libraries()
    if run is not None:
        _verify_run(run, steps, device, as_json)
    elif ranks is not None:
        _verify_ranks(ranks, global_batch, as_json)
    else:
        _verify_self(as_json)


def _verify_run(run: Path, steps: int, device: str | None, as_json: bool) -> None:
    """Redo the first steps of a run and say whether they are equal.

    Raises:
        typer.Exit: They differ.
    """
    from coltrain.training.verify_run import verify_run

    with console.item_progress("redoing steps", steps) as advance:
        found = verify_run(run, chosen_device(device), steps, lambda step: advance())
    if as_json:
        console.print_json(found.as_document())
    else:
        console.print_text(f"{found.verdict}, {found.steps} steps")
        if found.first_difference is not None:
            console.print_text(f"first: {found.first_difference}")
    if found.verdict == "different":
        raise typer.Exit(1)


def _verify_self(as_json: bool) -> None:
    """Check the step on this machine.

    Raises:
        typer.Exit: It is not exact.
    """
    from coltrain.training.self_check import TOLERANCE, self_check

    with console.counted_progress("checking") as update:
        found = self_check(update)
    if as_json:
        console.print_json(found.as_document())
    else:
        console.print_table(
            f"gradient caching against plain autograd, float64; allowed {TOLERANCE:.0e}",
            ["loss", "dropout", "chunk", "loss differs by", "gradient differs by", "vision runs"],
            [
                [
                    one.loss,
                    f"{one.dropout:g}",
                    str(one.chunk_size),
                    f"{one.loss_difference:.1e}",
                    f"{one.gradient_difference:.1e}",
                    f"{one.vision_forwards_per_page:g}",
                ]
                for one in found.comparisons
            ],
        )
        console.print_table(
            "memory of a step in chunks of one",
            ["global batch", "peak MiB", "largest tensor", "all-pairs tensor"],
            [
                [
                    str(one.global_batch),
                    f"{one.peak_bytes / 2**20:.1f}",
                    f"{one.largest_elements:,}",
                    f"{one.all_pairs_elements:,}",
                ]
                for one in found.memory
            ],
        )
        verdict = "exact" if found.passed else "NOT EXACT"
        console.print_text(f"{verdict}: largest difference {found.largest_difference:.1e}")
    if not found.passed:
        raise typer.Exit(1)


def _verify_ranks(num_ranks: int, global_batch: int | None, as_json: bool) -> None:
    """Check that ranks give what one process gives.

    Raises:
        typer.Exit: They do not.
    """
    from coltrain.training.ranks.self_check import GLOBAL_BATCH, check_ranks
    from coltrain.training.self_check import TOLERANCE

    global_batch = global_batch or GLOBAL_BATCH
    with console.counted_progress("checking") as update:
        found = check_ranks([num_ranks], global_batch=global_batch, on_progress=update)
    if as_json:
        console.print_json(found.as_document())
    else:
        console.print_table(
            f"{num_ranks} ranks against plain autograd in one process, {global_batch} queries, "
            f"float64; allowed {TOLERANCE:.0e}",
            ["loss", "dropout", "chunk", "loss differs by", "gradient differs by", "exchanges"],
            [
                [
                    one.case.name,
                    f"{one.case.dropout:g}",
                    str(one.case.chunk_size or "whole"),
                    f"{one.loss_difference:.1e}",
                    f"{one.gradient_difference:.1e}",
                    str(sum(one.exchanges.values())),
                ]
                for one in found.comparisons
            ],
        )
        verdict = "exact" if found.passed else "NOT EXACT"
        console.print_text(f"{verdict}: largest difference {found.largest_difference:.1e}")
    if not found.passed:
        raise typer.Exit(1)
