"""`recipes list`, `show` and `diff`."""

from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption


def recipes_list(as_json: JsonOption = False) -> None:
    """The recipes that ship with coltrain."""
    from coltrain.recipe import list_rows

    rows = list_rows()
    if as_json:
        console.print_json({"recipes": rows})
        return
    console.print_table(
        "shipped recipes",
        ["recipe", "base", "loss", "batch", "length", "learning rate", "compute"],
        [
            [
                row["recipe"],
                row["base"],
                row["loss"],
                str(row["global_batch_size"]),
                f"{row['epochs']:g} epochs" if row["epochs"] else f"{row['steps']} steps",
                f"{row['learning_rate']:g}",
                row["compute"],
            ]
            for row in rows
        ],
    )


def recipes_show(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """A recipe as YAML that is itself a recipe, each value with its source."""
    from coltrain.recipe import as_mapping, full_hash, load_recipe, result_hash, show_text

    if as_json:
        resolved = load_recipe(recipe, overrides or [])
        hashes = {"result_hash": result_hash(resolved), "full_hash": full_hash(resolved)}
        console.print_json({"recipe": as_mapping(resolved), **hashes})
    else:
        console.print_text(show_text(recipe, overrides or []))


def recipes_diff(left: str, right: str, as_json: JsonOption = False) -> None:
    """Where two recipes differ, what can change the result first."""
    from coltrain.recipe import difference_rows

    rows = difference_rows(left, right)
    if as_json:
        console.print_json({"differences": rows})
    elif not rows:
        console.print_text("no difference")
    else:
        console.print_table(
            "differences",
            ["key", left, right, "moves the result"],
            [
                [
                    row["key"],
                    str(row["left"]),
                    str(row["right"]),
                    "yes" if row["affects_result"] else "no",
                ]
                for row in rows
            ],
        )
