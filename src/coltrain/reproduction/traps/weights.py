"""Traps of weights: what did not load, or was drawn anew."""

import re
from pathlib import Path

from coltrain.errors import ColtrainError
from coltrain.model.files import PROCESSOR_FILES
from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.calls import Call
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.environment import MAIN_OF_2026, at_main_of_2026
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import claimed
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


def load_error(target: Target) -> ColtrainError | None:
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
        file = Path(error.where or "").name
        if error.code != "no-processor" and file not in PROCESSOR_FILES:
            return error
        if target.kind == "model" and _are_there(error, target.folder):
            raise  # no trap: nothing could encode with it
        target.not_read.append(f"{file}: {error.message} {error.received or ''}".strip())
    except Exception as error:  # what libraries raise for a damaged file has no nearer parent
        target.not_read.append(f"{target.folder.name}: loading it stops ({error})")
    return None


def _are_there(error: ColtrainError, folder: Path) -> bool:
    """Whether the files of a tokenizer or image processor that cannot be read are in the folder."""
    expected = error.expected or ""
    return any((folder / name).is_file() for name in PROCESSOR_FILES if name in expected)


def _part(error: ColtrainError) -> str:
    """adapter, projection or base: what an error of loading is about."""
    text = " ".join(filter(None, (error.where, error.received, error.message)))
    if error.code in _ADAPTER_CODES or "adapter_model" in text or "lora_" in text:
        return "adapter"
    if error.code == "other-projection" or re.search(
        r"projection|custom_text_proj|embedding_proj_layer|linear\.", text
    ):
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
    error = load_error(target)
    if error is None or error.code not in _OF_WEIGHTS or _part(error) != part:
        return None
    found = f"{error.message} {error.received or ''}".strip()
    return failed(found, error.expected or "a model that loads whole", error.where or "")


def adapter_not_loaded(target: Target) -> Outcome:
    """Trap 1: an adapter whose tensors are missing, zero, or named so that nothing takes them."""
    weights = weights_of(target)
    engine = target.facts.value("versions.colpali-engine", Versions())
    transformers = target.facts.value("versions.transformers", Versions())
    by_script = _not_taken(target)
    if by_script is not None:
        return by_script
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


def _not_taken(target: Target) -> Outcome | None:
    """What a script or its printed output says of an adapter that has no effect."""
    if target.printed.adapter:
        name, where = target.printed.adapter[0]
        found = f"peft printed {len(target.printed.adapter)} adapter keys without a partner: {name}"
        return failed(found, "an adapter whose keys all find their module", where)
    for call in target.calls:
        if call.last == "load_state_dict" and call.argument("strict", 1, default=True) is False:
            source = call.argument("state_dict", 0)
            file = (
                source.argument("filename", 0, source.argument("f", 0))
                if isinstance(source, Call)
                else ""
            )
            if "adapter" in str(file):
                return failed(
                    f"load_state_dict(strict=False) of {file}, whose keys lack peft's `.default`",
                    "PeftModel.from_pretrained, or set_peft_model_state_dict",
                    call.where,
                )
    bare = _bare_base(target)
    if bare is not None:
        return bare
    off = target.mention("disable_adapter", "disable_adapter_layers", "unload")
    if off is not None and not target.mentioned("enable_adapter_layers"):
        return failed(f"{off.name}() takes the adapter away", "a model with its adapter", off.where)
    return None


_TRAINS = ("backward", "train", "fit", "get_peft_model", "ColModelTraining", "ContrastiveTrainer")
_ADAPTS = ("PeftModel", "load_adapter", "set_peft_model_state_dict", "load_state_dict")


def _bare_base(target: Target) -> Outcome | None:
    """A script that measures or searches with the base, and never reads an adapter."""
    base = target.facts["model.base"]
    if target.kind != "colpali-engine" or not str(base.value or "").endswith("-base"):
        return None
    reads = any(call.owner in _ADAPTS or call.last in _ADAPTS for call in target.calls)
    measures = target.mentioned("process_queries", "process_texts", "process_images")
    if reads or not measures or target.mentioned(*_TRAINS) or target.facts["lora.r"].is_known:
        return None
    return failed(f"{base.value}, and no adapter is read", "the trained adapter over it", base)


