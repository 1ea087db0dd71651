"""`plan`: what fits on a card, how long it takes, which settings to use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption, chosen_device, quiet_libraries
from coltrain.errors import UsageError

if TYPE_CHECKING:
    from coltrain.planning.gpus import Gpu
    from coltrain.planning.plan import Plan


def plan(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to it.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="The card, such as v100-32gb, or cpu; default: this one's.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="How many of them.")] = 1,
    memory_gib: Annotated[
        float | None, typer.Option(help="Memory of a card that the table lacks, in GiB.")
    ] = None,
    capability: Annotated[
        str | None, typer.Option(help="Compute capability of such a card, as 8.6.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Training rows, for data that is not known here.")
    ] = None,
    all_settings: Annotated[
        bool, typer.Option("--all", help="Every setting that people train in, and what fits.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run two steps here, and compare with the plan.")
    ] = False,
    write: Annotated[
        Path | None, typer.Option(help="Write the recipe, adapted to the card, to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what fits on a card and how long it takes; needs no card and no weights."""
    from coltrain.recipe import load_recipe

    resolved = load_recipe(recipe, overrides or [])
    card = _card(gpu, memory_gib, capability)
    quiet_libraries()
    from coltrain.planning.advice import advice
    from coltrain.planning.plan import as_document, make_plan

    planned = make_plan(resolved, card, gpus, rows)
    document = as_document(planned, advice(planned))
    document["vision_cache"] = _vision_cache(planned, rows)
    if measure:
        _refuse_to_measure(planned)  # before a file is written
    if write is not None:
        document["written"] = _write(planned, write)
    if all_settings:
        from coltrain.planning.table import all_settings as table

        document["settings"] = [row.as_document() for row in table(resolved, card)]
    if measure:
        document["measured"] = _measure(planned)
    if as_json:
        console.print_json(document)
    else:
        _print(planned, document)
    if not planned.fit.fits:
        raise typer.Exit(1)


def _card(gpu: str | None, memory_gib: float | None, capability: str | None) -> "Gpu":
    """The card that is asked for, or the one of this machine.

    Raises:
        UsageError: None is named and none is here; or it is named twice.
    """
    from coltrain.planning.gpus import find_gpu, other_gpu, this_cpu, this_gpu

    if memory_gib is not None or capability is not None:
        if gpu is not None or memory_gib is None or capability is None:
            raise UsageError(
                "not-a-card",
                "this does not describe a card.",
                where="--gpu, --memory-gib, --capability",
                received=f"--gpu {gpu}, --memory-gib {memory_gib}, --capability {capability}",
                expected="--gpu alone, or both of --memory-gib and --capability",
            )
        return other_gpu(memory_gib, capability)
    if gpu is None:
        return this_gpu()
    return this_cpu() if gpu.strip().lower() == "cpu" else find_gpu(gpu)


def _vision_cache(planned: "Plan", rows: int | None) -> dict | None:
    """What keeping visual tokens costs and saves; None where that cannot be said."""
    from coltrain.planning.vision_cache import vision_cache_plan

    try:
        found = vision_cache_plan(planned, rows)
    except UsageError as error:
        if error.code != "unknown-length":
            raise
        return None  # the run's length was said in steps, and its data is not known here
    return None if found is None else found.as_document()


def _write(planned: "Plan", file: Path) -> dict[str, str]:
    """Write the adapted recipe; returns what it changes, with the reasons.

    Raises:
        UsageError: Nothing fits; or the file is there already or cannot be written.
    """
    from coltrain.planning.plan import adapt
    from coltrain.recipe import to_yaml

    if not planned.fit.fits:
        raise _nothing_fits(planned, "no recipe is written", str(file))
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(to_yaml(adapt(planned.recipe, planned.changes)))
    except FileExistsError as error:
        raise UsageError(
            "cannot-write", "the file is there already.", where=str(file), expected="a new file"
        ) from error
    except OSError as error:
        raise UsageError(
            "cannot-write",
            "the recipe cannot be written.",
            where=str(file),
            received=error.strerror or str(error),
        ) from error
    console.stderr().print(f"recipe: {file}", soft_wrap=True)
    return planned.changes


def _nothing_fits(planned: "Plan", what_is_not_done: str, where: str) -> UsageError:
    return UsageError(
        "nothing-fits",
        f"{what_is_not_done}, since not even one page fits on this card.",
        where=where,
        received=f"{planned.reserved_gib:.1f} GiB needed",
        expected=f"at most {planned.gpu.memory_gib:.1f} GiB",
    )


def _refuse_to_measure(planned: "Plan") -> None:
    """Raise if no step can be measured.

    Raises:
        UsageError: The plan is not for what is here, or nothing fits.
    """
    import torch

    from coltrain.planning.gpus import this_gpu

    is_here = planned.gpu.capability is None or (
        torch.cuda.is_available() and this_gpu().capability == planned.gpu.capability
    )
    if planned.num_gpus != 1 or not is_here:
        raise UsageError(
            "not-this-card",
            "only a plan for the card at hand can be measured.",
            where="--measure",
            received=f"{planned.num_gpus} x {planned.gpu.name}",
            expected="one card, the one of this machine: leave --gpu and --gpus out; or --gpu cpu",
        )
    if not planned.fit.fits:
        raise _nothing_fits(planned, "no step is measured", "--measure")


