"""How large numbers get in a network: per module, over pages and queries, against float16's range.

Looked at: the input and the output of every module in forward passes without dropout, and the
weights. Not looked at: gradients (their scale is lowered where they overflow), what a module computes
within itself, such as attention scores (fused kernels keep them in float32), and pages and queries
that are not among the samples, which is what the margin is for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coltrain.data.collection import Collection
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.inputs import Inputs, Preparer
from coltrain.model.nonfinite import floating_tensors

NUM_PAGES = 16
NUM_QUERIES = 256
_QUERIES_AT_ONCE = 16


@dataclass
class Range:
    """Largest magnitudes of one module, its adapter's among them.

    Attributes:
        input: Of what it is given.
        output: Of what it returns.
        weight: Of its own frozen weights; 0 where it has none.
        weight_error: Share of the weights' norm that rounding to float16 takes away; 0.0002 for
            weights in its range, more where they are close to its smallest numbers.
    """

    input: float = 0.0
    output: float = 0.0
    weight: float = 0.0
    weight_error: float = 0.0

    @property
    def largest(self) -> float:
        """Of all three."""
        return max(self.input, self.output, self.weight)


def ranges(
    model: ColQwen2, samples: Iterable[Inputs], on_sample: Callable[[], None] | None = None
) -> dict[str, Range]:
    """Encode samples, and note how large each module's numbers get.

    Args:
        model: In float32, or in bfloat16, which has the same range.
        samples: Pages and queries.
        on_sample: Called after each.

    Returns:
        Ranges by full name of the module, in the order of computing; an adapted layer, its base and
        its adapter are one.
    """
    found: dict[str, Range] = {}
    order: dict[str, None] = {}
    for name, module in model.named_modules():
        if name:
            _note_weights(found.setdefault(unit_of(name), Range()), module)
    with _watching(model, found, order):
        for inputs in samples:
            run(model, inputs.to(model.device))
            if on_sample is not None:
                on_sample()
    return {name: found[name] for name in order | dict.fromkeys(found)}


def run(model: ColQwen2, inputs: Inputs) -> Tensor:
    """Embeddings of a sample, without a graph and without dropout."""
    with torch.no_grad():
        visual = None
        if inputs.pixel_values is not None:
            visual = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        return model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)


def unit_of(name: str) -> str:
    """The layer that a module is a part of: its own name, or the adapted layer's."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part == "base_layer" or part.startswith("lora_"):
            return ".".join(parts[:place])
    return name.removesuffix(".proj") if parts[-2:] == ["patch_embed", "proj"] else name


def samples_of(
    collection: Collection,
    preparer: Preparer,
    num_pages: int = NUM_PAGES,
    num_queries: int = NUM_QUERIES,
) -> Iterator[Inputs]:
    """Pages one by one and queries in small batches, spread evenly over a data set."""
    for place in spread(len(collection.page_ids), num_pages):
        yield preparer.collate_pages([preparer.prepare_page(collection.page_image(place))])
    texts = [
        collection.queries[place].text for place in spread(len(collection.queries), num_queries)
    ]
    for start in range(0, len(texts), _QUERIES_AT_ONCE):
        yield preparer.collate_queries(texts[start : start + _QUERIES_AT_ONCE])


def num_samples(collection: Collection, num_pages: int, num_queries: int) -> int:
    """How many `samples_of` yields."""
    num_queries = min(num_queries, len(collection.queries))
    return min(num_pages, len(collection.page_ids)) + -(-num_queries // _QUERIES_AT_ONCE)


def spread(number: int, wanted: int) -> Sequence[int]:
    """So many places of a list, evenly spread; all where there are fewer."""
    wanted = min(number, wanted)
    return [place * number // wanted for place in range(wanted)]


@contextmanager
def _watching(model: nn.Module, found: dict[str, Range], order: dict[str, None]) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if name:
            unit = unit_of(name)
            note = partial(_note, found[unit], partial(order.setdefault, unit))
            handles.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(
    kept: Range,
    met: Callable[[], None],
    module: nn.Module,
    inputs: tuple,
    more: dict[str, Any],
    output: object,
) -> None:
    met()
    kept.input = max(kept.input, _largest((inputs, more)))
    kept.output = max(kept.output, _largest(output))


def _note_weights(kept: Range, module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        if parameter.requires_grad:
            continue  # trained ones stay in float32
        values = parameter.detach().float()
        kept.weight = max(kept.weight, _largest(values))
        norm = values.norm()
        if norm > 0:
            lost = (values - values.to(torch.float16).float()).norm() / norm
            kept.weight_error = max(kept.weight_error, float(lost.nan_to_num(posinf=1.0)))


def _largest(value: object) -> float:
    """Largest magnitude; infinite where something is not a number."""
    sizes = [tensor.detach().abs().amax().float().item() for tensor in floating_tensors(value)]
    return max((size if size == size else float("inf") for size in sizes), default=0.0)
