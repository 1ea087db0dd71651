"""Page embeddings on disk: encoded once, there again after a kill, checked when read.

    FOLDER/<key>/identity.json         what the embeddings depend on, in words; the key is its hash
                 <segment>.vectors     embeddings one after another, raw
                 <segment>.index.jsonl one line for each: page, offset, shape, SHA-256

Each process appends to a segment of its own, so that several may share a folder, and writes the
line of an embedding after the embedding. What a kill leaves behind is at worst an embedding without
a line, or half a line: neither is read. A page that several lines name has the last of them.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coltrain.errors import RunError
from coltrain.model.files import write_whole
from coltrain.model.weights import tensor_bytes

DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class _Entry:
    segment: Path
    offset: int
    shape: tuple[int, int]
    sha256: str


class EmbeddingStore:
    """The embeddings of one model's pages, by the hash of a page's image file.

    Args:
        folder: Shared by all models; each has a folder of its own in it.
        identity: What the embeddings depend on beside the page: see `encoder_identity`.
        dtype: "float32", or "float16" for half the size, rounded to 11 bits.

    Attributes:
        num_damaged: Embeddings so far that were not what their line says.

    Raises:
        RunError: `[cannot-write-cache]`: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], dtype: str = "float32") -> None:
        self.dtype = DTYPES[dtype]
        description = json.dumps({**identity, "stored_as": dtype}, indent=2, sort_keys=True)
        self.folder = folder / hashlib.sha256(description.encode()).hexdigest()[:16]
        self.num_damaged = 0
        self._entries: dict[str, _Entry] = {}
        self._segment = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}.vectors"
        self._vectors = None
        self._index = None
        self._size = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f"{self._segment.stem}.identity.partial"
            partial.write_text(description + "\n", encoding="utf-8")
            partial.replace(self.folder / "identity.json")
        except OSError as error:
            raise _cannot_write(folder, error) from error
        for index in sorted(self.folder.glob("*.index.jsonl"), key=_age):
            self._read_index(index)

    def __len__(self) -> int:
        return len(self._entries)

    def __enter__(self) -> "EmbeddingStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, page: str) -> Tensor | None:
        """A page's embedding as it was stored; None where there is none, or a damaged one.

        Args:
            page: Hash of the page's image file.
        """
        entry = self._entries.get(page)
        if entry is None:
            return None
        size = entry.shape[0] * entry.shape[1] * self.dtype.itemsize
        try:
            with entry.segment.open("rb") as file:
                file.seek(entry.offset)
                content = file.read(size)
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            self.num_damaged += 1
            del self._entries[page]
            return None
        return torch.frombuffer(bytearray(content), dtype=self.dtype).view(entry.shape)

    def write(self, page: str, embedding: Tensor) -> Tensor:
        """Store a page's embedding.

        Returns:
            What `read` will give: the embedding in the store's type.

        Raises:
            RunError: `[cannot-write-cache]`, such as on a full disk.
        """
        embedding = embedding.to(self.dtype).contiguous()
        content = tensor_bytes(embedding)
        entry = _Entry(
            self._segment,
            self._size,
            tuple(embedding.shape),
            hashlib.sha256(content).hexdigest(),
        )
        line = {
            "page": page,
            "offset": entry.offset,
            "shape": list(entry.shape),
            "sha256": entry.sha256,
        }
        try:
            if self._vectors is None:
                self._vectors = self._segment.open("wb", buffering=0)
                self._index = self._segment.with_suffix(".index.jsonl").open("wb", buffering=0)
            write_whole(self._vectors, content)
            write_whole(self._index, json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        self._size += len(content)
        self._entries[page] = entry
        return embedding

    def close(self) -> None:
        """Close the files; a store that is closed can still be read."""
        for file in (self._vectors, self._index):
            if file is not None:
                file.close()

    def _read_index(self, index: Path) -> None:
        segment = index.with_name(index.name.removesuffix(".index.jsonl") + ".vectors")
        for line in index.read_bytes().split(b"\n")[
            :-1
        ]:  # what follows the last end is half a line
            try:
                content = json.loads(line)
                rows, dim = content["shape"]
                entry = _Entry(
                    segment, int(content["offset"]), (int(rows), int(dim)), str(content["sha256"])
                )
                page = str(content["page"])
            except (ValueError, KeyError, TypeError):
                self.num_damaged += 1
                continue
            self._entries[page] = entry


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def _cannot_write(folder: Path, error: OSError) -> RunError:
    return RunError(
        "cannot-write-cache",
        "embeddings cannot be kept on disk.",
        where=str(folder),
        received=error.strerror or str(error),
        expected="a folder that can be written, with room for the embeddings (0.4 MB for a page of "
        "768 vectors in float32)",
        suggestion="another --cache or --out",
    )