def _measure(planned: "Plan") -> dict[str, float]:
    """Two steps on this machine, beside the plan for it.

    Raises:
        TrainingError: [out-of-memory] They do not fit.
    """
    from coltrain.planning.measuring import measure_step

    device = chosen_device("cpu" if planned.gpu.capability is None else "cuda")
    with console.item_progress("two steps", None):
        found = measure_step(planned, device)
    return {
        "memory_gib": found.memory_gib,
        "memory_planned_over_measured": planned.memory_gib / found.memory_gib,
        "seconds_per_step": found.seconds,
    }


def _print(planned: "Plan", document: dict) -> None:
    card = planned.gpu
    cards = f"{planned.num_gpus} x {card.name}" if planned.num_gpus > 1 else card.name
    verdict = f"{document['reserved_gib']:.1f} of {card.memory_gib:.1f} GiB"
    console.print_table(
        f"{planned.recipe.name} on {cards}",
        ["", "planned"],
        [
            ["fits", f"{'yes' if planned.fit.fits else 'NO'}, {verdict}"],
            ["chunk size", f"{planned.fit.chunk_size} of {planned.recipe.batch.global_size}"],
            ["activation checkpointing", "on" if document["activation_checkpointing"] else "off"],
            ["computes in", f"{document['compute']}, {document['attention']} attention"],
            ["steps", f"{planned.num_steps:,}"],
            ["time (estimated)", _time(planned)],
            ["energy (estimated)", _energy(planned)],
            ["torch", document["torch_wheel"] or "no known wheel"],
        ],
    )
    console.print_table(
        "memory of a card in GiB, by what adds it",
        ["stage", "GiB"],
        [
            *([name, f"{size:.3f}"] for name, size in document["stages"].items()),
            [f"peak ({planned.fit.memory.peak_moment})", f"{document['memory_gib']:.3f}"],
        ],
    )
    cache = document["vision_cache"]
    if cache is not None:
        console.print_table(
            f"visual tokens on disk (data.vision_cache, {'on' if cache['is_used'] else 'off'})",
            ["", "planned"],
            [
                [
                    "on disk",
                    f"{cache['gib']:.3g} GiB: {cache['pages']:,} pages of at most "
                    f"{cache['mib_per_page']:.3g} MiB"
                    + ("" if cache["fits"] else ", more than max_gib"),
                ],
                [
                    "a page in a step",
                    f"{cache['teraflop_per_page']:.3g} TFLOP, "
                    f"{cache['teraflop_per_page_found']:.3g} where found",
                ],
                [
                    "saves of the pages' operations",
                    f"{cache['saved_share']:.0%} over {cache['epochs']:.3g} epochs, "
                    f"{cache['vision_share']:.0%} in a further run over the same base",
                ],
            ],
        )
    if "settings" in document:
        console.print_table(
            "plain training in one pass, by setting",
            ["setting", "GiB a sample", "fixed GiB", "samples that fit"],
            [
                [
                    row["setting"],
                    f"{row['gib_per_sample']:.3f}",
                    f"{row['fixed_gib']:.2f}",
                    str(row["samples"]),
                ]
                for row in document["settings"]
            ],
        )
        console.print_text(two_samples(document["settings"]))
    if "measured" in document:
        measured = document["measured"]
        console.print_table(
            "one step here",
            ["", "planned", "measured"],
            [
                ["peak GiB", f"{planned.memory_gib:.3f}", f"{measured['memory_gib']:.3f}"],
                ["seconds", _step(planned), f"{measured['seconds_per_step']:.3f}"],
            ],
        )
    for sentence in document["advice"]:
        console.print_text(f"- {sentence}")


def two_samples(rows: list[dict]) -> str:
    """Which of the settings hold two or three samples and no more: the V100 question."""
    few = [row["setting"] for row in rows if 1 <= row["samples"] <= 3]
    return (
        "Two or three samples and no more fit with: "
        + ("; ".join(few) if few else "none of these settings")
        + ". (What the user of illuin-tech/colpali#84, who could fit two on a V100 with 32 GB, had "
        "set is not known.)"
    )


def _time(planned: "Plan") -> str:
    if planned.hours is None:
        return "not known for this card"
    fast, slow = planned.hours.fast, planned.hours.slow
    unit, factor = ("h", 1) if slow >= 1 else ("min", 60)
    return f"{fast * factor:.1f} to {slow * factor:.1f} {unit}, {_step(planned)} a step"


def _step(planned: "Plan") -> str:
    return "?" if planned.step_seconds is None else f"{planned.step_seconds.middle:.2f} s"


def _energy(planned: "Plan") -> str:
    energy = planned.kilowatt_hours
    return "not known" if energy is None else f"{energy:.1f} kWh at the cards' power limit"
