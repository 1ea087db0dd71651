"""Facts of a model's folder: whose form it has, its adapter, base, template and pixel budget."""

import json
from pathlib import Path
from typing import Any

from coltrain.model.files import PROCESSOR_FILES
from coltrain.model.files import read_json as read_whole
from coltrain.model.kinds import wrong_kind
from coltrain.recipe.wording import shown
from coltrain.reproduction.targets.facts import UNKNOWN, Facts
from coltrain.reproduction.targets.huggingface import lora_config, precision
from coltrain.reproduction.targets.versions import put_version, read_requirements

MARKS = ("adapter_config.json", "coltrain.json", "modules.json", "config.json")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def is_model(folder: Path) -> bool:
    """Whether a folder looks like a model's, of any library."""
    return any((folder / name).is_file() for name in MARKS)


def read_json(file: Path, not_read: list[str]) -> Any:
    """A JSON file's content; an empty mapping, and a word, where it is none or not of its kind."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        not_read.append(f"{file.name}: {error}")
        return {}
    wrong = wrong_kind(file.name, content) if isinstance(content, dict) else None
    if wrong is not None:
        key, value, expected = wrong
        not_read.append(f"{file.name}: {key} {shown(value)}, where {expected} was expected")
        return {}
    return content


def put_model(
    folder: Path, facts: Facts, read: list[str], not_read: list[str]
) -> dict[str, dict[str, Any]]:
    """Add what a model's folder says; returns its configuration files by name."""
    files = {
        file.name: read_json(file, not_read)
        for file in sorted(folder.glob("*.json"))
        if file.stat().st_size < 2_000_000 and file.name not in ("tokenizer.json", "vocab.json")
    }
    for name in [one for one in files if not _has_its_kind(one, files[one])]:
        kind = "a list" if isinstance(files[name], list) else repr(files[name])[:40]
        del files[name]
        not_read.append(f"{name}: {kind}, where names and values were expected")
    read += [f"{name}: configuration" for name in files if files[name] and name != "run.json"]
    card, adapter = files.get("coltrain.json"), files.get("adapter_config.json")
    config = files.get("config.json") or {}
    facts.put("model.layout", layout(files), str(folder.name))
    if card:
        _card(card, facts)
    if adapter:
        lora_config(adapter, "adapter_config.json", facts)
        base = adapter.get("base_model_name_or_path") or UNKNOWN
        facts.put("model.base", base, "adapter_config.json, base_model_name_or_path")
        wrapped = (adapter.get("auto_mapping") or {}).get("base_model_class")
        if wrapped:
            facts.put("model.class", wrapped, "adapter_config.json, auto_mapping")
        facts.put("model.revision", adapter.get("revision"), "adapter_config.json, revision")
        put_version(
            facts, "peft", str(adapter.get("peft_version", "")), "adapter_config.json, peft_version"
        )
    elif config:
        facts.put("lora.r", None, "config.json: no adapter", "derived")
    _config(config, facts)
    _processor(files, facts)
    for name in ("README.md", "requirements.txt"):
        file = folder / name
        if file.is_file():
            read_requirements(file.read_text(encoding="utf-8", errors="replace"), name, facts)
            read.append(f"{name}: versions")
    return files


def _has_its_kind(name: str, content: Any) -> bool:
    return isinstance(content, list if name == "modules.json" else dict)


def refuse_broken(folder: Path) -> None:
    """Stop at a configuration file from which no library could load the model.

    Raises:
        ModelError: It is no JSON, or JSON of another kind.
    """
    for name in (*MARKS, *PROCESSOR_FILES):
        if (folder / name).is_file():
            read_whole(folder / name, list if name == "modules.json" else dict)


def layout(files: dict[str, Any]) -> Any:
    """The library whose form a folder has, as `docs/reference/layouts.md` names it."""
    if "coltrain.json" in files:
        return "coltrain-merged" if "config.json" in files else "coltrain"
    if "modules.json" in files:
        return "sentence-transformers"
    if "adapter_config.json" in files:
        return "adapter"
    kind = (files.get("config.json") or {}).get("model_type")
    return {"colqwen2": "transformers-native", "qwen2_vl": "colqwen2"}.get(kind, UNKNOWN)


def _card(card: dict[str, Any], facts: Facts) -> None:
    def put(name: str, key: str) -> None:
        if key in card:
            facts.put(name, card[key], f"coltrain.json, {key}")

    put("model.base", "base")
    put("model.revision", "base_revision")
    put("pixels.max_visual_tokens", "max_visual_tokens")
    put("precision.weights", "backbone_dtype")
    template = card.get("template") or {}
    for key in ("name", "query_prefix", "query_suffix", "page_prompt"):
        if key in template:
            facts.put(f"template.{key}", template[key], f"coltrain.json, template.{key}")


def _config(config: dict[str, Any], facts: Facts) -> None:
    inner = config.get("vlm_config") or config
    dtype = config.get("torch_dtype") or config.get("dtype") or inner.get("torch_dtype")
    if dtype:
        facts.put("precision.weights", precision(dtype), "config.json, dtype")
    if config.get("architectures"):
        facts.put("model.class", config["architectures"][-1], "config.json, architectures")
    version = config.get("transformers_version")
    if version:
        put_version(facts, "transformers", version, "config.json, transformers_version")


def _processor(files: dict[str, Any], facts: Facts) -> None:
    for name in _PROCESSOR_FILES:
        content = files.get(name) or {}
        content = content.get("image_processor", content)
        size = content.get("size") or {}
        for key, value in (
            ("size.longest_edge", size.get("longest_edge")),
            ("size.max_pixels", size.get("max_pixels")),
            ("max_pixels", content.get("max_pixels")),
        ):
            if isinstance(value, int):
                facts.put("pixels.longest_edge", value, f"{name}, {key}")
    tokenizer = files.get("tokenizer_config.json") or {}
    if isinstance(tokenizer, dict) and "padding_side" in tokenizer:
        side = tokenizer["padding_side"]
        facts.put("template.padding_side", side, "tokenizer_config.json, padding_side")
    for name in ("processor_config.json", "preprocessor_config.json"):
        content = files.get(name) or {}
        for key, fact in (
            ("query_prefix", "template.query_prefix"),
            ("visual_prompt_prefix", "template.page_prompt"),
        ):
            if key in content:
                facts.put(fact, content[key], f"{name}, {key}")
