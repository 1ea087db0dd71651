"""A device that is too small for what passes through the model together."""

from collections.abc import Callable
from itertools import count

import torch

from coltrain.training import gradient_cache

_PASS = {"now": "first"}


def tell_which_pass(setattr: Callable) -> None:
    """Before a `SmallDevice` is of use: wraps gradient caching's second pass."""
    really = gradient_cache._second_pass

    def second_pass(*arguments):
        _PASS["now"] = "second"
        try:
            really(*arguments)
        finally:
            _PASS["now"] = "first"

    setattr(gradient_cache, "_second_pass", second_pass)


class SmallDevice:
    """Raises as CUDA does where more samples pass together than it has room for.

    In the second pass that is in the middle of the backward pass, when later layers have theirs.
    """

    def __init__(self, model, during, has_room):
        self.model, self.during, self.has_room = model, during, has_room
        self.passed = {"first": [], "second": []}
        self.half_done = 0
        self._calls = {"first": count(), "second": count()}
        model.language_model.layers[0].register_forward_hook(self._layer)

    def _layer(self, module, inputs, output):
        num_samples = len(self.model.sample_keys.current)  # they stand in one row
        if _PASS["now"] == "first":
            self._take("first", num_samples)
        if torch.is_grad_enabled():  # also in a first pass whose graph is kept
            output.register_hook(lambda _: self._take("second", num_samples))

    def _take(self, during, num_samples):
        number = next(self._calls[during])
        if during in self.during and not self.has_room(number, num_samples):
            self._raise()
        self.passed[during].append(num_samples)

    def _raise(self):
        self.half_done += any(p.grad is not None for p in self.model.parameters())
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has")
