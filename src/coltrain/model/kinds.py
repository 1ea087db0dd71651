"""What kind of value the settings of a model's files have, so that another one is named and not met later."""

from collections.abc import Callable
from typing import Any

Kind = tuple[str, Callable[[Any], bool]]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _are_channels(value: Any) -> bool:
    return _is_number(value) or (
        isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))
    )


WHOLE: Kind = ("a whole number", _is_whole)
ABOVE_ZERO: Kind = ("a whole number above 0", lambda value: _is_whole(value) and value > 0)
NUMBER: Kind = ("a number", _is_number)
TEXT: Kind = ("text", _is_text)
TEXTS: Kind = ("a list of texts", _are_texts)
TEXT_OR_TEXTS: Kind = ("text, or a list of texts", lambda v: _is_text(v) or _are_texts(v))
MAPPING: Kind = ("a JSON object", _is_mapping)
DTYPE: Kind = (
    "float32, bfloat16 or float16",
    lambda value: value in ("float32", "bfloat16", "float16"),
)


def _within(part: str) -> tuple[str, str]:
    return part, f"vlm_config/{part}"


_IMAGES: dict[str, Kind] = {
    "size": MAPPING,
    "size/longest_edge": ABOVE_ZERO,
    "size/shortest_edge": ABOVE_ZERO,
    "size/max_pixels": ABOVE_ZERO,
    "size/min_pixels": ABOVE_ZERO,
    "max_pixels": ABOVE_ZERO,
    "min_pixels": ABOVE_ZERO,
    "patch_size": ABOVE_ZERO,
    "merge_size": ABOVE_ZERO,
    "temporal_patch_size": ABOVE_ZERO,
    "image_mean": ("a number, or three", _are_channels),
    "image_std": ("a number, or three", _are_channels),
    "rescale_factor": NUMBER,
}
_TEXT_MODEL = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "vocab_size",
)
_VISION_MODEL = ("depth", "embed_dim", "hidden_size", "num_heads", "patch_size")
KINDS: dict[str, dict[str, Kind]] = {
    "adapter_config.json": {
        "alpha_pattern": MAPPING,
        "auto_mapping": MAPPING,
        "base_model_name_or_path": TEXT,
        "lora_alpha": NUMBER,
        "lora_dropout": NUMBER,
        "modules_to_save": TEXTS,
        "peft_version": TEXT,
        "r": ABOVE_ZERO,
        "rank_pattern": MAPPING,
        "target_modules": TEXT_OR_TEXTS,
    },
    "coltrain.json": {
        "backbone_dtype": DTYPE,
        "backbone_rounded_to": DTYPE,
        "base": TEXT,
        "base_revision": TEXT,
        "max_visual_tokens": ABOVE_ZERO,
        "projection_dim": ABOVE_ZERO,
        "template": MAPPING,
        "template/name": TEXT,
        "template/page_prompt": TEXT,
        "template/query_prefix": TEXT,
        "template/query_suffix": TEXT,
    },
    "config.json": {
        "architectures": TEXTS,
        "embedding_dim": ABOVE_ZERO,
        "text_config": MAPPING,
        "transformers_version": TEXT,
        "vision_config": MAPPING,
        "vlm_config": MAPPING,
        "vlm_config/text_config": MAPPING,
        "vlm_config/vision_config": MAPPING,
        **{
            f"{part}{key}": ABOVE_ZERO
            for part in ("", *_within("text_config/"))
            for key in _TEXT_MODEL
        },
        **{
            f"{part}{key}": ABOVE_ZERO
            for part in _within("vision_config/")
            for key in _VISION_MODEL
        },
    },
    "config_sentence_transformers.json": {
        "__version__": MAPPING,
        "prompts": MAPPING,
        "prompts/document": TEXT,
        "prompts/query": TEXT,
    },
    "preprocessor_config.json": _IMAGES,
    "processor_config.json": {
        "image_processor": MAPPING,
        "query_prefix": TEXT,
        "visual_prompt_prefix": TEXT,
        **{f"image_processor/{key}": kind for key, kind in _IMAGES.items()},
    },
    "tokenizer_config.json": {"model_max_length": NUMBER, "padding_side": TEXT},
}
"""By file and key; one that is null or left out has its default, and one that is not here is anything."""


def wrong_kind(name: str, content: dict[str, Any]) -> tuple[str, Any, str] | None:
    """The first setting of another kind: its key, the value, and what was expected.

    Args:
        name: Of the file.
        content: What it holds.
    """
    for key, (expected, fits) in KINDS.get(name, {}).items():
        value: Any = content
        for part in key.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not fits(value):
            return key.replace("/", "."), value, expected
    return None
