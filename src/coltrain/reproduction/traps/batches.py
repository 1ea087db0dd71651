"""Traps of what a query was compared with."""

from dataclasses import replace

from coltrain.reproduction.targets import Target
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import (
    goes_its_own_way,
    is_colqwen2,
    nearest,
    published_value,
)

# main of colpali-engine from the first gather to its padding, 2025-06-05 to 2025-06-11.
TRUNCATING = (
    "70277c8a56b41da437ad620ac1dd0e768fca6b7b",
    "b863674eb7eb5653e2cbfb52cce3a92fcf6b73a8",
    "c5bf4fadefd35ab435f197a41ce2b95b8c9af34f",
    "830b9656655f1180230f3575d57c9b74b76232da",
    "088ea37f9b86620ccd6fdbaf6cc9f38a197ccb20",
)
_SMALLEST_PUBLISHED = 32
# Of a training that is after no published number: transformers' default on one device.
_SMALLEST_USUAL = 8


def negatives_not_shared(target: Target) -> Outcome:
    """Trap 6: the batch that was asked for is not what a query meets."""
    facts = target.facts
    size, candidates = facts["batch.global_size"], facts["batch.candidates"]
    negatives = facts.value("batch.negatives")
    if target.recipe is not None and target.run is None:
        wanted = _claimed_size(target)
        if candidates.value < size.value:
            return failed(
                f"each query meets {negatives} negatives of a batch of {size.value}",
                f"{size.value - 1}: negatives shared over the whole batch",
                candidates,
            )
        if wanted is not None and candidates.value < wanted:
            found = f"each query meets {negatives} negatives"
            return replace(failed(found, f"{wanted - 1}, as published", size), blocks=False)
        return passed(f"each query meets {negatives} negatives", candidates.where)
    if not candidates.is_known:
        missing = [n for n in ("launch.world_size", "batch.per_device") if not facts.knows(n)]
        if facts.knows("launch.world_size", "batch.per_device"):
            missing = [
                "versions.colpali-engine: whether that version shares documents over processes"
            ]
        return unknown("not stated: " + ", ".join(missing))
    if target.run is not None:
        return _of_run(target)
    accumulation = facts.value("batch.accumulation", 1)
    passes = size.value // accumulation
    if candidates.value < passes and (
        facts.value("batch.shared") is False or candidates.value == 1
    ):
        return failed(
            f"asked for a batch of {size.value}, but each query met {_number(negatives, 'negative')}"
            f", not {size.value - 1}",
            f"{size.value - 1}: documents shared over {facts.value('launch.world_size')} processes",
            candidates,
        )
    if is_colqwen2(target) and accumulation == 1:
        is_own = goes_its_own_way(target)
        smallest = _SMALLEST_USUAL if is_own else _SMALLEST_PUBLISHED
        if candidates.value < smallest:
            usual = "in a default batch" if is_own else "as the smallest published batch"
            return failed(
                f"each query meets {_number(negatives, 'negative')}",
                f"at least {smallest - 1}, {usual}",
                candidates,
            )
    return passed(f"each query meets {_number(negatives, 'negative')}", candidates.where)


def _claimed_size(target: Target) -> int | None:
    name = nearest(target)
    size = published_value(name, "batch.global_size") if name else None
    smallest = min(size, _SMALLEST_PUBLISHED) if isinstance(size, int) else None
    return smallest


def _of_run(target: Target) -> Outcome:
    facts, run = target.facts, target.run
    assert run is not None
    size = facts.value("batch.global_size")
    met = facts.value("batch.candidates")
    negatives = run.fact("recipe.batch.negatives", "global")
    if negatives != "global" and size:
        return failed(
            f"asked for a batch of {size}, but each query met {negatives - 1} negatives, not {size - 1}",
            f"{size - 1}: batch.negatives = global",
            "run.json, recipe.batch.negatives",
        )
    if size and met < 0.75 * size:
        return failed(
            f"asked for a batch of {size}, but each query met {met - 1:.0f} negatives, not {size - 1}",
            f"{size - 1}",
            facts["batch.candidates"],
        )
    if target.recipe is not None:
        wanted = _claimed_size(target)
        if wanted is not None and met < 0.75 * wanted:
            return failed(
                f"{met - 1:.0f} negatives", f"{wanted - 1}, as published", facts["batch.candidates"]
            )
    return passed(f"each query met {met - 1:.0f} negatives", facts["batch.candidates"].where)


