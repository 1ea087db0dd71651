"""LoRA through peft: which modules, how they start, what they were found to be.

The adapter is put into the model in place, so that there is one model and one forward pass with or
without it, and it is saved in peft's own format, so that other libraries read it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from coltrain.errors import ModelError
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.dropout import stable_key, use_keyed_dropout
from coltrain.model.files import broken_file, read_json, read_tensors
from coltrain.model.lora import LoraLinear
from coltrain.model.weights import Names, map_names
from coltrain.model.weights.files import weight_files
from coltrain.model.weights.values import is_constant

ADAPTER_NAME = "default"
# peft writes keys as if the model stood inside its wrapper.
_PEFT_PREFIX = "base_model.model."
_REQUIRED = ("r", "lora_alpha", "lora_dropout", "target_modules")
# What changes an adapter's effect and is not among the settings below.
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "exclude_modules",
    "fan_in_fan_out",
    "layer_replication",
    "layers_to_transform",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
)


@dataclass(frozen=True)
class Adapter:
    """An adapter as its folder holds it.

    Attributes:
        settings: What it is.
        tensors: A and B under peft's keys and ColQwen2's names.
        base: Name of the base that it was trained on; empty where it says none.
        base_revision: The base's revision, where it says one.
        names: How its file names the modules.
        keys: The file's own keys of `tensors`.
        file: That holds the tensors.
    """

    settings: "LoraSettings"
    tensors: dict[str, Tensor]
    base: str
    base_revision: str | None
    names: Names
    keys: dict[str, str]
    file: Path

    @property
    def modules(self) -> list[str]:
        """Names of the modules that it has tensors for."""
        return sorted({module_of(key) for key in self.tensors})


@dataclass(frozen=True)
class LoraSettings:
    """What an adapter is.

    Attributes:
        r: Rank.
        alpha: The update is scaled by alpha / r.
        dropout: Probability that a feature of an adapted module's input is dropped.
        target_modules: Regular expression that a module's full name has to match as a whole.
        init: Start of A: "gaussian" (deviation 1 / r) or "kaiming" (uniform); B starts at zero.
        dtype: Storage type of A and B. The published models had bfloat16, since the peft of 2024
            took the base's type; today's peft takes float32.
    """

    r: int
    alpha: float
    dropout: float
    target_modules: str
    init: str = "gaussian"
    dtype: torch.dtype = torch.float32


def add_lora(
    model: ColQwen2, settings: LoraSettings, seed: int, where: str = "lora.target_modules"
) -> list[str]:
    """Put fresh LoRA layers into the model and freeze everything else.

    Each A is drawn from a generator of its own, seeded by (seed, module name), so that the start
    does not depend on the order of modules nor on the global generator, which is left alone.

    Args:
        model: Without an adapter.
        settings: Of the adapter.
        seed: Of each A.
        where: What the settings' expression was read from, for errors.

    Returns:
        Names of the adapted modules.

    Raises:
        ModelError: No module matches, or one that cannot be adapted.
    """
    _refuse_targets(model, settings, where)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias="none",
        target_modules=settings.target_modules,
        init_lora_weights=True,
    )
    config._register_custom_module({nn.Linear: LoraLinear})
    # On the meta device, so that peft draws nothing: `_start` fills every layer.
    inject_adapter_in_model(config, model, adapter_name=ADAPTER_NAME, low_cpu_mem_usage=True)
    layers = lora_layers(model)
    for name, layer in layers.items():
        _start(layer, name, settings, seed)
    use_keyed_dropout(model, model.sample_keys)
    return list(layers)


def _refuse_targets(model: ColQwen2, settings: LoraSettings, where: str) -> None:
    targets = {
        name: module
        for name, module in model.named_modules()
        if re.fullmatch(settings.target_modules, name)
    }
    if not targets:
        raise ModelError(
            "no-lora-target",
            "the LoRA target expression matches no module of this model.",
            where=where,
            received=settings.target_modules,
            expected="an expression that matches full names such as "
            "language_model.layers.0.self_attn.q_proj",
        )
    others = [name for name, module in targets.items() if not isinstance(module, nn.Linear)]
    if others:
        raise ModelError(
            "lora-target-not-linear",
            "the LoRA target expression matches what is not a linear layer.",
            where=where,
            received=", ".join(map(repr, others[:3])) + (", …" if len(others) > 3 else ""),
            expected="linear layers only, such as language_model.layers.0.self_attn.q_proj",
        )
    seen = [name for name in targets if name.startswith("visual.")]
    if seen and settings.dropout > 0:
        raise ModelError(
            "dropout-in-vision-tower",
            "LoRA dropout in the vision tower is not there: its masks know a sample's tokens, not "
            "its patches.",
            where=where,
            received=f"{len(seen)} modules of the vision tower, first {seen[0]}",
            expected="modules of the language model, or lora.dropout = 0",
        )


def reaches_vision(model: ColQwen2, settings: LoraSettings) -> bool:
    """Whether the settings' expression matches a module of the vision tower."""
    return any(
        name.startswith("visual.") and re.fullmatch(settings.target_modules, name)
        for name, _ in model.named_modules()
    )


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The adapted modules by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _start(layer: LoraLayer, name: str, settings: LoraSettings, seed: int) -> None:
    down, up = layer.lora_A[ADAPTER_NAME], layer.lora_B[ADAPTER_NAME]
    device = layer.get_base_layer().weight.device
    if device.type == "meta":
        drawn = torch.empty(down.weight.shape, device="meta")
    else:
        generator = torch.Generator().manual_seed(stable_key("lora", seed, name) % (1 << 63))
        drawn = torch.empty(down.weight.shape)
        if settings.init == "gaussian":
            drawn.normal_(std=1 / settings.r, generator=generator)
        else:  # kaiming_uniform_ with a = sqrt(5), as peft and torch start linear layers
            bound = 1 / math.sqrt(drawn.shape[1])
            drawn.uniform_(-bound, bound, generator=generator)
    down.weight = nn.Parameter(drawn.to(device, settings.dtype))
    up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=device, dtype=settings.dtype))


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A and B of every adapted module under peft's key names."""
    tensors = {}
    for name, layer in lora_layers(model).items():
        for part in ("lora_A", "lora_B"):
            weight = getattr(layer, part)[ADAPTER_NAME].weight
            tensors[f"{_PEFT_PREFIX}{name}.{part}.weight"] = weight.detach()
    return tensors


