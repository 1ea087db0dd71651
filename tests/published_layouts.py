"""The tiny ColQwen2 in every published layout, written tensor by tensor as the libraries do.

`tests/reference/test_published_layouts.py` has the libraries write the same; these need none.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coltrain.model.locate import tiny_folder
from coltrain.model.weights import NAMES

RANK, ALPHA = 4, 8
TARGETS = (
    "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$"
    "|.*(custom_text_proj).*$)"
)
_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PROCESSOR = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


def tiny_tensors() -> dict[str, Tensor]:
    """The tiny base's tensors, with a projection whose bias is not zero, so that it counts."""
    tensors = load_file(tiny_folder() / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    tensors["custom_text_proj.bias"] = torch.empty(128).normal_(std=0.1, generator=generator)
    return tensors


def tiny_adapter(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A trained adapter's tensors under ColQwen2's names: LoRA on 14 modules and the projection."""
    generator = torch.Generator().manual_seed(4)
    adapter = {}
    for name, weight in tensors.items():
        module = name.removesuffix(".weight")
        if module.endswith(_LINEARS) or name == "custom_text_proj.weight":
            out_features, in_features = weight.shape
            down = torch.empty(RANK, in_features).normal_(std=1 / RANK, generator=generator)
            up = torch.empty(out_features, RANK).normal_(std=0.02, generator=generator)
            adapter |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    return adapter


def merged(tensors: dict[str, Tensor], adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    """The base's tensors with the adapter in them."""
    found = dict(tensors)
    for key, down in adapter.items():
        if ".lora_A." in key:
            module = key.removesuffix(".lora_A.weight")
            up = adapter[f"{module}.lora_B.weight"]
            found[f"{module}.weight"] = tensors[f"{module}.weight"] + ALPHA / RANK * up @ down
    return found


def _config() -> dict:
    return json.loads((tiny_folder() / "config.json").read_text())


def _processor(folder: Path) -> None:
    for name in _PROCESSOR:
        shutil.copy(tiny_folder() / name, folder)


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_network(
    folder: Path, names: str, tensors: dict[str, Tensor], *, num_shards: int = 1
) -> Path:
    """A whole network, its tensors named as `names` says, in the configuration of that library."""
    folder.mkdir(parents=True)
    _processor(folder)
    renamed = {NAMES[names].original(name): tensor for name, tensor in tensors.items()}
    config = _config()
    if names.startswith("native"):
        config = {
            "architectures": ["ColQwen2ForRetrieval"],
            "model_type": "colqwen2",
            "embedding_dim": 128,
            "vlm_config": config,
        }
    _write_json(folder / "config.json", config)
    if num_shards == 1:
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    places = {}
    for number in range(num_shards):
        part = dict(list(renamed.items())[number::num_shards])
        file = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    _write_json(folder / "model.safetensors.index.json", index)
    return folder


def write_adapter(
    folder: Path, names: str, adapter: dict[str, Tensor], base: str, **config: object
) -> Path:
    """peft's two files."""
    folder.mkdir(parents=True, exist_ok=True)
    renamed = {
        f"base_model.model.{NAMES[names].original(key)}": tensor for key, tensor in adapter.items()
    }
    save_file(renamed, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    content = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": "gaussian",
        "lora_alpha": ALPHA,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": RANK,
        "revision": None,
        "target_modules": TARGETS.replace("custom_text_proj", "embedding_proj_layer")
        if names.startswith("native")
        else TARGETS,
        "task_type": "FEATURE_EXTRACTION",
    }
    _write_json(folder / "adapter_config.json", content | config)
    return folder


_MODULES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "MultiVectorMask": (
        "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"
    ),
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


def write_modules(folder: Path, projection: dict[str, Tensor] | None) -> Path:
    """sentence-transformers' files around what stands in the folder, Dense for the projection."""
    kinds = ["Transformer", "MultiVectorMask"]
    if projection is not None:
        kinds = ["Transformer", "Dense", "MultiVectorMask", "Normalize"]
    modules = []
    for number, kind in enumerate(kinds):
        path = f"{number}_{kind}" if number else ""
        modules.append({"idx": number, "name": str(number), "path": path, "type": _MODULES[kind]})
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "sentence_bert_config.json", {"module_output_name": "token_embeddings"})
    mask = {"skiplist_words": [], "skiplist_tasks": ["document"], "keep_only_token_ids": None}
    _write_json(folder / f"{kinds.index('MultiVectorMask')}_MultiVectorMask/config.json", mask)
    if projection is not None:
        names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        out_features, in_features = projection["weight"].shape
        dense = {
            "in_features": in_features,
            "out_features": out_features,
            "bias": "bias" in projection,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        _write_json(folder / "1_Dense/config.json", dense | names)
        _write_json(folder / "3_Normalize/config.json", names)
        save_file(
            {f"linear.{name}": tensor for name, tensor in projection.items()},
            folder / "1_Dense" / "model.safetensors",
        )
    return folder


def split_projection(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A network's tensors without the projection, and the projection's."""
    projection = {
        name.removeprefix("custom_text_proj."): tensor
        for name, tensor in tensors.items()
        if name.startswith("custom_text_proj.")
    }
    return {name: t for name, t in tensors.items() if "custom_text_proj" not in name}, projection


def _network(names: str, num_shards: int = 1) -> Callable[[Path], Path]:
    return lambda folder: write_network(
        folder, names, merged(tiny_tensors(), tiny_adapter(tiny_tensors())), num_shards=num_shards
    )


def _adapter(names: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        base = "native-5" if names.startswith("native") else "released"
        write_network(folder.parent / f"{folder.name}-base", base, tiny_tensors())
        adapter = tiny_adapter(tiny_tensors())
        return write_adapter(folder, names, adapter, str(folder.parent / f"{folder.name}-base"))

    return write


def _released(folder: Path) -> Path:
    """With the tied output layer and an index, as Qwen2-VL-2B-Instruct has them."""
    tensors = merged(tiny_tensors(), tiny_adapter(tiny_tensors()))
    write_network(folder, "released", tensors)
    file = folder / "model.safetensors"
    found = load_file(file)
    found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()
    file.unlink()
    places = {}
    for number, part in enumerate(
        (dict(list(found.items())[::2]), dict(list(found.items())[1::2]))
    ):
        name = f"model-{number + 1:05d}-of-00002.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return folder


def _flat(folder: Path) -> Path:
    backbone, projection = split_projection(merged(tiny_tensors(), tiny_adapter(tiny_tensors())))
    return write_modules(write_network(folder, "colqwen2", backbone), projection)


def _wrapped(folder: Path) -> Path:
    return write_modules(_network("native-5")(folder), None)


def _flat_adapter(folder: Path) -> Path:
    whole = merged(tiny_tensors(), tiny_adapter(tiny_tensors()))
    _, projection = split_projection(whole)
    backbone, _ = split_projection(tiny_tensors())
    base = write_network(folder.parent / f"{folder.name}-base", "released", backbone)
    adapter = {k: t for k, t in tiny_adapter(tiny_tensors()).items() if "custom_text" not in k}
    write_adapter(folder, "colqwen2", adapter, str(base))
    _processor(folder)
    return write_modules(folder, projection)


# Each writes the same function: the base with the adapter, merged or not.
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "colqwen2": _network("colqwen2"),
    "released, sharded, with lm_head": _released,
    "transformers": _network("transformers"),
    "native-5": _network("native-5"),
    "native-4.53": _network("native-4.53", num_shards=3),
    "native-released": _network("native-released"),
    "adapter of 2024": _adapter("released"),
    "adapter of today": _adapter("colqwen2"),
    "adapter over a whole model": _adapter("transformers"),
    "adapter over native-5": _adapter("native-5"),
    "sentence-transformers, flat": _flat,
    "sentence-transformers, ForRetrieval": _wrapped,
    "sentence-transformers, adapter": _flat_adapter,
}
