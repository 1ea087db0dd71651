"""Two trainings, compared value by value; what differs is ranked by what it is known to do."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.recipe.wording import shown
from coltrain.reproduction.causes.known import EVIDENCE, Known, known_of
from coltrain.reproduction.causes.measured import (
    MEASURED,
    Effect,
    effect_words,
    effects_of,
    is_of_their_model,
)
from coltrain.reproduction.causes.negatives import (
    NEGATIVES,
    account,
    falls_short,
    restated,
    sentence,
)
from coltrain.reproduction.causes.rows import RowChanges, row_changes
from coltrain.reproduction.causes.side import Side

# Facts about files and code, of which the values that matter follow; and parts of a value that is
# compared as a whole.
_NO_CAUSES = frozenset(
    {
        "batch.cached",
        "batch.candidates",
        "batch.mini_batch",
        "batch.negatives_setting",
        "data.hard_negatives",
        "data.rows",
        "eval.form",
        "hardware.gpu",
        "loss.class",
        "model.class",
        "model.layout",
        "projection.saved",
        "template.name",
        "template.query_call",
        "template.padding_side",
        "train.removed_argument",
    }
)
_SAME_SHOWN = (
    "batch.global_size",
    NEGATIVES,
    "loss.name",
    "loss.normalize",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.warmup_steps",
    "optimizer.schedule",
    "optimizer.max_grad_norm",
    "train.epochs",
    "train.steps",
    "train.seed",
    "lora.r",
    "lora.alpha",
    "lora.dropout",
    "lora.init",
    "model.base",
    "template",
    "precision.compute",
    "data.train",
    "versions.colpali-engine",
    "versions.torch",
)
_RANK_OF_UNKNOWN = 0.6  # points: below what is known to move a score, above what hardly does
_NAMES_OF_LOADERS = {
    "load_train_set": "vidore/colpali_train_set",
    "load_train_set_detailed": "colpali_train_set_detailed",
    "load_train_set_ir_negs": "manu/colpali-data-ir",
}
"""Data sets of colpali-engine's loaders, as recipes name them (0.3.1 to 0.3.4)."""


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        key: Name of the value.
        what: What differs, for people.
        a: On the first side.
        b: On the second.
        where_a: Where that stands.
        where_b: Likewise.
        known: What it is known to do.
        details: More about it, in lines.
        measured: What studies measured of exactly this difference, from B to A.
    """

    key: str
    what: str
    a: str
    b: str
    where_a: str
    where_b: str
    known: Known
    details: tuple[str, ...] = ()
    measured: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Causes:
    """All differences of two trainings.

    Attributes:
        a: The first side.
        b: The second.
        headline: The most damaging difference in a sentence.
        differences: The most damaging first.
        not_compared: What only one side says: name, and why the other does not.
        same: What a reader would ask for and is the same: name and value.
        remarks: What else a reader has to know.
    """

    a: Side
    b: Side
    headline: str
    differences: tuple[Difference, ...]
    not_compared: tuple[tuple[str, str], ...]
    same: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def find_causes(a: Side, b: Side, effects: Sequence[Effect] = ()) -> Causes:
    """Compare two trainings.

    Args:
        a: What is asked about.
        b: What it is compared with.
        effects: What studies measured.

    Returns:
        Every difference with its evidence, ranked by the points of nDCG@5 that the evidence speaks of.
        A value that one side alone has is no difference; it is listed as not compared.
    """
    found = [_with_effects(one, a, b, effects) for one in _differences(a, b)]
    found.sort(key=_rank)
    return Causes(
        a=a,
        b=b,
        headline=_headline(a, b, found),
        differences=tuple(found),
        not_compared=tuple(_not_compared(a, b)),
        same=tuple(
            (key, _in_short(key, b if key == "template" else a))
            for key in _SAME_SHOWN
            if key in a.values and key in b.values and _same(key, a, b)
        ),
        remarks=tuple(_remarks(a, b, found)),
    )


def _with_effects(
    difference: Difference, a: Side, b: Side, effects: Sequence[Effect]
) -> Difference:
    """A difference with what studies measured of it.

    A study of the sides' own model ranks by what it found. One of another model is evidence where
    there was no measurement, and keeps the weight.
    """
    measured = effects_of(difference.key, a, b, effects)
    if not measured:
        return difference
    known = difference.known
    own = [effect for effect in measured if is_of_their_model(effect, a, b)]
    if own or known.evidence in ("argued", "unknown"):
        known = replace(known, evidence=MEASURED, source=(own or measured)[0].source)
    if own:
        known = replace(known, weight=100 * max(abs(effect.value) for effect in own))
    return replace(
        difference,
        known=known,
        details=(*difference.details, *map(effect_words, measured)),
        measured=tuple(measured),
    )


def _rank(difference: Difference) -> tuple[float, int, str]:
    weight = difference.known.weight
    size = _RANK_OF_UNKNOWN if weight is None else weight
    return -size, EVIDENCE.index(difference.known.evidence), difference.key


def _differences(a: Side, b: Side) -> Iterator[Difference]:
    left_out = restated(a, b) | _NO_CAUSES | _follow_from_others(a, b)
    for key in sorted(a.values.keys() & b.values.keys()):
        if key in left_out or key.startswith(("data.train[", "data.eval[")) or _same(key, a, b):
            continue
        if key == "eval.data" and not (a.recipe and b.recipe):
            continue  # what others measured on while they trained is no cause
        yield _difference(key, a, b)
    for use in ("train", "eval"):
        yield from _of_data(a, b, use)


def _difference(key: str, a: Side, b: Side) -> Difference:
    known = known_of(key)
    details = []
    if key == NEGATIVES:
        known = known_of(key if falls_short(a, b) else "negatives.of_batches")
        details = [
            f"{letter}  {text}" for letter, side in (("A", a), ("B", b)) if (text := account(side))
        ]
    if key == "template":
        details += _template_details(a, b)
    details += [text for side in (a, b) for text in side.notes.get(key, [])]
    return Difference(
        key=key,
        what=known.what if key == NEGATIVES else f"{known.what or key} ({key})",
        a=_side_text(key, a),
        b=_side_text(key, b),
        where_a=a.values[key].where,
        where_b=b.values[key].where,
        known=known,
        details=tuple(details),
    )


_STRINGS = ("query_prefix", "query_suffix", "page_prompt")


def _side_text(key: str, side: Side) -> str:
    name = side.value("template.name")
    return str(name) if key == "template" and name else value_text(side.value(key))


def _template_details(a: Side, b: Side) -> Iterator[str]:
    """The strings that differ, repeated tokens counted."""
    for name, one, other in zip(_STRINGS, a.value("template"), b.value("template"), strict=True):
        if one != other:
            yield f"{name}: {_counted(one)} | {_counted(other)}"


def _counted(text: str) -> str:
    """`<|endoftext|> × 10` for ten in a row."""
    pieces = re.findall(r"<[^<>]*>|[^<]+|<", text)
    parts = []
    for piece, group in groupby(pieces):
        times = len(list(group))
        parts.append(piece + (f" × {times} " if times > 1 else ""))
    return repr("".join(parts))


def _follow_from_others(a: Side, b: Side) -> set[str]:
    """Names whose difference another one says already."""
    found = set()
    if "template" in a.values and "template" in b.values:
        found |= {f"template.{name}" for name in _STRINGS}
        if not _same("template", a, b):
            # Token ids and the hash follow from the strings; ids alone speak of the tokenizer.
            found |= {"template.hash", "probe.query_ids", "probe.page_ids"}
    if {"reading.image_library"} <= a.values.keys() & b.values.keys():
        found |= {"versions.pillow"} if not _same("reading.image_library", a, b) else set()
    if not all(side.value("loss.name") in HARD_NEGATIVE_LOSSES for side in (a, b)):
        # Read by these losses only.
        found |= {"loss.in_batch_weight", "hard_negatives.per_query", "hard_negatives.among_first"}
    if all("data.train[0].hash" in side.values for side in (a, b)):
        found |= {"data.train", "data.revision", "data.split", "eval.data"}  # fingerprints say more
    if not _same("train.steps", a, b):
        for counted in ("train.num_steps", "train.steps_taken"):
            if all(side.value(counted) == side.value("train.steps") for side in (a, b)):
                found.add(counted)
    if not _same("optimizer.name", a, b):
        found.add("versions.bitsandbytes")
    if any(not _same(key, a, b) for key in _START_FOLLOWS):
        found.add("weights.start")
    if "kernels.threads" in a.values and "kernels.threads" in b.values:
        found.add("hardware.threads")
    return found


_START_FOLLOWS = (
    "train.seed",
    "precision.lora",
    "lora.r",
    "lora.init",
    "lora.target_modules",
    "projection.start",
    "projection.std",
    "weights.base",
    "weights.projection",
)
"""What the trained weights' first values are drawn from or rounded to."""


