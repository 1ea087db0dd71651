"""Traps of transformers' native ColQwen2 under sentence-transformers."""

from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown


def _is_native(target: Target) -> bool:
    base = str(target.facts.value("model.base", ""))
    return (
        base.endswith("-hf")
        or target.mentioned("ColQwen2ForRetrieval") is not None
        or any(call.owner == "ColQwen2ForRetrieval" for call in target.calls)
    )


def cached_loss_on_native(target: Target) -> Outcome:
    """Trap F1: gradient caching over transformers' native ColQwen2, whose pixels are padded."""
    facts = target.facts
    is_theirs = target.kind in ("sentence-transformers", "model")  # or a folder with its card
    if not is_theirs or not _is_native(target):
        return passed("not sentence-transformers over the native model")
    if not facts.value("batch.cached", False):
        return passed("no gradient caching", facts["batch.cached"].where)
    chunk, each = facts["batch.mini_batch"], facts.value("batch.per_device")
    if isinstance(chunk.value, int) and isinstance(each, int) and chunk.value >= each:
        return passed(f"chunks of {chunk.value} hold the batch of {each}", chunk.where)
    return failed(
        f"{facts.value('loss.class')} in chunks of {chunk.value} over {facts.value('model.base')}",
        "vidore/colqwen2-v1.0, whose pixels are flat; or no caching",
        chunk,
    )


def native_drops_mrope(target: Target) -> Outcome:
    """Trap F2: transformers' native ColQwen2, which numbers the patches of a page in one line."""
    facts = target.facts
    version = facts.value("versions.transformers", Versions())
    if target.run is not None and target.run.fact("reading.positions") == "sequential":
        where = "run.json, reading.positions"
        return failed("patches numbered in one line", "mrope, as the base was trained", where)
    if target.kind in ("recipe", "run"):
        return passed("positions are computed here and passed", "model/positions.py")
    if target.kind == "model":
        if facts.value("model.layout") != "transformers-native":
            return passed(f"layout {facts.value('model.layout', 'unknown')}")
        return unknown(
            "what reads the folder: transformers 5.23 drops M-RoPE unless position_ids are passed"
        )
    if not _is_native(target):
        return passed("not the native model", facts["model.base"].where)
    if version.all_before(5):
        return passed(f"transformers {version}", facts["versions.transformers"].where)
    if target.mentioned("get_rope_index"):
        return passed("position_ids are computed", str(target.mentioned("get_rope_index")))
    return failed(
        f"{facts.value('model.base')} through ColQwen2ForRetrieval"
        + (f", transformers {version}" if version.first else ""),
        "position_ids passed, transformers 4.53, or vidore/colqwen2-v1.0",
        facts["model.base"],
    )
