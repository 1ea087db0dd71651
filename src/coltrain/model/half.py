"""Half precision with exceptions: a scope of the network's own, and modules kept in float32.

float16 ends at 65,504, and a pretrained network has places that go beyond. Such modules keep the
weights of their file in float32 and compute in float32; their output stays float32, so that the
residual stream, which they add to, does so as well from there on. An adapter's two products are
float32 too. Everything else computes in half
precision under autocast, which turns the inputs of products to the half type and leaves sums and
element-wise products in the wider type of the two. The scope belongs to the network and not to the
training loop: training, evaluation and a model loaded again compute alike.
"""

import copy
import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from coltrain.errors import ModelError
from coltrain.model.lora import LoraLinear

FLOAT16_MAX = 65504.0
_PROJECTION = "custom_text_proj"


@dataclass(frozen=True)
class Half:
    """How a network computes in half precision.

    Attributes:
        dtype: Of the weights and products.
        keep_float32: Which modules do not: full names, or patterns in which `*` stands for any
            letters (`language_model.layers.*.mlp.down_proj`).
    """

    dtype: torch.dtype
    keep_float32: tuple[str, ...] = ()

    def kept(self, model: nn.Module, where: str = "precision.keep_float32") -> tuple[str, ...]:
        """Full names of the modules kept in float32, none inside another.

        The projection to embeddings and layer norms are among them always. (The norms of the
        language model compute their statistics in float32 by themselves.)

        Args:
            model: Without an adapter.
            where: What the patterns were read from, for errors.

        Raises:
            ModelError: [no-such-module] A pattern matches nothing; the nearest names are told.
        """
        names = [name for name, _ in model.named_modules() if name]
        found = {_PROJECTION}
        found |= {name for name, part in model.named_modules() if isinstance(part, nn.LayerNorm)}
        unknown = []
        for pattern in self.keep_float32:
            matches = fnmatch.filter(names, pattern)
            found |= set(matches)
            if not matches:
                unknown.append(pattern)
        if unknown:
            raise ModelError(
                "no-such-module",
                "what is to be kept in float32 is no module of this model.",
                where=where,
                received=", ".join(unknown),
                expected="full names, or patterns such as language_model.layers.*.mlp.down_proj",
                suggestion=" or ".join(_nearest(unknown[0], names)),
            )
        return tuple(name for name in names if name in found and not is_under(name, found))


def is_under(name: str, modules: Sequence[str] | set[str]) -> bool:
    """Whether a module or parameter lies inside one of these modules."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in modules for end in range(1, len(parts)))


def compute_in_half(model: nn.Module, dtype: torch.dtype, kept: Sequence[str]) -> None:
    """Let a network compute in half precision, but for modules that are kept in float32.

    Args:
        model: A `ColQwen2` whose weights are of these types already, with its adapter.
        dtype: The half type.
        kept: Full names of modules, none inside another; their weights are float32.
    """
    model.computes_in = dtype
    model.kept_in_float32 = tuple(kept)
    _widen_adapter(model, True)
    for name in kept:
        module = model.get_submodule(name)
        # A bound method in the module's own dictionary: copies of the model get their own, and it
        # runs again where checkpointed layers run again, which hooks of a layer do not.
        module.forward = MethodType(_forward_in_float32, module)


def narrowed(model: nn.Module, half: Half) -> nn.Module:
    """A copy of a wide network that computes in half precision.

    Equal to one that was read so from its file, if the network has the file's values in float32.

    An adapter stays in float32, as in training.
    """
    model = copy.deepcopy(model)
    kept = half.kept(model)
    for name, parameter in model.named_parameters():
        is_wide = "lora_" in name or is_under(name, kept)
        parameter.data = parameter.data.to(torch.float32 if is_wide else half.dtype)
    compute_in_half(model, half.dtype, kept)
    return model


def compute_in_weights(model: nn.Module) -> None:
    """Take back `compute_in_half`: every module computes in the type of its weights again."""
    _widen_adapter(model, False)
    for name in model.kept_in_float32:
        del model.get_submodule(name).forward
    model.computes_in, model.kept_in_float32 = None, ()


def _widen_adapter(model: nn.Module, wide: bool) -> None:
    for part in model.modules():
        if isinstance(part, LoraLinear):
            part.adapter_is_wide = wide


def _forward_in_float32(module: nn.Module, *inputs: Any, **more: Any) -> Any:
    device = next(
        value.device.type for value in (*inputs, *more.values()) if isinstance(value, Tensor)
    )
    with torch.autocast(device, enabled=False):
        return type(module).forward(
            module, *map(_widened, inputs), **{key: _widened(value) for key, value in more.items()}
        )


def _widened(value: Any) -> Any:
    if isinstance(value, tuple):  # cosines and sines of positions
        return tuple(map(_widened, value))
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """Names like a mistyped one; numbers of layers count for nothing but to tell them apart."""
    close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
    last = pattern.rpartition(".")[2]
    same_end = [name for name in names if name.rpartition(".")[2] == last][:1]
    plain = {re.sub(r"\.\d+\.", ".*.", name): None for name in names}
    general = difflib.get_close_matches(pattern, plain, n=1, cutoff=0.5)
    return list(dict.fromkeys([*close, *general, *same_end]))[:3] or names[:1]