def _same(key: str, a: Side, b: Side) -> bool:
    """Whether both sides have the same value, in whatever words; true where one has none."""
    if key not in a.values or key not in b.values:
        return True
    one, other = (_canonical(key, side.value(key)) for side in (a, b))
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _canonical(key: str, value: Any) -> Any:
    if key in ("data.train", "eval.data") and isinstance(value, list):
        return sorted(_NAMES_OF_LOADERS.get(str(one), str(one)) for one in value)
    if key == "model.base" and isinstance(value, str):
        # A local copy is called after what it is a copy of: ./models/colqwen2_base.
        return value.rstrip("/").rpartition("/")[2].replace("_", "-").lower()
    return value


def _of_data(a: Side, b: Side, use: str) -> Iterator[Difference]:
    """Sources of both sides at the same place whose rows, pages or names differ."""
    place = 0
    while all(f"data.{use}[{place}].hash" in side.values for side in (a, b)):
        prefix = f"data.{use}[{place}]"
        known_on_both = f"{prefix}.content_hash" in a.values.keys() & b.values.keys()
        keys = [f"{prefix}.hash", *([f"{prefix}.content_hash"] if known_on_both else [])]
        changes = _changes(a, b, use, place)
        # A data set's name is in its hash: a folder that moved is no other data.
        is_moved_only = changes is not None and not changes
        if any(not _same(key, a, b) for key in keys) and not is_moved_only:
            yield _data_difference(a, b, use, prefix, changes)
        place += 1


