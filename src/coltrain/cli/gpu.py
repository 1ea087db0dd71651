"""`gpu`: whether the software that is installed fits the card."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from coltrain import console
from coltrain.cli.options import JsonOption

if TYPE_CHECKING:
    from coltrain.planning.software import Software


def gpu(
    card: Annotated[
        str | None, typer.Option(help="Ask about this card, such as v100-32gb, in place of ours.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether the installed torch, driver and kernels fit the card, and what to install."""
    from coltrain.planning.gpus import find_gpu
    from coltrain.planning.software import cards_here, hindrance_of_all, software_here, verdict

    asked = find_gpu(card, "--card") if card is not None else None  # a typo is known at once
    software = software_here()
    found = cards_here()
    verdicts = [verdict(software, one) for one in ([asked] if asked else found)]
    document: dict[str, Any] = {
        **software.as_document(),
        "gpus_here": [one.name for one in found],
        "cards": [one.as_document() for one in verdicts],
        "no_gpu_because": None if found else hindrance_of_all(software),
        "runs_on": _runs_on(software),
    }
    if as_json:
        console.print_json(document)
    else:
        _print(document)
    if not all(one.works for one in verdicts):
        raise typer.Exit(1)


def _runs_on(software: "Software") -> list[str]:
    """The cards of the table that the installed torch has code for."""
    from coltrain.planning.gpus import GPUS

    return [name for name, card in GPUS.items() if software.has_code_for(card)]


def _print(document: dict[str, Any]) -> None:
    here = document["gpus_here"]
    console.print_table(
        "what is installed",
        ["", ""],
        [
            ["torch", f"{document['torch']}, {_cuda(document['cuda'])}"],
            ["its code", " ".join(document["architectures"]) or "for no card"],
            ["driver", _driver(document["driver_cuda"])],
            ["torchvision", document["torchvision"] or "not installed"],
            ["bitsandbytes", document["bitsandbytes"] or "not installed"],
            ["cards here", ", ".join(here) or "none that torch can use"],
        ],
        is_text=True,
    )
    for card in document["cards"]:
        kernels = [name for name, runs in card["attention"].items() if runs]
        console.print_table(
            f"{card['name']}, sm_{card['capability'].replace('.', '')}, {card['memory_gib']} GiB",
            ["", ""],
            [
                ["works with this torch", "yes" if card["works"] else "NO"],
                ["attention kernels", ", ".join(kernels).replace("_", "-")],
                ["install", card["install"] or "nothing"],
            ],
            is_text=True,
        )
        for finding in card["findings"]:
            console.print_text(f"- {finding}")
    if document["no_gpu_because"]:
        console.print_text(f"- no card here: {document['no_gpu_because']}")
    if not document["cards"]:
        console.print_text(
            "No card here to judge; coltrain gpu --card v100-32gb answers for one elsewhere. This "
            f"torch has code for: {', '.join(document['runs_on']) or 'no card of the table'}."
        )


def _cuda(version: str | None) -> str:
    return "for CPUs only" if version is None else f"with CUDA {version}"


def _driver(newest: str | None) -> str:
    return "none found" if newest is None else f"serves CUDA {newest} and earlier"
