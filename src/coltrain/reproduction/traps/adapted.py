"""Traps of the adapter: where it sits, and in which precision it is stored and read."""

import re
from dataclasses import replace
from typing import Any

from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import other_model
from coltrain.reproduction.traps.tensors import weights_of
from coltrain.reproduction.traps.weights import load_error

# Qwen2-VL-2B: 28 layers with 7 linear ones, 32 blocks of vision, a merger, the projection.
_LINEAR = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
_VISION = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def modules(layout: str) -> list[str]:
    """Names of Qwen2-VL-2B's linear layers: `new` (transformers 5), `old` (4), or `native`."""
    prefix, projection, vision = {
        "new": ("language_model.layers", "custom_text_proj", "visual"),
        "old": ("model.layers", "custom_text_proj", "visual"),
        "native": ("vlm.language_model.layers", "embedding_proj_layer", "vlm.visual"),
    }[layout]
    names = [f"{prefix}.{layer}.{one}" for layer in range(28) for one in _LINEAR]
    names += [f"{vision}.blocks.{block}.{one}" for block in range(32) for one in _VISION]
    return [*names, f"{vision}.merger.mlp.0", f"{vision}.merger.mlp.2", projection]


def modules_2_5() -> list[str]:
    """Names of Qwen2.5-VL-3B's linear layers: its vision tower has gates as the language model has.

    Source:
        transformers 5, `models/qwen2_5_vl/modeling_qwen2_5_vl.py`: Qwen2_5_VLMLP in each vision block.
    """
    names = [f"language_model.layers.{layer}.{one}" for layer in range(36) for one in _LINEAR]
    vision = ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    names += [f"visual.blocks.{block}.{one}" for block in range(32) for one in vision]
    return [*names, "visual.merger.mlp.0", "visual.merger.mlp.2", "custom_text_proj"]


def _vision_of_2_5(target: Target) -> Outcome | None:
    """A list of names, or an expression, that reaches the vision tower of Qwen2.5-VL."""
    base = str(target.facts.value("model.base", "")).lower()
    kind = str(target.facts.value("model.class", "")).lower()
    targets = target.facts["lora.target_modules"]
    if not re.search(r"qwen2[._]5", base + " " + kind) or not targets.is_known:
        return None
    found = [one for one in _kept(adapted(targets.value, modules_2_5()), target) if "visual" in one]
    if not found:
        return None
    text = f"{len(found)} modules of Qwen2.5-VL's vision tower, first {found[0]}"
    return failed(text, "none: an expression with (?!.*visual)", targets)


def adapted(targets: Any, names: list[str]) -> list[str]:
    """The modules that peft adapts: a whole match of an expression, or an ending from a list."""
    if isinstance(targets, str):
        if targets == "all-linear":
            return names
        try:
            pattern = re.compile(targets)
        except re.error:
            return []
        return [name for name in names if pattern.fullmatch(name)]
    endings = [str(one) for one in targets or []]
    return [n for n in names if any(n == end or n.endswith(f".{end}") for end in endings)]


def _kept(names: list[str], target: Target) -> list[str]:
    """Without the layers and modules that peft is told to leave out."""
    layers, excluded = target.facts.value("lora.layers"), target.facts.value("lora.excluded")
    if isinstance(layers, int | list):
        numbers = {str(one) for one in (layers if isinstance(layers, list) else [layers])}
        names = [
            one for one in names if not (m := re.search(r"layers\.(\d+)\.", one)) or m[1] in numbers
        ]
    if excluded:
        without = set(adapted(excluded, names))
        names = [one for one in names if one not in without]
    return names


