"""`cache show`, `cache check` and `cache clear`: visual tokens and resized pages that trainings keep."""

from pathlib import Path
from typing import Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption, quiet_libraries
from coltrain.errors import UsageError

GIB = 2**30
FolderArgument = Annotated[
    Path | None,
    typer.Argument(
        help="As in data.vision_cache.path or data.page_cache.path; default the folders of `auto`."
    ),
]
TowerOption = Annotated[
    str | None,
    typer.Option(help="Only of this vision tower, or these pages, by the key that `show` prints."),
]


def cache_show(folder: FolderArgument = None, as_json: JsonOption = False) -> None:
    """List the vision towers whose visual tokens are kept, and the resized pages, with size."""
    quiet_libraries()
    from coltrain.model.vision_cache import kept_in

    homes = _existing(folder)
    towers = [one for home in homes for one in kept_in(home)]
    if as_json:
        listed = [one.as_document() for one in towers]
        console.print_json({"folders": _named(homes), "towers": listed})
        return
    console.print_table(
        f"kept in {' and '.join(_named(homes))}",
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

    homes = _existing(folder)
    towers = _chosen(homes, tower)
    with console.item_progress("reading", sum(one.num_entries for one in towers)) as advance:
        found = [check_kept(one, advance) for one in towers]
    if as_json:
        console.print_json({"folders": _named(homes), "towers": found})
    else:
        console.print_table(
            f"kept in {' and '.join(_named(homes))}",
            ["key", "pages", "whole", "damaged entries", "lines that cannot be read"],
            [[str(value) for value in one.values()] for one in found],
        )
    if any(one["damaged"] or one["broken_lines"] for one in found):
        raise typer.Exit(1)


def cache_clear(
    folder: FolderArgument = None, tower: TowerOption = None, as_json: JsonOption = False
) -> None:
    """Delete visual tokens and resized pages; runs that use them go on and make them again."""
    quiet_libraries()
    from coltrain.model.vision_cache import clear

    homes = _existing(folder)
    deleted = [clear(one).as_document() for one in _chosen(homes, tower)]
    if as_json:
        console.print_json({"folders": _named(homes), "deleted": deleted})
        return
    freed = sum(one["bytes"] for one in deleted)
    pages = sum(one["pages"] for one in deleted)
    console.print_text(f"deleted what was kept of {pages:,} pages, {freed / GIB:.3f} GiB")


def _existing(folder: Path | None) -> list[Path]:
    from coltrain.model.page_cache import default_pages_folder
    from coltrain.model.vision_cache import default_folder, kept_in

    asked = [default_folder(), default_pages_folder()] if folder is None else [folder]
    found = [home for home in asked if home.is_dir() and (kept_in(home) or _is_cache(home))]
    if not found:
        raise UsageError(
            "no-vision-cache",
            "neither visual tokens nor resized pages are kept there.",
            received=" and ".join(_named(asked)),
            expected="a folder that data.vision_cache.path or data.page_cache.path of a run named",
        )
    return found


def _is_cache(home: Path) -> bool:
    return (home / "lock").exists()


def _named(homes: list[Path]) -> list[str]:
    return [str(home) for home in homes]


def _chosen(homes: list[Path], key: str | None):
    from coltrain.model.vision_cache import kept_in

    towers = [one for home in homes for one in kept_in(home)]
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