def base_tensors_redrawn(target: Target) -> Outcome:
    """Trap 2: embeddings or norms that were drawn anew, or another base than the one of training."""
    outcome = (
        _of(target, "base")
        or _other_family(target)
        or _printed_as_drawn(target)
        or _drawn_whole(target)
    )
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


_FAMILIES = {
    "ColQwen2": re.compile(r"qwen2-?vl|colqwen2(?![._]?5)", re.IGNORECASE),
    "ColQwen2_5": re.compile(r"(col)?qwen2[._]?5", re.IGNORECASE),
    "ColPali": re.compile(r"pali", re.IGNORECASE),
    "ColIdefics3": re.compile(r"smol|idefics", re.IGNORECASE),
    "ColQwen3": re.compile(r"qwen3", re.IGNORECASE),
}
"""Classes that read a base of one family only, and what its name holds."""


def _other_family(target: Target) -> Outcome | None:
    """A class over another family's base, of whose tensors it takes what fits and draws the rest."""
    base = target.facts["model.base"]
    kind = "ColQwen2" if target.recipe is not None else str(target.facts.value("model.class", ""))
    name = str(base.value or "")
    if target.kind not in ("recipe", "colpali-engine", "model") or kind not in _FAMILIES:
        return None
    if not re.fullmatch(r"[\w-]+/[\w.-]+", name) or name.startswith("models/"):
        return None  # a folder is called as its owner likes
    families = [one for one, pattern in _FAMILIES.items() if pattern.search(name)]
    if not families or kind in families:
        return None
    return failed(f"{kind} over {name}", f"{families[0]}, or a base of {kind}", base)


def _printed_as_drawn(target: Target) -> Outcome | None:
    """Tensors other than the projection that transformers printed as newly initialized."""
    drawn = [one for one in target.printed.drawn if not _of_projection(one[0])]
    if not drawn:
        return None
    found = f"{len(drawn)} tensors newly initialized at loading, first {drawn[0][0]}"
    return failed(found, "none but custom_text_proj", drawn[0][1])


def _drawn_whole(target: Target) -> Outcome | None:
    """A model that a script makes from a configuration, or draws again after loading."""
    again = target.mention("init_weights", "_init_weights")
    if again is not None:
        return failed(
            f"{again.name}() after loading", "the weights as they were loaded", again.where
        )
    for call in target.calls:
        made = call.last in ("_from_config", "from_config") or call.last in _FAMILIES
        if (
            made
            and (call.owner in _FAMILIES or call.last in _FAMILIES)
            and (call.args or call.kwargs)
        ):
            return failed(f"{call.name}: random weights", "from_pretrained", call.where)
    return None


def _of_projection(name: str) -> bool:
    return "custom_text_proj" in name or "embedding_proj_layer" in name or "lora_" in name


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
    saved = " ".join(map(str, facts.value("lora.modules_to_save", []) or []))
    drawn_by = _drawn_by_script(target)
    if drawn_by is not None and "proj" not in saved:
        return drawn_by
    if target.kind not in ("colpali-engine", "model"):
        return passed("this library saves its projection")
    if not facts.knows("model.base"):
        return unknown("which base is trained")
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


def _drawn_by_script(target: Target) -> Outcome | None:
    """A projection that the script draws again, or that transformers printed as drawn."""
    start = target.facts["projection.start"]
    if start.value == "drawn" and target.recipe is None:
        return failed(
            "the script draws the projection again, and the adapter does not hold it",
            "that of vidore/colqwen2-base, or modules_to_save: [custom_text_proj]",
            start,
        )
    drawn = [one for one in target.printed.drawn if "proj" in one[0] and _of_projection(one[0])]
    if drawn:
        return failed(
            f"{drawn[0][0]} newly initialized at loading, and the adapter does not hold it",
            "a base with a projection, such as vidore/colqwen2-base",
            drawn[0][1],
        )
    return None
