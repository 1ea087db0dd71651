"""What loading a model found out about it, and a forward pass that shows it is one.

Most failed reproductions in public threads were weights that silently did not load: a projection
drawn anew, an adapter whose keys matched nothing, a norm left at its start. Each of these is an
error here (`weights/`, `adapter.py`); the report says what was looked at, so that its silence can
be trusted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from coltrain.errors import ModelError
from coltrain.model.adapter import lora_layers, without_adapter
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.inputs import Preparer
from coltrain.model.weights import PROJECTION

PROBE_QUERIES = ("What was the revenue in 2019?", "A map of the northern harbour")
# 4 x 4 visual tokens: what the two pages show differs, and nothing else.
PROBE_PAGE_SIZE = (112, 112)
# Below this two embeddings of unit length are the same; a network that ignores its input gives 0.
SAME = 1e-6

VISION, LANGUAGE, PROJECTION_PART = "vision_tower", "language_model", "projection"


@dataclass(frozen=True)
class Base:
    """The base of an adapter.

    Attributes:
        name: As it was given, or as the adapter names it.
        revision: Commit, tag or branch that was asked for.
        commit: Of the hub's snapshot that was read; None for a folder.
        check: How it is known to be the adapter's: "hash", "name", or "not known".
        named: What the adapter itself names, where that is another name.
    """

    name: str
    revision: str | None
    commit: str | None
    check: str
    named: str | None = None


@dataclass(frozen=True)
class Probe:
    """Largest differences between coordinates of embeddings that have to differ.

    Attributes:
        pages: Of two pages of one size.
        queries: Of two queries, at their last token.
        adapter: Of a page with and without the adapter; None without one.
    """

    pages: float
    queries: float
    adapter: float | None


@dataclass(frozen=True)
class LoadReport:
    """What loading found; that it exists says that every check passed.

    Attributes:
        layout: Which library's form the folder has (`weights/layouts.py`).
        names: How the network's files name tensors (`weights/names.py`).
        adapter_names: How the adapter's file does; None without an adapter.
        files: Names of the files that were read.
        unread: Names of weight files beside them that were not.
        num_tensors: Of the network's files.
        file_types: Number of tensors by the type that the files hold them in, adapter included.
        created: Tensors that no file has, with what they were filled with.
        left_out: Keys that ColQwen2 has no place for: the tied output layer, a projection that
            another one replaces.
        constant: Biases and norms of one value throughout.
        untrained: Keys of lora_B that are zero, in an adapter that may be fresh.
        coverage: Adapted and all linear layers of each part.
        base: Of an adapter; None where the folder has the whole network.
        hashes_recorded: Whether the folder recorded the hashes of its tensors, and they are these.
        hashes: sha256 of each tensor of the network's files, first 16 digits.
        notes: What else a reader should know.
        probe: The forward pass; None where it was not asked for.
    """

    layout: str
    names: str
    adapter_names: str | None
    files: list[str]
    unread: list[str]
    num_tensors: int
    file_types: dict[str, int]
    created: dict[str, str]
    left_out: list[str]
    constant: list[str]
    untrained: list[str]
    coverage: dict[str, tuple[int, int]]
    base: Base | None
    hashes_recorded: bool
    hashes: dict[str, str] = field(repr=False)
    notes: list[str] = field(default_factory=list)
    probe: Probe | None = None

    def to_json(self) -> dict[str, Any]:
        """The report without the hashes of single tensors."""
        return {key: value for key, value in asdict(self).items() if key != "hashes"}


def coverage(model: ColQwen2) -> dict[str, tuple[int, int]]:
    """Adapted and all linear layers of each part of a model."""
    counts = {part: [0, 0] for part in (VISION, LANGUAGE, PROJECTION_PART)}
    adapted = lora_layers(model)
    for name, module in model.named_modules():
        if name in adapted or (isinstance(module, nn.Linear) and not _within(name, adapted)):
            count = counts[part_of(name)]
            count[0] += name in adapted
            count[1] += 1
    return {part: (done, of) for part, (done, of) in counts.items()}


def _within(name: str, adapted: Mapping[str, object]) -> bool:
    """Whether a module is a part of an adapted one: its base layer, its A or B."""
    parents = name.split(".")
    return any(".".join(parents[:end]) in adapted for end in range(1, len(parents)))


def part_of(name: str) -> str:
    """The part of the network that a module or tensor belongs to."""
    if name.startswith("visual."):
        return VISION
    return PROJECTION_PART if name.startswith(PROJECTION) else LANGUAGE


def file_types(network: Counter[str], adapter: Mapping[str, Tensor]) -> dict[str, int]:
    """Tensors by the type that the files hold them in."""
    counts = Counter(network)
    counts.update(str(tensor.dtype).removeprefix("torch.") for tensor in adapter.values())
    return dict(sorted(counts.items()))


def probe_pages() -> list[Image.Image]:
    """Two pages of one size: a blank one, and one with bars."""
    blank, drawn = (Image.new("RGB", PROBE_PAGE_SIZE, "white") for _ in range(2))
    pen = ImageDraw.Draw(drawn)
    for number in range(4):
        pen.rectangle((8, 28 * number + 4, 40 + 20 * number, 28 * number + 16), fill="black")
    return [blank, drawn]


def probe(model: ColQwen2, preparer: Preparer, where: str) -> Probe:
    """Encode two small pages and two queries, and see that they differ. Five forward passes.

    Args:
        model: In evaluation mode, with or without an adapter.
        preparer: Its template, tokenizer and image processor.
        where: The model's folder, for the error.

    Raises:
        ModelError: An embedding is not finite, two pages or two queries have the same one, or the
            adapter changes nothing.
    """
    blank, drawn = (_embed_page(model, preparer, page) for page in probe_pages())
    first, second = (_embed_query(model, preparer, text)[-1] for text in PROBE_QUERIES)
    for embedding in (blank, drawn, first, second):
        if not embedding.isfinite().all():
            raise ModelError(
                "probe-not-finite",
                "the model's embedding of a probe is not finite.",
                where=where,
                expected="finite numbers",
                suggestion="--dtype float32 or bfloat16: activations of Qwen2-VL overflow float16",
            )
    pages = _refuse_same(blank, drawn, "two different pages", where)
    queries = _refuse_same(first, second, "two different queries", where)
    change = None
    if lora_layers(model):
        with without_adapter(model):
            bare = _embed_page(model, preparer, probe_pages()[1])
        change = _difference(bare, drawn)
        if change <= SAME:
            raise ModelError(
                "adapter-without-effect",
                "embeddings are the same with and without the adapter.",
                where=where,
                received=f"a largest difference of {change:.1e}",
                expected=f"more than {SAME:.0e}",
            )
    return Probe(pages, queries, change)


def _embed_page(model: ColQwen2, preparer: Preparer, page: Image.Image) -> Tensor:
    inputs = preparer.collate_pages([preparer.prepare_page(page)]).to(model.device)
    with torch.no_grad():
        visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        return model(inputs.input_ids, inputs.mask, inputs.position_ids, visual_tokens)[0]


def _embed_query(model: ColQwen2, preparer: Preparer, text: str) -> Tensor:
    inputs = preparer.collate_queries([text]).to(model.device)
    with torch.no_grad():
        return model(inputs.input_ids, inputs.mask, inputs.position_ids)[0]


def _difference(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def _refuse_same(one: Tensor, other: Tensor, what: str, where: str) -> float:
    difference = _difference(one, other)
    if difference <= SAME:
        raise ModelError(
            "embeddings-all-alike",
            "the model gives different inputs the same embedding.",
            where=where,
            received=f"{what} differ by {difference:.1e} at most",
            expected=f"more than {SAME:.0e}",
            suggestion="weights of one part are missing or were overwritten; load the published "
            "files again",
        )
    return difference
