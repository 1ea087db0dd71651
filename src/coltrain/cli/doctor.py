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
    from coltrain.reproduction.traps import examine

    found = read_target(target, overrides or [], settings=settings or [], launch=launch)
    if found.folder is not None:  # a small model is loaded
        quiet_libraries()
    findings = examine(found)
    failures = [one for one in findings if one.status == "fail"]
    if as_json:
        content = {"findings": [one.to_json() for one in findings], **found.to_json()}
        console.print_json(content)
    else:
        shown = [one for one in findings if show_all or one.status != "pass"]
        rows = [
            [
                one.status.upper() if one.status == "fail" else one.status,
                str(one.trap.number),
                one.trap.id,
                _evidence(one.outcome.evidence),
            ]
            for one in shown
        ]
        if rows:
            console.print_table(target, ["", "trap", "id", "evidence"], rows, is_text=True)
        else:
            console.print_text(f"{target}: no known trap.")
        for one in failures:
            console.print_text(
                f"{one.trap.id}: {one.trap.title} It costs: {one.trap.cost}. "
                f"Way out: {one.trap.way_out}. See {one.trap.source}"
            )
        counts = {
            kind: sum(one.status == kind for one in findings)
            for kind in ("fail", "unknown", "pass")
        }
        console.print_text(
            f"{counts['fail']} found, {counts['unknown']} cannot be known from what is here, "
            f"{counts['pass']} not there."
        )
        console.print_text("read: " + "; ".join(found.read))
        if found.not_read:
            console.print_text("not read: " + "; ".join(found.not_read))
    if failures:
        raise typer.Exit(1)


def _evidence(evidence: object) -> str:
    found = getattr(evidence, "found", "")
    expected = getattr(evidence, "expected", "")
    where = getattr(evidence, "where", "")
    text = found + (f"; expected {expected}" if expected else "")
    return text + (f" ({where})" if where else "")


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
