"""What a folder of visual tokens holds: to look at, to check, to delete."""

import fcntl
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coltrain.model.vision_cache.store import FeatureStore, cannot_write, size_of


@dataclass(frozen=True)
class Kept:
    """The visual tokens of one vision tower.

    Attributes:
        folder: Where they lie.
        identity: What they depend on.
        num_pages: Distinct pages.
        num_entries: The same, counted each time they were written.
        num_bytes: On disk.
    """

    folder: Path
    identity: dict[str, Any]
    num_pages: int
    num_entries: int
    num_bytes: int

    @property
    def key(self) -> str:
        """Its name in the folder."""
        return self.folder.name

    def as_document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "key": self.key,
            "pages": self.num_pages,
            "bytes": self.num_bytes,
            "identity": self.identity,
        }


def kept_in(home: Path) -> list[Kept]:
    """Every vision tower of a folder, in the order of their keys."""
    return [_kept(identity.parent) for identity in sorted(home.glob("*/identity.json"))]


def _kept(folder: Path) -> Kept:
    store = FeatureStore.at(folder)
    identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
    num_bytes = size_of(folder.parent, folder.name)
    return Kept(folder, identity, len(store), store.num_entries, num_bytes)


def check_kept(kept: Kept, on_entry: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Read every entry; counts of pages, of whole and damaged entries, of broken lines."""
    store = FeatureStore.at(kept.folder)
    whole, damaged = 0, 0
    for is_whole in store.checked():
        whole += is_whole
        damaged += not is_whole
        on_entry()
    return {
        "key": kept.key,
        "pages": kept.num_pages,
        "whole": whole,
        "damaged": damaged,
        "broken_lines": store.num_broken_lines,
    }


def clear(kept: Kept) -> Kept:
    """Delete them, not while a page is being added; what a process has open stays readable to it.

    Raises:
        ModelError: [cannot-write-vision-cache]
    """
    try:
        with (kept.folder.parent / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(kept.folder)
    except OSError as error:
        raise cannot_write(kept.folder, error) from error
    return kept