def lora_elsewhere(target: Target) -> Outcome:
    """Trap 27: an adapter on the vision tower, or none on the projection or the language model."""
    facts = target.facts
    error = load_error(target)
    if error is not None and error.code in ("no-lora-target", "adapter-without-modules"):
        return failed(error.received or error.message, error.expected or "", error.where or "")
    weights = weights_of(target)
    if weights is not None and weights.is_adapter and weights.modules:
        outside = [name for name in weights.modules if "visual" in name]
        if outside:
            found = f"{len(outside)} modules of the vision tower, first {outside[0]}"
            return failed(found, "none", weights.adapter_file)
        if weights.layout == "adapter" and not any(
            "custom_text_proj" in n or "embedding_proj" in n for n in weights.modules
        ):
            return failed("no tensors for the projection", "custom_text_proj", weights.adapter_file)
    if target.run is not None:
        inside = target.run.fact("parameters.lora_modules_in_vision_tower", 0)
        if inside:
            return failed(f"{inside} modules of the vision tower", "0", "run.json, parameters")
    if facts["lora.r"].is_known and facts.value("lora.r") is None:
        return passed("no adapter")
    reached = _vision_of_2_5(target)
    if reached is not None:
        return reached
    if (other := other_model(target)) is not None:
        return unknown(f"which modules of {other} are to be adapted: only ColQwen2's are known")
    targets = facts["lora.target_modules"]
    if not targets.is_known:
        return unknown("which modules the adapter is on")
    if target.kind in ("sentence-transformers", "pylate", "transformers"):
        layouts = ["new"]
    else:
        layouts = ["new", "native"] if target.kind == "model" else ["new"]
    engine = facts.value("versions.colpali-engine", Versions())
    if engine.all_before(0, 3, 11):
        layouts = ["old"]
    saved = " ".join(map(str, facts.value("lora.modules_to_save") or []))
    trains_projection = "custom_text_proj" in saved or "embedding_proj_layer" in saved
    trains_projection |= str(facts.value("model.class", "")).startswith("BiQwen2")  # it has none
    if target.recipe is not None:
        trains_projection = target.recipe.projection.train == "full"
        frozen = target.recipe.projection.train == "frozen"
        trains_projection = trains_projection or frozen
    counts = []
    for layout in layouts:
        names = modules(layout)
        found = _kept(adapted(targets.value, names), target)
        vision = sum("visual" in one for one in found)
        projection = sum(one == names[-1] for one in found)
        counts.append((len(found) - vision - projection, vision, projection))
    language, vision, projection = max(counts)
    text = f"{language} of 196 in the language model, {vision} in the vision tower, {projection} of 1 projection"
    if target.kind in ("sentence-transformers", "pylate"):
        projection = 1  # its Dense layer is trained whole
    if vision or language != 196 or not (projection or trains_projection):
        outcome = failed(text, "196, 0 and 1", targets)
        return replace(outcome, blocks=bool(language or vision or projection))
    return passed(text, targets.where)


def adapter_dtype_at_load(target: Target) -> Outcome:
    """Trap 17: an adapter that is stored or read in another precision than it was trained in."""
    weights = weights_of(target)
    if weights is not None and weights.is_adapter and weights.adapter:
        kinds = sorted(weights.adapter_dtypes)
        if len(kinds) > 1:
            return failed(f"tensors in {', '.join(kinds)}", "one type", weights.adapter_file)
        half = {"bfloat16", "float16"} & set(kinds)
        kept = str((target.files.get("coltrain.json") or {}).get("backbone_dtype", ""))
        if half and kept == "float32":
            found = f"an adapter in {kinds[0]} over a base that is kept in {kept}"
            return failed(found, "float32, as trained", weights.adapter_file)
        if "float16" in kinds and not kept:
            return failed("an adapter in float16", "bfloat16 or float32", weights.adapter_file)
        if target.run is not None:
            trained = sorted((target.run.fact("parameters.by_dtype.trainable", {}) or {}).keys())
            if trained and kinds and kinds[0] not in trained:
                return failed(
                    f"stored in {kinds[0]}",
                    f"{', '.join(trained)}, as trained",
                    weights.adapter_file,
                )
    places = []
    for call in target.calls:
        if call.last != "from_pretrained":
            continue
        name = call.argument("pretrained_model_name_or_path", 1 if call.owner == "PeftModel" else 0)
        is_trained = isinstance(name, str) and _is_trained(name)
        if call.owner == "PeftModel" or (
            call.owner.startswith("Col") and "Processor" not in call.owner and is_trained
        ):
            places.append((call.owner, call.where))
    owners = {owner for owner, _ in places}
    if "PeftModel" in owners and len(owners) > 1:
        found = "read by " + " and by ".join(f"{owner} ({where})" for owner, where in places)
        return failed(found, "one loader, with the adapter's type stated", places[0][1])
    if "PeftModel" in owners:
        call = next(
            c for c in target.calls if c.last == "from_pretrained" and c.owner == "PeftModel"
        )
        weights_in = target.facts.value("precision.weights")
        name = str(call.argument("model_id", 1, ""))
        if not name.startswith("vidore/"):
            return unknown(f"in what the adapter {name or ''} was trained: PeftModel reads float32")
        if weights_in in ("bfloat16", "float16") and not call.has("autocast_adapter_dtype"):
            found = f"PeftModel reads {name} as float32 over a base in {weights_in}"
            return failed(
                found, "autocast_adapter_dtype=False, or one loader throughout", call.where
            )
    return passed("one loader")


def _is_trained(name: str) -> bool:
    return bool(re.search(r"-v\d|checkpoint|adapter|out|lora", name)) and "base" not in name
