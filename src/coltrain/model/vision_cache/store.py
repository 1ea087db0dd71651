"""Visual tokens on disk, by the hash of a page's image file: memory-mapped, bounded, checked.

    FOLDER/lock                         held while a page is added
           <key>/identity.json          what the visual tokens depend on, in words; the key is its hash
                 <segment>.features     visual tokens one page after another, raw
                 <segment>.index.jsonl  one line a page: hash, offset, shape, patches, SHA-256

Each process appends to a segment of its own, and writes the line of a page after its visual tokens:
what a kill leaves behind is at worst visual tokens without a line, or half a line, and neither is
read. Processes see each other's pages: a page that is not known makes a process look at what the
others have written since.

The bound holds for the folder as a whole, over all models and processes. When it is reached, what is
there stays and is used, and nothing is added: each page is wanted once an epoch, in another order
each time, so that putting a page out for another would lose as much as it gains.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from coltrain.errors import ModelError
from coltrain.model.files import cache_folder, write_whole
from coltrain.model.weights import tensor_bytes

GIB = 2**30
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "uint8": torch.uint8,  # pixels of resized pages: coltrain.model.page_cache
}
Added = Literal["added", "there already", "full"]


def default_folder() -> Path:
    """Where visual tokens are kept if nobody says otherwise."""
    return cache_folder("vision")


@dataclass(frozen=True)
class PageFeatures:
    """A page behind the vision tower.

    Attributes:
        tokens: Its visual tokens, on the CPU; or its pixels, a row of them after the other.
        grid_height: Of the page, in patches.
        grid_width: Likewise.
    """

    tokens: Shaped[Tensor, "visual_tokens hidden"]
    grid_height: int
    grid_width: int


@dataclass(frozen=True)
class _Entry:
    segment: str
    offset: int
    shape: tuple[int, int]
    grid: tuple[int, int]
    sha256: str


class FeatureStore:
    """The visual tokens of one vision tower's pages.

    Args:
        folder: Shared by all towers; each has a folder of its own in it.
        identity: See `vision_identity`; `stored_as` is the type on disk.
        max_gib: The most that the whole folder may hold.

    Attributes:
        folder: This tower's.
        dtype: Type on disk.
        num_broken_lines: Lines of an index that cannot be read; their pages are made again.

    Raises:
        ModelError: [cannot-write-vision-cache] The folder cannot be made or written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], max_gib: float) -> None:
        description = json.dumps(dict(identity), indent=2, sort_keys=True)
        key = hashlib.sha256(description.encode()).hexdigest()[:16]
        self._open(folder / key, identity["stored_as"], max_gib)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}.partial"
            partial.write_text(description + "\n", encoding="utf-8")
            partial.replace(self.folder / "identity.json")
        except OSError as error:
            raise cannot_write(folder, error, identity["stored_as"]) from error
        self.refresh()

    @classmethod
    def at(cls, folder: Path) -> "FeatureStore":
        """The store of a tower's own folder, to look at: nothing can be added."""
        identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        store = cls.__new__(cls)
        store._open(folder, identity["stored_as"], 0.0)
        store.refresh()
        return store

    def _open(self, folder: Path, stored_as: str, max_gib: float) -> None:
        self.home, self.folder = folder.parent, folder
        self.dtype = DTYPES[stored_as]
        self.max_bytes = int(max_gib * GIB)
        self.num_broken_lines = 0
        # Newest last; a page that was made again has several.
        self._entries: dict[str, tuple[_Entry, ...]] = {}
        self._read_up_to: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}
        self._own = ""

    @property
    def num_entries(self) -> int:
        """Pages, each counted as often as it was written."""
        return sum(map(len, self._entries.values()))

    def checked(self) -> Iterator[bool]:
        """Of every entry whether it is what its line says."""
        for entries in self._entries.values():
            for entry in entries:
                yield self._whole_content(entry) is not None

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps files, and names a segment, of its own.
        return {**self.__dict__, "_maps": {}, "_own": ""}

    def refresh(self) -> None:
        """Learn of the pages that were added since, by this process or another."""
        for index in sorted(self.folder.glob("*.index.jsonl"), key=_age):
            known = self._read_up_to.get(index.name, 0)
            if index.stat().st_size == known:
                continue
            with index.open("rb") as file:
                file.seek(known)
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]  # the rest is still being written
            self._read_up_to[index.name] = known + len(whole)
            segment = index.name.removesuffix(".index.jsonl") + ".features"
            for line in whole.splitlines():
                entry = _entry(line, segment)
                if entry is None:
                    self.num_broken_lines += 1
                    continue
                page, found = entry
                self._entries[page] = (*self._entries.get(page, ()), found)

    def knows(self, page: str) -> bool:
        """Whether a page has visual tokens here, of this process or another; they are not read."""
        if page not in self._entries:
            self.refresh()
        return page in self._entries

    def read(self, page: str) -> tuple[PageFeatures | None, int]:
        """A page's visual tokens, as they were stored to the bit.

        Args:
            page: Hash of the page's image file.

        Returns:
            The visual tokens, None where there are none; and how many damaged ones were met and
            left aside.
        """
        if page not in self._entries:
            self.refresh()
        num_damaged = 0
        for entry in reversed(self._entries.get(page, ())):
            content = self._whole_content(entry)
            if content is not None:
                tokens = torch.frombuffer(content, dtype=self.dtype).view(entry.shape)
                return PageFeatures(tokens, *entry.grid), num_damaged
            num_damaged += 1
            self._forget(page, entry)
        return None, num_damaged

    def _forget(self, page: str, entry: _Entry) -> None:
        """Never read an entry again in this process."""
        others = tuple(one for one in self._entries[page] if one != entry)
        if others:
            self._entries[page] = others
        else:
            del self._entries[page]

    def add(self, page: str, features: PageFeatures, *, is_repair: bool = False) -> Added:
        """Keep a page's visual tokens, unless the folder is full or another process was quicker.

        Args:
            page: Hash of the page's image file.
            features: In the type of the store.
            is_repair: Whether an entry that was found damaged is made again, whatever others have.

        Raises:
            ModelError: [cannot-write-vision-cache], but for a full disk, which is as a full folder.
        """
        assert features.tokens.dtype == self.dtype
        content = tensor_bytes(features.tokens)
        try:
            with self._locked():
                self.refresh()
                if page in self._entries and not is_repair:
                    return "there already"
                if size_of(self.home) + len(content) > self.max_bytes:
                    return "full"
                self._append(page, features, content)
        except OSError as error:
            self._own = ""  # half a line at its end: never to be written behind
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return "full"
            raise cannot_write(self.folder, error, str(self.dtype)[6:]) from error
        return "added"

    def _append(self, page: str, features: PageFeatures, content: bytes) -> None:
        if self._own.partition("-")[0] != str(os.getpid()):  # none yet, or that of who forked this
            self._own = f"{os.getpid()}-{secrets.token_hex(4)}"
        with (self.folder / f"{self._own}.features").open("ab", buffering=0) as data:
            line = {
                "page": page,
                "offset": data.tell(),
                "shape": list(features.tokens.shape),
                "patches": [features.grid_height, features.grid_width],
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            write_whole(data, content)
        with (self.folder / f"{self._own}.index.jsonl").open("ab", buffering=0) as index:
            write_whole(index, json.dumps(line).encode() + b"\n")

    def _whole_content(self, entry: _Entry) -> bytearray | None:
        """The bytes of an entry; None where they are not what its line says."""
        content = self._content(entry)
        if content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
            return None
        return content

    def _content(self, entry: _Entry) -> bytearray | None:
        """The bytes of an entry; None where the segment is too short for it, or gone."""
        size = entry.shape[0] * entry.shape[1] * self.dtype.itemsize
        end = entry.offset + size
        mapping = self._maps.get(entry.segment)
        try:
            path = self.folder / entry.segment
            if path.stat().st_size < end:  # reading a mapping beyond its file kills the process
                return None
            if mapping is None or len(mapping) < end:
                with path.open("rb") as file:
                    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._maps[entry.segment] = mapping
        except OSError:
            return None
        return bytearray(mapping[entry.offset : end])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The system's lock: it dies with its process.
        with (self.home / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def size_of(folder: Path, key: str = "*") -> int:
    """Bytes of visual tokens in a folder: of one tower, or of all."""
    return sum(segment.stat().st_size for segment in folder.glob(f"{key}/*.features"))


def _entry(line: bytes, segment: str) -> tuple[str, _Entry] | None:
    """A line of an index; None for one that is damaged, whose page is then made again."""
    try:
        content = json.loads(line)
        rows, dim = content["shape"]
        height, width = content["patches"]
        return str(content["page"]), _Entry(
            segment,
            int(content["offset"]),
            (int(rows), int(dim)),
            (int(height), int(width)),
            str(content["sha256"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def cannot_write(folder: Path, error: OSError, stored_as: str = "") -> ModelError:
    """The error of a folder that cannot be written.

    Args:
        folder: The one.
        error: Of the system.
        stored_as: Type on disk, which tells pixels from visual tokens.
    """
    what, key = (
        ("visual tokens", "vision_cache") if stored_as != "uint8" else ("pages", "page_cache")
    )
    return ModelError(
        "cannot-write-vision-cache",
        f"{what} cannot be kept on disk.",
        where=str(folder),
        received=error.strerror or str(error),
        expected="a folder that can be made and written",
        suggestion=f"another data.{key}.path, or null to do without",
    )
