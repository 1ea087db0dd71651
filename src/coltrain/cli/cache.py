"""`cache show`, `cache check` and `cache clear`: visual tokens that trainings keep on disk."""

from pathlib import Path
from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption, quiet_libraries
from coltrain.errors import UsageError

GIB = 2**30
FolderArgument = Annotated[
    Path | None,
    typer.Argument(help="As in data.vision_cache.path; default the folder of `auto`."),
]
TowerOption = Annotated[
    str | None, typer.Option(help="Only of this vision tower, by the key that `show` prints.")
]


def cache_show(folder: FolderArgument = None, as_json: JsonOption = False) -> None:
    """List the vision towers whose visual tokens are kept, with pages and size."""
    quiet_libraries()
    from coltrain.model.vision_cache import kept_in

    home = _existing(folder)
    towers = kept_in(home)
    if as_json:
        console.print_json({"folder": str(home), "towers": [one.as_document() for one in towers]})
        return
    console.print_table(
        f"visual tokens in {home}",
        ["key", "pages", "GiB", "type", "computed in", "budget", "device"],
        [
            [
                one.key,
                f"{one.num_pages:,}",
                f"{one.num_bytes / GIB:.3f}",
                *(str(one.identity.get(name, "?")) for name in _SHOWN),
            ]
            for one in towers
        ],
    )


_SHOWN = ("stored_as", "computed_in", "max_visual_tokens", "device")


def cache_check(
    folder: FolderArgument = None, tower: TowerOption = None, as_json: JsonOption = False
) -> None:
    """Read every page and compare it with its hash; a run makes damaged ones again by itself."""
    quiet_libraries()
    from coltrain.model.vision_cache import check_kept

    home = _existing(folder)
    towers = _chosen(home, tower)
    with console.item_progress("reading", sum(one.num_entries for one in towers)) as advance:
        found = [check_kept(one, advance) for one in towers]
    if as_json:
        console.print_json({"folder": str(home), "towers": found})
    else:
        console.print_table(
            f"visual tokens in {home}",
            ["key", "pages", "whole", "damaged entries", "lines that cannot be read"],
            [[str(value) for value in one.values()] for one in found],
        )
    if any(one["damaged"] or one["broken_lines"] for one in found):
        raise typer.Exit(1)


def cache_clear(
    folder: FolderArgument = None, tower: TowerOption = None, as_json: JsonOption = False
) -> None:
    """Delete visual tokens; runs that use them go on and make them again."""
    quiet_libraries()
    from coltrain.model.vision_cache import clear

    home = _existing(folder)
    deleted = [clear(one).as_document() for one in _chosen(home, tower)]
    if as_json:
        console.print_json({"folder": str(home), "deleted": deleted})
        return
    freed = sum(one["bytes"] for one in deleted)
    pages = sum(one["pages"] for one in deleted)
    console.print_text(f"deleted the visual tokens of {pages:,} pages, {freed / GIB:.3f} GiB")


def _existing(folder: Path | None) -> Path:
    from coltrain.model.vision_cache import default_folder, kept_in

    home = folder or default_folder()
    if not home.is_dir() or not (kept_in(home) or (home / "lock").exists()):
        raise UsageError(
            "no-vision-cache",
            "no visual tokens are kept there.",
            received=str(home),
            expected="a folder that data.vision_cache.path of a run named",
        )
    return home


def _chosen(home: Path, key: str | None):
    from coltrain.model.vision_cache import kept_in

    towers = kept_in(home)
    if key is None:
        return towers
    chosen = [one for one in towers if one.key == key]
    if not chosen:
        raise UsageError(
            "unknown-tower",
            "nothing is kept of such a vision tower.",
            where="--tower",
            received=key,
            expected=", ".join(one.key for one in towers) or "nothing is kept there at all",
        )
    return chosen