def _data_difference(
    a: Side, b: Side, use: str, prefix: str, changes: RowChanges | None
) -> Difference:
    key = f"{prefix}.{'order' if changes is not None and changes.is_order_only else 'rows_changed'}"
    known = known_of(key)
    name = a.value(f"{prefix}.name")
    texts = [
        f"{side.value(f'{prefix}.name')}, {side.value(f'{prefix}.rows')} rows, "
        f"hash {str(side.value(f'{prefix}.hash'))[:8]}"
        for side in (a, b)
    ]
    details: list[str] = []
    if changes is None:
        same = "ids, texts and order are the same; " if _same(f"{prefix}.hash", a, b) else ""
        details.append(f"{same}which rows changed is not recorded on both sides")
    else:
        if changes.num_rows and changes.num_changed:
            share = 100 * changes.num_changed / changes.num_rows
            details.append(
                f"{changes.num_changed} of {changes.num_rows} rows changed ({share:.2g} %)"
            )
        details += [f"{where}: {one} | {other}" for where, one, other in changes.found]
        if len(changes.found) == 1:
            where, *texts = changes.found[0]
            texts = [f"{where}: {text}" for text in texts]
    return Difference(
        key=key,
        what=f"{known.what} ({use} data, {name})",
        a=texts[0],
        b=texts[1],
        where_a=f"run.json, {prefix}",
        where_b=f"run.json, {prefix}",
        known=known,
        details=tuple(details),
    )


