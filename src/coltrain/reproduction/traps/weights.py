"""Traps of weights: what did not load, was drawn anew, or is adapted where it should not be."""

import re
from dataclasses import replace
from typing import Any

from coltrain.errors import ColtrainError
from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.environment import MAIN_OF_2026, at_main_of_2026
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import claimed, other_model
from coltrain.reproduction.traps.tensors import weights_of

_NO_PROJECTION = re.compile(r"(^|/)qwen2(\.5|_5)?-?vl-[\w.]*(b|instruct)", re.IGNORECASE)
# What `coltrain.load` refuses, and the trap that it is.
_ADAPTER_CODES = {
    "adapter-does-not-fit",
    "adapter-shape",
    "adapter-untrained",
    "adapter-without-effect",
    "not-a-lora-adapter",
    "unsupported-adapter",
}


def _load_error(target: Target) -> ColtrainError | None:
    """What loading the model says; small models only, once for all checks."""
    if "error" not in target.loaded:
        target.loaded["error"] = _try_to_load(target)
    return target.loaded["error"]


def _try_to_load(target: Target) -> ColtrainError | None:
    weights = weights_of(target)
    if target.folder is None or weights is None or not weights.can_be_loaded:
        return None
    from coltrain.model.retriever import load

    try:
        load(str(target.folder))
    except ColtrainError as error:
        return error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        target.not_read.append(f"{target.folder.name}: loading it stops ({error})")
    return None


def _part(error: ColtrainError) -> str:
    """adapter, projection or base: what an error of loading is about."""
    text = " ".join(filter(None, (error.where, error.received, error.message)))
    if error.code in _ADAPTER_CODES or "adapter_model" in text or "lora_" in text:
        return "adapter"
    if error.code == "other-projection" or re.search(r"projection|custom_text_proj|linear\.", text):
        return "projection"
    return "base"


_OF_WEIGHTS = {
    *_ADAPTER_CODES,
    "broken-model-file",
    "missing-model-file",
    "missing-weight",
    "mixed-layouts",
    "other-base",
    "other-projection",
    "unexpected-weight",
    "unknown-weight",
    "unmapped-key",
    "weight-changed",
    "weight-constant",
    "weight-not-finite",
    "weight-shape",
    "weight-type",
}


def _of(target: Target, part: str) -> Outcome | None:
    error = _load_error(target)
    if error is None or error.code not in _OF_WEIGHTS or _part(error) != part:
        return None
    found = f"{error.message} {error.received or ''}".strip()
    return failed(found, error.expected or "a model that loads whole", error.where or "")


def adapter_not_loaded(target: Target) -> Outcome:
    """Trap 1: an adapter whose tensors are missing, zero, or named so that nothing takes them."""
    weights = weights_of(target)
    engine = target.facts.value("versions.colpali-engine", Versions())
    transformers = target.facts.value("versions.transformers", Versions())
    if weights is None or not weights.is_adapter:
        return (
            passed("no adapter's weights here") if target.kind != "model" else passed("no adapter")
        )
    if not weights.adapter and target.run is None and "coltrain.json" not in target.files:
        return unknown("the adapter's weights, which are not here")
    if not weights.adapter:
        return failed(
            "adapter_config.json without adapter_model.safetensors",
            "both",
            str(weights.folder.name),
        )
    lonely = weights.lonely
    if lonely:
        return failed(
            f"lora_A or lora_B alone: {', '.join(lonely[:3])}", "pairs", weights.adapter_file
        )
    zero = weights.zero_b
    if zero and not weights.is_fresh:
        found = f"{len(zero)} of {len(weights.modules)} lora_B are zero, first {zero[0]}"
        return failed(found, "no lora_B of zero after training", weights.adapter_file)
    if weights.unknown_keys:
        found = f"keys such as {weights.unknown_keys[0]}"
        return failed(found, "base_model.model.….lora_A.weight", weights.adapter_file)
    outcome = _of(target, "adapter")
    if outcome is not None:
        return outcome
    if weights.names == "released" and transformers.all_from(5) and engine.all_before(0, 3, 18):
        found = f"keys of 2024 (model.layers.…) with colpali-engine {engine}, transformers {transformers}"
        return failed(found, "colpali-engine 0.3.18 or later", weights.adapter_file)
    missing = weights.unadapted
    if missing:
        found = f"no tensors for {len(missing)} modules, first {missing[0]}"
        return failed(found, "tensors for all modules of its kind", weights.adapter_file)
    return passed(f"{len(weights.modules)} modules, no lora_B of zero", weights.adapter_file)


def base_tensors_redrawn(target: Target) -> Outcome:
    """Trap 2: embeddings or norms that were drawn anew, or another base than the one of training."""
    outcome = _of(target, "base")
    if outcome is not None:
        return outcome
    facts = target.facts
    engine = facts.value("versions.colpali-engine", Versions())
    transformers = facts.value("versions.transformers", Versions())
    where = f"{facts['versions.colpali-engine'].where}; {facts['versions.transformers'].where}"
    if target.kind == "colpali-engine":
        if at_main_of_2026(target) and not transformers.all_before(5):
            found = f"colpali-engine at {MAIN_OF_2026} with transformers {transformers}"
            return failed(found, "colpali-engine 0.3.18", "the commit that is named")
        if engine.all_from(0, 3, 14) and engine.all_before(0, 3, 18) and transformers.all_from(5):
            found = f"colpali-engine {engine} with transformers {transformers}"
            return failed(found, "colpali-engine 0.3.18, or transformers 4", where)
        if engine.all_from(0, 3, 18) or transformers.all_before(5) or engine.all_before(0, 3, 11):
            return passed(f"colpali-engine {engine}, transformers {transformers}", where)
        return unknown("the versions of colpali-engine and transformers that loaded the base")
    base = _other_base(target)
    if base is not None:
        return base
    weights = weights_of(target)
    if weights is None:
        return passed("no weights here")
    drawn = weights.redrawn
    if drawn:
        return failed(drawn, "the base's own values", weights.network_file)
    if weights.missing:
        found = f"no {weights.missing[0]}"
        return failed(found, "every tensor of Qwen2-VL", weights.network_file)
    return passed("every tensor that is here is the file's", weights.network_file)


