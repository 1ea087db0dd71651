"""`doctor`: which known traps a training stepped into."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from coltrain import console
from coltrain.cli.options import JsonOption, quiet_libraries


def doctor(
    target: Annotated[
        str,
        typer.Argument(
            help="A recipe, a run, a model's folder, or a configuration, script or folder of "
            "colpali-engine or sentence-transformers."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to a recipe.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FACT=VALUE", help="What no file says: launch.world_size=16."
        ),
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(help="The command that started the training, where no file has it."),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Also the checks that passed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for every known way to miss a published number. Exit code: 0 sound, 1 a trap was found."""
    from coltrain.reproduction.targets import read_target
    from coltrain.reproduction.traps import examine, findings_text

    found = read_target(target, overrides or [], settings=settings or [], launch=launch)
    if found.folder is not None:  # a small model is loaded
        quiet_libraries()
    findings = examine(found)
    failures = [one for one in findings if one.status == "fail"]
    if as_json:
        content = {"findings": [one.to_json() for one in findings], **found.to_json()}
        console.print_json(content)
    else:
        console.print_text(findings_text(found, findings, show_all=show_all))
    if failures:
        raise typer.Exit(1)


def print_findings(findings: Sequence[dict[str, Any]]) -> None:
    """Say what was found before or after a training, on stderr."""
    for one in findings:
        evidence = one["evidence"]
        word = "accepted" if one.get("accepted") else one["severity"]
        console.stderr().print(
            f"doctor, {word} {one['id']}: {evidence['found']}"
            + (f"; expected {evidence['expected']}" if evidence["expected"] else ""),
            soft_wrap=True,
            markup=False,
        )