def _changes(a: Side, b: Side, use: str, place: int) -> RowChanges | None:
    if a.rows is None or b.rows is None:
        return None
    found = []
    for side in (a, b):
        assert side.rows is not None
        of_use = [one for one in side.rows() if one.use == use]
        if place >= len(of_use):
            return None
        found.append(of_use[place])
    return row_changes(*found)


def _headline(a: Side, b: Side, found: list[Difference]) -> str:
    said = sentence(a, b)
    if said is not None and found and found[0].key == NEGATIVES:
        return said
    if not found:
        return "Nothing that both sides record differs."
    first = found[0]
    return f"The largest known difference is {first.what}: {first.a} here, {first.b} there."


_ASKED_OF_ALL = (
    NEGATIVES,
    "batch.global_size",
    "data.train",
    "loss.name",
    "loss.normalize",
    "model.base",
    "optimizer.learning_rate",
    "optimizer.name",
    "precision.compute",
    "precision.lora",
    "precision.moments",
    "template",
    "train.epochs",
    "train.seed",
)
"""What every training has, whoever wrote it down."""


def _not_compared(a: Side, b: Side) -> Iterator[tuple[str, str]]:
    """What one side alone says, as far as the other should have said it too."""
    of_one_kind = a.kind == b.kind
    told = set()
    for mine, other in ((a, b), (b, a)):
        for key in sorted(mine.values.keys() - other.values.keys()):
            weight = known_of(key).weight
            is_telling = key in _ASKED_OF_ALL or (
                of_one_kind and key not in _NO_CAUSES and (weight is None or weight >= 0.3)
            )
            if key in other.unknown or (is_telling and not key.startswith("negatives.")):
                told.add(key)
                yield key, f"{other.label}: {other.unknown.get(key) or _gap(key, other)}"
    for side in (a, b):
        for key, why in side.unknown.items():
            if key not in told and key not in side.values and not _is_known_to_all(key, a, b):
                yield key, f"{side.label}: {why}"


def _gap(key: str, side: Side) -> str:
    """Why a side does not say something."""
    each = side.value("batch.per_device")
    if key == NEGATIVES and each is not None and "launch.world_size" not in side.values:
        return (
            f"{each} queries on a device, and neither the number of processes nor the launch is "
            "stated here, which decide it"
        )
    return "not recorded"


def _is_known_to_all(key: str, a: Side, b: Side) -> bool:
    return key in a.values and key in b.values


def _remarks(a: Side, b: Side, found: list[Difference]) -> Iterator[str]:
    for side in (a, b):
        for text in side.not_read:
            yield f"{side.label}, not read: {text}"
    if a.first_steps and b.first_steps:
        yield _where_they_part(a, b)
    if not found and a.kind == b.kind == "run":
        yield "Two runs without a recorded difference differ by chance or by what is not recorded."


def _where_they_part(a: Side, b: Side) -> str:
    """After which of the recorded steps the trained weights are no longer the same bits."""
    start = ""
    if "weights.start" in a.values and "weights.start" in b.values:
        is_same = _same("weights.start", a, b)
        start = (
            "both start from the same weights; " if is_same else "they start from other weights; "
        )
    common = sorted(a.first_steps.keys() & b.first_steps.keys())
    parted = [step for step in common if a.first_steps[step] != b.first_steps[step]]
    if not common:
        return f"{start}no step is recorded on both sides"
    if not parted:
        return f"{start}the trained weights are the same bits up to step {common[-1]}, the last recorded"
    return f"{start}the trained weights are no longer the same bits after step {parted[0]}"


def _in_short(key: str, side: Side) -> str:
    if key == "template":
        return str(side.value("template.name") or "of the same strings")
    return value_text(side.value(key))


def value_text(value: Any) -> str:
    """A value in one line, not too long."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value if len(value) <= 120 else value[:119] + "…"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        text = ", ".join(repr(one) if "\n" in one or "<" in one else one for one in value)
        return text if len(text) <= 160 else text[:159] + "…"
    return "none" if value is None else shown(value)
