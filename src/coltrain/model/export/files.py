"""What several targets write: tensors in shards, configuration, tokenizer and image processor, card."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import PreTrainedConfig, Qwen2VLImageProcessorPil

from coltrain.model.build import BuiltModel
from coltrain.model.card import FORMAT
from coltrain.model.inputs import PIXELS_PER_VISUAL_TOKEN
from coltrain.model.weights import tensor_hashes, write_hashes
from coltrain.model.weights.layouts import CARD


def write_network(
    built: BuiltModel,
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: PreTrainedConfig,
    architecture: str,
) -> None:
    """config.json and safetensors files of at most 5 GB, with an index where there are several.

    Args:
        built: The model; not changed.
        folder: Where to.
        tensors: Under the names of the target.
        config: Of the target; not changed.
        architecture: The class that config.json names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(dict(tensors), folder, max_shard_size="5GB", metadata={"format": "pt"})
    config = copy.deepcopy(config)
    config.architectures = [architecture]
    config.dtype = next(iter(tensors.values())).dtype
    config.save_pretrained(folder)


def write_processor(built: BuiltModel, folder: Path, processor: str) -> None:
    """Tokenizer and image processor, the budget of visual tokens in the latter.

    Args:
        built: The model; not changed.
        folder: Where to.
        processor: Class that transformers' AutoProcessor is to make of them. (colpali-engine and
            transformers both have a ColQwen2Processor, of different templates: the name would
            bring one's prefix into the other's embeddings.)
    """
    tokenizer = copy.deepcopy(built.preparer.tokenizer)
    for leftover in ("local_files_only", "is_local"):  # of how it was loaded here
        tokenizer.init_kwargs.pop(leftover, None)
    tokenizer.save_pretrained(folder)
    image_processor_with_budget(built).save_pretrained(folder)
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        write_json(folder / name, content | {"processor_class": processor})


def image_processor_with_budget(built: BuiltModel) -> Qwen2VLImageProcessorPil:
    """The model's image processor with its budget of visual tokens as a largest size."""
    image_processor = copy.deepcopy(built.preparer.image_processor)
    image_processor.size = {
        "shortest_edge": image_processor.size["shortest_edge"],
        "longest_edge": built.preparer.max_visual_tokens * PIXELS_PER_VISUAL_TOKEN,
    }
    return image_processor


def write_card(built: BuiltModel, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """coltrain.json of a whole network, with the hashes of its tensors beside it.

    Args:
        built: The model that was merged.
        folder: Where to.
        tensors: Under ColQwen2's names.
    """
    card: dict[str, Any] = {
        "format": FORMAT,
        "template": built.preparer.template.model_dump(),
        "max_visual_tokens": built.preparer.max_visual_tokens,
        "merged_from": {
            "base": built.base,
            "base_revision": built.base_revision,
            "base_weights_hash": built.weights_hash,
            "base_rounded_to": name_of(built.rounded_to),
            "projection_hash": built.projection_hash,
        },
    }
    write_json(folder / CARD, card)
    write_hashes(folder, {"model": tensor_hashes(tensors)})


def write_json(file: Path, content: Any) -> None:
    """A JSON file as the libraries write theirs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def name_of(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
