"""Counted passes, kept on disk: the same network, setting and versions are counted once."""

import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

from transformers import Qwen2VLConfig

from coltrain.model import attention, colqwen2, dropout, packing
from coltrain.model.files import cache_folder
from coltrain.planning import cuda_like, footprint
from coltrain.planning.footprint import Cost, Passes, Setting, Sizes, passes
from coltrain.training import live_tensors

_COUNTED_BY = (footprint, cuda_like, live_tensors, colqwen2, packing, attention, dropout)


def counted(config: Qwen2VLConfig, dim: int, setting: Setting, sizes: Sizes, chunk: int) -> Passes:
    """`footprint.passes`, from the cache where it has them.

    The key holds all arguments, the versions of the libraries whose code is run, and the text of
    the modules that count; an entry that cannot be read is counted again.
    """
    asked = {
        "config": config.to_dict(),
        "dim": dim,
        "setting": asdict(setting),
        "sizes": asdict(sizes),
        "chunk": chunk,
        "counted_by": _counted_by(),
    }
    text = json.dumps(asked, sort_keys=True, default=str)
    file = cache_folder("plan") / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return Passes(**{name: Cost(**cost) for name, cost in known.items()})
    except (OSError, ValueError, TypeError):
        found = passes(config, dim, setting, sizes, chunk)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(asdict(found)), encoding="utf-8")
        partial.replace(file)
    except OSError:
        pass  # a cache that cannot be written costs time, never a result
    return found


@cache
def _counted_by() -> list[str]:
    versions = [f"{name} {version(name)}" for name in ("torch", "transformers", "peft")]
    sources = [Path(module.__file__).read_bytes() for module in _COUNTED_BY]
    return [*versions, *(hashlib.sha256(source).hexdigest()[:12] for source in sources)]
