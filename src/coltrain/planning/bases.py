"""The configurations that can be planned for without a network: shapes only, no weights."""

from pathlib import Path

from transformers import Qwen2VLConfig

from coltrain.errors import UsageError
from coltrain.model.locate import TINY, tiny_folder
from coltrain.model.weights import read_config

# config.json of Qwen/Qwen2-VL-2B-Instruct, as far as it decides shapes and positions.
QWEN2_VL_2B = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 1536,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
KNOWN = (
    "vidore/colqwen2-base",
    "Qwen/Qwen2-VL-2B",
    "Qwen/Qwen2-VL-2B-Instruct",
)


def base_config(base: str) -> Qwen2VLConfig:
    """The configuration of a base, by name or folder; nothing is downloaded.

    Raises:
        UsageError: The base is neither known here nor a folder.
        ModelError: The folder's config.json is missing, broken, or of another model.
    """
    if base in KNOWN:
        return Qwen2VLConfig.from_dict(QWEN2_VL_2B)
    folder = tiny_folder() if base == TINY else Path(base).expanduser()
    if not folder.is_dir():
        raise UsageError(
            "unknown-base-to-plan",
            "a plan needs the base's configuration, and this one is not known here.",
            where="model.base",
            received=base,
            expected=f"{', '.join(KNOWN)}, tiny, or a folder with config.json",
            suggestion="download its config.json alone and name that folder: model.base=./folder",
        )
    return read_config(folder)


def reduced(config: Qwen2VLConfig, num_layers: int, depth: int) -> Qwen2VLConfig:
    """The same configuration with fewer layers in both towers."""
    fields = config.to_dict()
    fields["text_config"] |= {"num_hidden_layers": num_layers}
    fields["text_config"].pop("layer_types", None)
    fields["text_config"].pop("max_window_layers", None)
    fields["vision_config"] |= {"depth": depth}
    return Qwen2VLConfig.from_dict(fields)