def _other_base(target: Target) -> Outcome | None:
    """A run whose model names another base than its recipe, or weights of another hash."""
    card = target.files.get("coltrain.json") if isinstance(target.files, dict) else None
    if target.run is None or not card:
        return None
    for key, recorded in (
        ("base", target.run.fact("recipe.model.base")),
        ("base_weights_hash", target.run.fact("base_weights_hash")),
    ):
        if recorded is not None and key in card and card[key] != recorded:
            return failed(
                f"{key} {card[key]}", f"{recorded}, as run.json says", "model/coltrain.json"
            )
    adapter = target.files.get("adapter_config.json") or {}
    named = adapter.get("base_model_name_or_path")
    if named and named != card.get("base"):
        return failed(f"base {named}", card.get("base"), "model/adapter_config.json")
    return None


def projection_redrawn(target: Target) -> Outcome:
    """Trap 3: a projection that is random in the base and not saved with the adapter."""
    outcome = _of(target, "projection")
    if outcome is not None:
        return outcome
    facts = target.facts
    base = str(facts.value("model.base", ""))
    weights = weights_of(target)
    if target.run is not None:
        recorded = target.run.fact("projection_hash")
        card = (target.files or {}).get("coltrain.json") or {}
        if recorded and card.get("projection_hash") not in (None, recorded):
            return failed(
                f"projection {card['projection_hash']}",
                f"{recorded}, as run.json says",
                "model/coltrain.json",
            )
    if weights is not None and weights.is_adapter:
        if weights.saves_projection:
            return passed("the projection is saved with the adapter", weights.folder.name)
        if weights.base_has_projection is False:
            return failed(
                f"the base {base} has no custom_text_proj, and the folder saves none",
                "a base with a projection, or the projection in the folder",
                facts["model.base"],
            )
    if weights is not None and not weights.is_adapter and weights.layout != "unknown":
        if not weights.has_projection:
            return failed(
                "no projection among the tensors", "custom_text_proj", weights.network_file
            )
        return passed("the projection is among the tensors", weights.network_file)
    if target.recipe is not None:
        projection = target.recipe.projection
        drawn = projection.start == "normal"
        if drawn and ("colqwen2" in base.lower() or base == "tiny"):
            return failed(
                f"a projection that is drawn, though {base} has one",
                "projection.start: from_base",
                facts["projection.start"],
            )
        if not drawn and _NO_PROJECTION.search(base):
            return failed(
                f"{base} has no projection to take", "vidore/colqwen2-base", facts["model.base"]
            )
        name = claimed(target)
        if drawn and name is not None:
            return failed(
                "a drawn projection, another one with every seed",
                "from_base: that of vidore/colqwen2-base",
                facts["projection.start"],
            )
        if drawn and projection.train == "frozen":
            return failed(
                "a drawn projection that never learns", "lora or full", "projection.train"
            )
        return passed("the projection is saved in full with its hash", "projection")
    if target.kind not in ("colpali-engine", "model"):
        return passed("this library saves its projection")
    if not facts.knows("model.base"):
        return unknown("which base is trained")
    saved = " ".join(map(str, facts.value("lora.modules_to_save", []) or []))
    adapter = (target.files or {}).get("adapter_config.json") or {}
    named = str(adapter.get("base_model_name_or_path") or "")
    if _NO_PROJECTION.search(named) and "proj" not in saved:
        return failed(
            f"the adapter names {named}, which has no custom_text_proj",
            "vidore/colqwen2-base",
            "adapter_config.json, base_model_name_or_path",
        )
    if _NO_PROJECTION.search(base) and "proj" not in saved:
        full = facts["lora.r"].is_known and facts.value("lora.r") is None
        if not full:
            return failed(
                f"{base} has no custom_text_proj: a random one is drawn, and the adapter does not "
                "hold it",
                "vidore/colqwen2-base, or modules_to_save: [custom_text_proj]",
                facts["model.base"],
            )
    return passed(f"base {base}", facts["model.base"].where)


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


def lora_elsewhere(target: Target) -> Outcome:
    """Trap 27: an adapter on the vision tower, or none on the projection or the language model."""
    facts = target.facts
    error = _load_error(target)
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
        found = adapted(targets.value, names)
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
        if weights_in in ("bfloat16", "float16") and not call.has("autocast_adapter_dtype"):
            found = f"PeftModel reads the adapter as float32 over a base in {weights_in}"
            return failed(
                found, "autocast_adapter_dtype=False, or one loader throughout", call.where
            )
    return passed("one loader")


def _is_trained(name: str) -> bool:
    return bool(re.search(r"-v\d|checkpoint|adapter|out|lora", name)) and "base" not in name