def _number(count: object, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def accumulation_is_no_batch(target: Target) -> Outcome:
    """Trap 7: accumulated passes add samples to a step and no negatives to a query."""
    facts = target.facts
    accumulation = facts["batch.accumulation"]
    if any(call.last in ("CrossEncoderTrainer", "CrossEncoder") for call in target.calls):
        return passed("a cross-encoder, which compares no query with others' pages")
    if not accumulation.is_known:
        return unknown("how many passes share an optimiser step")
    if not isinstance(accumulation.value, int) or accumulation.value <= 1:
        return passed(f"accumulation {accumulation.value}", accumulation.where)
    each = facts.value("batch.per_device")
    size = facts.value("batch.global_size")
    text = f"{accumulation.value} passes of {each} a device share a step"
    if size is not None and facts.knows("batch.candidates"):
        text += f"; a batch of {size}, in which a query meets {facts.value('batch.negatives')} negatives"
    return failed(text, "gradient caching, under which a query meets the whole batch", accumulation)


def same_page_twice(target: Target) -> Outcome:
    """Trap 19: another query of the same page makes its own page a negative."""
    if target.recipe is not None and target.run is None:
        return passed("pages that answer a query are masked by their id")
    run = target.run
    if run is not None:
        return _masked_in_run(target)
    names = [str(one) for one in target.facts.value("data.train", [])]
    sampler = str(target.facts.value("batch.sampler", ""))
    many = [one for one in names if "syntheticDocQA" in one and "train" in one]
    if many and not target.mentioned("select", "drop_duplicates", "unique", "filter"):
        return failed(
            f"{many[0]} has up to three queries a page, and nothing keeps one page from being its "
            "own query's negative" + (f" ({sampler} does not see images)" if sampler else ""),
            "one query a page in a batch, or negatives masked by page",
            target.facts["data.train"],
        )
    rows = target.mention("pages repeated")
    one_each = target.mentioned("choice", "drop_duplicates", "unique", "groupby", "group_by")
    if rows is not None and not one_each and target.facts.knows("batch.per_device"):
        return failed(
            f"a row for each of {rows.text} of one page, and nothing keeps a page from being its "
            "own query's negative",
            "one query a page in a batch, or negatives masked by page",
            rows.where,
        )
    if not names:
        return unknown("which data is trained on")
    return passed(f"as published: {', '.join(names)}", target.facts["data.train"].where)


def _masked_in_run(target: Target) -> Outcome:
    run = target.run
    assert run is not None
    steps = [line for line in run.steps if "masked_duplicates" in line]
    size = target.facts.value("batch.candidates", 0)
    expected = 0.0
    for data in run.fact("data.train", []):
        rows, pages = data.get("rows") or 0, data.get("distinct_pages") or 0
        if rows > pages > 0:  # at least: every further row of a page meets it once
            expected += len(steps) * size * (size - 1) * (rows - pages) / rows / rows
    masked = sum(line["masked_duplicates"] for line in steps)
    if steps and expected > 20 and masked == 0:
        return failed(
            f"no pair masked in {len(steps)} steps",
            f"about {expected:.0f}, from rows and distinct pages of the data",
            "metrics.jsonl, masked_duplicates",
        )
    return passed(f"{masked} pairs masked", "metrics.jsonl, masked_duplicates")


def gather_truncates(target: Target) -> Outcome:
    """Trap 20: documents of unequal length gathered over processes without padding."""
    facts = target.facts
    commit = next((one for one in TRUNCATING if _has_commit(target, one)), None)
    if commit is not None:
        return failed(
            f"colpali-engine at {commit[:10]}", "0.3.11 or later", "the commit that is named"
        )
    own = target.mentioned("all_gather", "all_gather_into_tensor", "gather")
    padded = target.mentioned("pad_across_processes", "pad", "pad_sequence", "all_gather_padded")
    if own and target.mentioned("all_gather", "all_gather_into_tensor") and not padded:
        return failed(
            "all_gather of embeddings without padding", "pad_across_processes before it", own
        )
    if facts.value("launch.world_size", 1) == 1 or target.recipe is not None:
        return passed("one process, or lengths that are padded")
    return passed("no gather of its own, and no commit between 2025-06-05 and 2025-06-11")


def _has_commit(target: Target, commit: str) -> bool:
    return any(commit.startswith(one) or one.startswith(commit) for one in target.commits)


def gloo_gather(target: Target) -> Outcome:
    """Trap 26: several processes on a CPU, whose gathered gradients come out scrambled."""
    facts = target.facts
    backend = facts["launch.backend"]
    if target.kind not in ("colpali-engine", "sentence-transformers", "pylate", "transformers"):
        return passed("the gather's gradient is contiguous", "training/")
    world = facts.value("launch.world_size")
    if backend.is_known and backend.value in ("gloo", "cpu") and world != 1:
        return failed(
            f"{backend.value} with {world or 'several'} processes", "nccl, or one process", backend
        )
    return passed("nccl" if not backend.is_known else str(backend.value), backend.where)


def epochs_repeat_batches(target: Target) -> Outcome:
    """Trap F3: a batch sampler that is never told the epoch, under several processes."""
    facts = target.facts
    if target.run is not None:
        return _repeats_in_run(target)
    sampler, world = facts["batch.sampler"], facts.value("launch.world_size")
    sources = facts.value("batch.num_sources", 1)
    own = sampler.is_known and sampler.value not in ("BATCH_SAMPLER", "BATCHSAMPLERS.BATCH_SAMPLER")
    if target.kind == "colpali-engine" and sources > 1:
        own = True
    epochs = facts.value("train.epochs", 1)
    again = _order_by_hand(target)
    if again is not None and target.recipe is None and epochs > 1:
        found, where = again
        return failed(f"{found}: all {epochs:g} epochs have the same batches", "set_epoch", where)
    if not own or again is not None or target.recipe is not None:
        return passed("the library's own sampler, which is told the epoch")
    if not isinstance(world, int):
        return unknown(
            f"how many processes train with {sampler.value if sampler.is_known else 'SingleDatasetBatchSampler'}"
        )
    if world > 1 and epochs > 1:
        name = sampler.value if sampler.is_known else "SingleDatasetBatchSampler"
        return failed(
            f"{name} over {world} processes: all {epochs:g} epochs have the same batches",
            "a sampler that is told the epoch, or one process",
            sampler if sampler.is_known else facts["batch.num_sources"],
        )
    return passed(f"{world} process, {epochs:g} epochs", sampler.where)


def _order_by_hand(target: Target) -> tuple[str, str] | None:
    """What in a loop of its own makes each epoch's order the same, and where."""
    sampler = target.facts["batch.sampler"]
    if sampler.value == "DISTRIBUTEDSAMPLER":
        return "a DistributedSampler without set_epoch", sampler.where
    if sampler.value == "SHUFFLE=FALSE":
        return "a DataLoader that does not shuffle", sampler.where
    fixed = target.mention("fixed sampler")
    if fixed is not None:
        return fixed.text, fixed.where
    seeded = target.mention("seeded each epoch")
    return None if seeded is None else (f"{seeded.text} in each epoch", seeded.where)


def _repeats_in_run(target: Target) -> Outcome:
    """Batches by the digests of their rows; in runs that have none a repeated loss gives it away."""
    run = target.run
    assert run is not None
    each = run.fact("plan.batches_per_epoch")
    losses = {line["step"]: line.get("loss") for line in run.steps}
    if each and len(losses) > each:
        batches = {line["step"]: line["batch"] for line in run.steps if "batch" in line}
        pairs = [(step, step + each) for step in batches if step + each in batches]
        if each > 1 and len(pairs) >= 2:  # an epoch of one batch has no other
            same = sum(batches[a] == batches[b] for a, b in pairs)
            if same > 0.5 * len(pairs):
                return failed(
                    f"{same} of {len(pairs)} steps have the rows of one epoch before",
                    "other batches in each epoch",
                    "metrics.jsonl, batch",
                )
            return passed(f"{len(pairs) - same} of {len(pairs)} batches are others than before")
        masks = {line["step"]: line.get("masked_duplicates") for line in run.steps}
        pairs = [(step, step + each) for step in losses if step + each in losses]
        same = sum(losses[a] == losses[b] and masks.get(a) == masks.get(b) for a, b in pairs)
        if len(pairs) >= 3 and same > 0.9 * len(pairs):
            return failed(
                f"{same} of {len(pairs)} steps have the loss of one epoch before to the last digit",
                "another order in each epoch",
                "metrics.jsonl, loss",
            )
    return passed("the order of each epoch follows from the seed and the epoch")
