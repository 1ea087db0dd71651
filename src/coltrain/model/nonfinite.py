"""Where a forward pass stops being finite: the module that comes first."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class NonFinite:
    """Filled in while the network runs.

    Attributes:
        module: Full name of the first module that met what is not finite; None so far.
        at_input: Whether it was given so: what stands between two modules overflowed, such as the
            product of an MLP or the sum of the residual stream.
    """

    module: str | None = None
    at_input: bool = False

    @property
    def words(self) -> str:
        """For an error."""
        return f"the input of module {self.module}" if self.at_input else f"module {self.module}"


@contextmanager
def watch_for_non_finite(model: nn.Module) -> Iterator[NonFinite]:
    """Look at the input and output of every module of the forward passes inside.

    It computes as it does otherwise, in its own scope and in any autocast around; what a module
    computes within itself and hands to none is not seen.
    """
    found = NonFinite()
    handles = []
    for name, module in model.named_modules():
        if name:
            before, after = partial(_see_input, found, name), partial(_see_output, found, name)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _see_input(
    found: NonFinite, name: str, module: nn.Module, inputs: tuple, more: dict[str, Any]
) -> None:
    if found.module is None and not all_finite((*inputs, *more.values())):
        found.module, found.at_input = name, True


def _see_output(
    found: NonFinite, name: str, module: nn.Module, inputs: tuple, output: object
) -> None:
    if found.module is None and not all_finite(output):
        found.module = name


def all_finite(value: object) -> bool:
    """Whether every number of a tensor, or of tensors in a tuple, is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in floating_tensors(value))


def floating_tensors(value: object) -> Iterator[Tensor]:
    """The floating-point tensors among a module's arguments or results."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from floating_tensors(part)
    elif isinstance(value, dict):  # transformers' outputs are
        for part in value.values():
            yield from floating_tensors(part)