def save_adapter(model: ColQwen2, settings: LoraSettings, base: str, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json as peft does."""
    tensors = {key: tensor.contiguous().cpu() for key, tensor in adapter_tensors(model).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": settings.r,
        # A whole number as a whole number, as other libraries write it.
        "lora_alpha": int(settings.alpha) if settings.alpha % 1 == 0 else settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": settings.target_modules,
        "init_lora_weights": "gaussian" if settings.init == "gaussian" else True,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )


def load_adapter_weights(
    model: ColQwen2,
    tensors: Mapping[str, Tensor],
    where: str,
    keys: Mapping[str, str] | None = None,
) -> None:
    """Fill the LoRA layers of a model from an adapter's tensors, every one accounted for.

    Args:
        model: With LoRA layers.
        tensors: Under peft's keys, in any era's names.
        where: Their file, for the error.
        keys: What the file calls them, for the error, where `tensors` has ColQwen2's names.

    Raises:
        ModelError: A tensor is missing, left over, of another shape, or of no known name.
    """
    keys = keys or {}
    expected = adapter_tensors(model)
    _, names = map_names(dict.fromkeys(tensors, where), prefix=_PEFT_PREFIX)
    found = {names[key]: tensor for key, tensor in tensors.items()}
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(keys.get(key, key) for key in set(found) - set(expected))
    if missing or unexpected:
        raise ModelError(
            "adapter-does-not-fit",
            "the adapter's tensors are not those of this model.",
            where=where,
            received=f"{_counted(missing, 'missing')}; {_counted(unexpected, 'unexpected')}",
            expected=f"{len(expected)} tensors on {len(expected) // 2} modules",
        )
    with torch.no_grad():
        for key, parameter in expected.items():
            if parameter.shape != found[key].shape:
                raise ModelError(
                    "adapter-shape",
                    "a tensor of the adapter has another shape.",
                    where=f"{where}, {keys.get(key, key)}",
                    received=str(tuple(found[key].shape)),
                    expected=str(tuple(parameter.shape)),
                )
            parameter.copy_(found[key])


def _counted(keys: list[str], what: str) -> str:
    first = f", first {keys[0]}" if keys else ""
    return f"{len(keys)} {what}{first}"


def module_of(key: str) -> str:
    """The module that a key of peft's belongs to."""
    return key.removeprefix(_PEFT_PREFIX).partition(".lora_")[0]


def read_adapter(folder: Path, *, key_mapping: bool = True, allow_pickle: bool = False) -> Adapter:
    """An adapter's folder: settings, tensors, and the base that it names.

    Args:
        folder: Of adapter_config.json and adapter_model.safetensors.
        key_mapping: False insists that the tensors have ColQwen2's own names.
        allow_pickle: Read a pickled adapter where there is no safetensors file.

    Raises:
        ModelError: A file is missing or broken, it is not a LoRA adapter, or one with options that
            coltrain does not know; a tensor is of no known name or holds what no training gives.
    """
    config_file = folder / "adapter_config.json"
    config = read_json(config_file)
    if config.get("peft_type") != "LORA":
        raise ModelError(
            "not-a-lora-adapter",
            "this adapter is of another kind.",
            where=str(config_file),
            received=str(config.get("peft_type")),
            expected="LORA",
        )
    wrong = [f"{option}: {config[option]}" for option in _UNSUPPORTED if config.get(option)]
    if config.get("init_lora_weights") not in (True, False, None, "gaussian"):
        # Others, such as PiSSA, change the base as well.
        wrong.append(f"init_lora_weights: {config['init_lora_weights']}")
    if config.get("bias") not in (None, "none"):
        wrong.append(f"bias: {config['bias']}")
    wrong += [f"no {key}" for key in _REQUIRED if config.get(key) is None]
    if wrong:
        raise ModelError(
            "unsupported-adapter",
            "the adapter has options that coltrain would not follow, or lacks one.",
            where=str(config_file),
            received=", ".join(wrong),
            expected="plain LoRA: " + ", ".join(_REQUIRED),
        )
    [file] = weight_files(folder, "adapter_model", allow_pickle=allow_pickle)
    tensors = read_tensors(file)
    names, mapped = map_names(
        dict.fromkeys(tensors, str(file)), key_mapping=key_mapping, prefix=_PEFT_PREFIX
    )
    targets = config["target_modules"]
    if isinstance(targets, list):  # names, or the ends of names
        targets = r"(?:.*\.)?(?:" + "|".join(map(re.escape, sorted(targets))) + ")"
    try:
        re.compile(targets)
        settings = LoraSettings(
            r=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            dropout=float(config["lora_dropout"]),
            target_modules=targets,
            init="gaussian" if config.get("init_lora_weights") == "gaussian" else "kaiming",
            dtype=next(iter(tensors.values()), torch.empty(0)).dtype,
        )
    except (TypeError, ValueError, re.error) as error:
        raise broken_file(config_file, str(error), "numbers, and an expression or names") from error
    return Adapter(
        settings,
        {mapped[key]: tensor for key, tensor in tensors.items()},
        config.get("base_model_name_or_path") or "",
        config.get("revision"),
        names,
        {mapped[key]: key for key in tensors},
        file,
    )


def fit_targets(model: ColQwen2, adapter: Adapter) -> LoraSettings:
    """The adapter's settings with an expression that means the same modules under ColQwen2's names.

    The adapter's own expression was written for the names that its library has
    (`model.layers.0…`, `vlm.language_model…`, `embedding_proj_layer`).

    Returns:
        The settings as they are where the expression already means the same; otherwise with the
        modules spelled out.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    meant = [
        name
        for name in names
        if re.fullmatch(adapter.settings.target_modules, adapter.names.original(name))
    ]
    ours = [
        name
        for name, _ in model.named_modules()
        if re.fullmatch(adapter.settings.target_modules, name)
    ]
    if meant == ours or not meant:
        return adapter.settings
    spelled = "|".join(map(re.escape, meant))
    return replace(adapter.settings, target_modules=spelled)


def is_fresh(adapter: Adapter) -> bool:
    """Whether an adapter is as before its first step: every B zero, so that it changes nothing."""
    ups = [tensor for name, tensor in adapter.tensors.items() if ".lora_B." in name]
    return bool(ups) and not any(bool(tensor.any()) for tensor in ups)


def audit_adapter(adapter: Adapter, *, may_be_fresh: bool) -> list[str]:
    """Look for adapters that were never trained, or were damaged.

    Args:
        adapter: As read.
        may_be_fresh: Whether B may be zero, as training starts: where a recorded hash says that it
            was saved so.

    Returns:
        Keys of B that are zero.

    Raises:
        ModelError: It has no tensors; a tensor is not finite or constant; a B is zero that may not
            be.
    """
    where = str(adapter.file)
    if not adapter.tensors:
        raise ModelError(
            "adapter-without-modules",
            "the adapter has no tensors, and would change nothing.",
            where=where,
            received="an empty file",
            expected="lora_A and lora_B of each adapted module",
        )
    zero = []
    for name, tensor in adapter.tensors.items():
        if ".lora_B." in name and tensor.is_floating_point() and not tensor.any():
            zero.append(name)
        else:
            is_constant(adapter.keys[name], tensor, where)
    num_modules = sum(".lora_B." in name for name in adapter.tensors)
    if zero and not may_be_fresh:
        raise ModelError(
            "adapter-untrained",
            "lora_B is zero, as before the first step: the adapter does nothing there.",
            where=f"{where}, {adapter.keys[zero[0]]}",
            received=f"{len(zero)} of {num_modules} lora_B are zero",
            expected="a trained adapter: each lora_B moves with the first step",
            suggestion="save it again after training; a base alone is loaded by its own name",
        )
    return zero


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """The model as it is without its LoRA layers' part; what is trained is left as it was."""
    layers = lora_layers(model).values()
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, requires_grad in trained.items():
            parameter.requires_grad_(requires_grad)
