"""How much memory tensors hold at once, counted by storage, on any device and without one."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveTensors(TorchDispatchMode):
    """Watches every tensor that an operation makes while the context is entered.

    Tensors that existed before (the weights) do not count; views share their storage.

    Attributes:
        peak_bytes: The most that was alive at once.
        alive_bytes: What is alive now.
        largest_elements: Elements of the largest tensor that was ever made.
        largest_shape: Its shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self.largest_elements = 0
        self.largest_shape: tuple[int, ...] = ()
        self.alive_bytes = 0
        self._known: dict[int, int] = {}
        self._older: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run the operation and count the storages of what it returns."""
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                address = storage._cdata
                if address not in self._known and address not in self._older:
                    self._older.add(address)
                    weakref.finalize(storage, self._older.discard, address)
        output = function(*args, **(kwargs or {}))
        for tensor in tree_iter(output):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return output

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._known or address in self._older:
            return
        size = storage.nbytes()
        self._known[address] = size
        self.alive_bytes += size
        weakref.finalize(storage, self._forget, address)
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
        elements = size // tensor.element_size()
        if elements > self.largest_elements:
            self.largest_elements, self.largest_shape = elements, tuple(tensor.shape)

    def _forget(self, address: int) -> None:
        self.alive_bytes -= self._known.pop(address, 0)
