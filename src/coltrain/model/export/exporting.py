"""From a model to a folder of another library, read back and compared before it counts."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from coltrain.errors import ModelError, UsageError
from coltrain.model.audit import PROBE_QUERIES, probe_pages
from coltrain.model.build import BuiltModel
from coltrain.model.export import (
    colpali_engine,
    coltrain_folder,
    sentence_transformers,
    transformers_native,
)
from coltrain.model.export.files import name_of
from coltrain.model.export.merging import MERGED_IN_FLOAT32
from coltrain.model.export.transformers_native import NativeDifference, native_difference
from coltrain.model.retriever import Retriever, load
from coltrain.recipe.wording import listed, nearest

TARGETS = ("coltrain", "colpali-engine", "transformers", "sentence-transformers")
"""Libraries whose form a model can be given."""

_ALWAYS_MERGED = ("transformers", "sentence-transformers")


@dataclass(frozen=True)
class Exported:
    """A folder that was written and read back.

    Attributes:
        target: The library.
        folder: Where it is.
        merged: Whether base and adapter are one network.
        dtype: Of the weights that were written.
        difference: Largest difference of a probe's embeddings, read back by coltrain in float32,
            from those of the model that was exported, in float32: what merging and casting moved.
        native: What transformers itself makes of it; for that target only.
        notes: What a user should know.
    """

    target: str
    folder: Path
    merged: bool
    dtype: str
    difference: float
    native: NativeDifference | None
    notes: tuple[str, ...]


def export_model(
    model: str | Path,
    target: str,
    out: Path,
    *,
    merge: bool = False,
    dtype: torch.dtype | None = None,
    base: str | None = None,
    revision: str | None = None,
    template: str | None = None,
    max_visual_tokens: int | None = None,
) -> tuple[Exported, BuiltModel]:
    """Write a model in the form of a library.

    Args:
        model: As for `coltrain.load`.
        target: One of `TARGETS`.
        out: Folder; new or empty.
        merge: Base and adapter as one network; transformers and sentence-transformers always get
            that.
        dtype: Of the weights that are written; None is the type to which training rounded the
            base's for a merged network, and what they are kept in for an adapter.
        base: In place of the base that an adapter names.
        revision: Of a hub model.
        template: For a model that has no card of its own.
        max_visual_tokens: For a model that has no card of its own.

    Returns:
        What was written, and the model that it was written from.

    Raises:
        UsageError: The target is unknown, or the folder is not empty.
        ModelError: The model cannot be loaded, or what was written does not give its embeddings.
    """
    refuse_target(target)
    refuse_full(out)
    arguments = {
        "base": base,
        "revision": revision,
        "template": template,
        "max_visual_tokens": max_visual_tokens,
    }
    reference = load(model, **arguments, dtype=torch.float32)
    merged = merge or target in _ALWAYS_MERGED or reference.built.lora is None
    existed = out.is_dir()
    try:
        if merged:
            written = dtype or reference.built.rounded_to
            notes = _write_merged(target)(reference.built, out, written)
        else:
            built = load(model, **arguments, dtype=dtype).built
            written = built.model.dtype
            notes = _write_adapter(target)(built, out)
        difference = _read_back(reference, out, merged, written)
        native = native_difference(reference.built, out) if target == "transformers" else None
    except BaseException:
        # Nothing half-written is left to be taken for a model.
        shutil.rmtree(out, ignore_errors=True)
        if existed:
            out.mkdir()
        raise
    if native is not None:
        notes = [*_native_notes(native), *notes]
    done = Exported(target, out, merged, name_of(written), difference, native, tuple(notes))
    return done, reference.built


def _write_merged(target: str) -> Callable[[BuiltModel, Path, torch.dtype], list[str]]:
    return {
        "coltrain": colpali_engine.write_merged,
        "colpali-engine": colpali_engine.write_merged,
        "transformers": transformers_native.write,
        "sentence-transformers": sentence_transformers.write,
    }[target]


def _write_adapter(target: str) -> Callable[[BuiltModel, Path], list[str]]:
    writers = {
        "coltrain": coltrain_folder.write_adapter,
        "colpali-engine": colpali_engine.write_adapter,
    }
    return writers[target]


def _read_back(reference: Retriever, out: Path, merged: bool, dtype: torch.dtype) -> float:
    """What `coltrain.load` makes of the folder, against the model that was exported.

    Raises:
        ModelError: It is further off than adding in float32 can make it.
    """
    again = load(out, dtype=torch.float32)
    if again.built.preparer.template != reference.built.preparer.template:
        raise AssertionError("the template did not travel")
    difference = max(
        (one - other).abs().max().item()
        for one, other in zip(_probe(reference), _probe(again), strict=True)
    )
    limit = MERGED_IN_FLOAT32 if merged and dtype == torch.float32 else 0.0
    if difference > limit and not (merged and dtype != torch.float32):
        raise ModelError(
            "export-differs",
            "what was written does not give the embeddings of the model.",
            where=str(out),
            received=f"a largest difference of {difference:.1e}",
            expected=f"at most {limit:.0e}",
            suggestion="please report it; nothing was left in the folder",
        )
    return difference


def _probe(retriever: Retriever) -> list[Tensor]:
    return [*retriever.encode_pages(probe_pages()), *retriever.encode_queries(PROBE_QUERIES)]


def _native_notes(native: NativeDifference) -> list[str]:
    return [
        "transformers drops M-RoPE as it ships: a probe page's embedding is "
        f"{native.pages_as_shipped:.2g} off at most, and {native.pages_with_positions:.0e} with "
        "coltrain's position_ids passed",
        f"its processor gives a query {native.extra_query_tokens} more tokens than the template; "
        f"scores of the probes are {native.scores_as_shipped:.2g} off at most, as shipped",
    ]


def refuse_target(target: str) -> None:
    """Check the name of a target.

    Raises:
        UsageError: There is none of this name.
    """
    if target not in TARGETS:
        raise UsageError(
            "unknown-target",
            "there is no library of this name to export to.",
            where="--to",
            received=target or "an empty name",
            expected=listed(TARGETS),
            suggestion=nearest(target, TARGETS),
        )


def refuse_full(out: Path) -> None:
    """Check that a folder can be written into.

    Raises:
        UsageError: It is a file, or holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        held = sorted(entry.name for entry in out.iterdir())[:5] if out.is_dir() else ["a file"]
        raise UsageError(
            "out-not-empty",
            "the folder to export to is not empty.",
            where=f"--out {out}",
            received=", ".join(held),
            expected="a new or empty folder",
            suggestion="another --out",
        )
