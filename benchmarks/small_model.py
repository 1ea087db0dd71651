"""The model, the batch and the other libraries' twins that benchmarks of the training step share.

A random ColQwen2 of transformers' real classes with the proportions of Qwen2-VL-2B, so that the
vision tower's share of a forward pass is about the real one (.72 at 768 visual tokens), and a
batch of uneven pages without images: pixel values are drawn, so that nothing is decoded.
"""

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig

from coltrain.model.adapter import ADAPTER_NAME, LoraSettings, add_lora, lora_layers
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.inputs import Inputs
from coltrain.model.positions import page_positions, text_positions
from coltrain.model.retriever import load
from coltrain.model.tiny.architecture import VOCABULARY_SIZE, tiny_config
from coltrain.recipe import LossSection, load_recipe
from coltrain.training.gradient_cache import BatchLoss, Chunk
from coltrain.training.objective import objective

# Rows and columns of visual tokens: 768, 600, 420 and 300. In a padded batch of one each, 32 % of
# the tokens are padding (facts of the field have no table of real lengths; these are uneven).
GRIDS = [(32, 24), (30, 20), (21, 20), (20, 15)]
# 768, 690, 616 and 546, of which a padded batch wastes half as much.
EVEN_GRIDS = [(32, 24), (30, 23), (28, 22), (26, 21)]
BEFORE, AFTER = 4, 11  # tokens of a page's prompt around its visual tokens
TEMPERATURE = 0.02


def small_config() -> Qwen2VLConfig:
    """Vision 320 wide, 4 heads, 4 layers; language model 384 wide, 6 heads, 2 of keys, 4 layers."""
    config = tiny_config().to_dict()
    config["text_config"] |= {
        "hidden_size": 384,
        "intermediate_size": 2240,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "initializer_range": 0.02,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [8, 12, 12],
        },
    }
    del config["text_config"]["layer_types"]
    config["vision_config"] |= {
        "depth": 4,
        "embed_dim": 320,
        "hidden_size": 384,
        "num_heads": 4,
        "initializer_range": 0.02,
    }
    return Qwen2VLConfig.from_dict(config)


def lora_settings(dropout: float) -> LoraSettings:
    """The published recipe's."""
    targets = load_recipe("colqwen2-v1.0").lora.target_modules
    return LoraSettings(r=32, alpha=32.0, dropout=dropout, target_modules=targets)


def small_model(dropout: float = 0.1, *, checkpointing: bool = True) -> ColQwen2:
    """Random weights under a LoRA adapter that is not zero, as if trained."""
    torch.manual_seed(0)
    model = ColQwen2(small_config())
    add_lora(model, lora_settings(dropout), seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in lora_layers(model).values():
        layer.lora_B[ADAPTER_NAME].weight.data.normal_(std=0.02, generator=generator)
    if checkpointing:
        model.checkpoint_activations()
    return model


@dataclass(frozen=True)
class SmallBatch:
    """Queries and pages of different lengths, each as token ids; pages with their patches.

    Attributes:
        queries: Token ids of each.
        pages: Token ids of each.
        grids: Rows and columns of visual tokens of each page.
        patches: Of each page, patches x numbers of a patch.
    """

    queries: list[Tensor]
    pages: list[Tensor]
    grids: list[tuple[int, int]]
    patches: list[Tensor]

    @property
    def num_page_tokens(self) -> int:
        """Real ones."""
        return sum(map(len, self.pages))

    @property
    def num_query_tokens(self) -> int:
        """Real ones."""
        return sum(map(len, self.queries))


def small_batch(size: int, grids: list[tuple[int, int]] = GRIDS, seed: int = 0) -> SmallBatch:
    """A batch of `size` queries with their pages, which take the grids in turn."""
    draws = np.random.default_rng(seed)
    config = tiny_config()
    words = lambda count: torch.from_numpy(draws.integers(10, VOCABULARY_SIZE, count))  # noqa: E731
    chosen = [grids[number % len(grids)] for number in range(size)]
    pages, patches = [], []
    for rows, columns in chosen:
        image = torch.full((rows * columns,), config.image_token_id)
        pages.append(torch.cat([words(BEFORE), image, words(AFTER)]))
        shape = (4 * rows * columns, 3 * 2 * 14 * 14)
        patches.append(torch.from_numpy(draws.standard_normal(shape, np.float32)))
    queries = [words(int(length)) for length in draws.integers(18, 37, size)]
    return SmallBatch(queries, pages, chosen, patches)


def pad(rows: list[Tensor], *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token ids and mask, padded to the longest."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        place = slice(width - len(row), None) if left else slice(len(row))
        ids[number, place], mask[number, place] = row, True
    return ids, mask


def chunks(batch: SmallBatch, chunk_size: int) -> list[Chunk]:
    """The batch as coltrain's chunks: queries, then pages."""
    made = []
    for side, rows in (("query", batch.queries), ("page", batch.pages)):
        for start in range(0, len(rows), chunk_size):
            part = slice(start, start + chunk_size)
            numbers = range(start, start + len(rows[part]))
            ids, mask = pad(rows[part])
            positions = torch.zeros(3, *ids.shape, dtype=torch.int64)
            for place, number in enumerate(numbers):
                own = text_positions(len(rows[number]))
                if side == "page":
                    own = page_positions(BEFORE, *batch.grids[number], AFTER)
                positions[:, place, : own.shape[1]] = own
            pixels = {}
            if side == "page":
                pixels["pixel_values"] = torch.cat(batch.patches[part])
                pixels["grid_thw"] = patch_grids(batch.grids[part])
            inputs = Inputs(ids, mask, positions, **pixels)
            made.append(Chunk(side, tuple(map(str, numbers)), inputs))
    return made


def patch_grids(grids: list[tuple[int, int]]) -> Tensor:
    """Patches of each page along time, height and width."""
    return torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in grids])


def batch_loss(size: int, *, padding: str = "masked") -> BatchLoss:
    """Cross-entropy over the batch, normalised, temperature 0.02."""
    settings = LossSection(name="softmax", temperature=TEMPERATURE, normalize=True, padding=padding)
    return objective(settings, np.zeros((size, size), dtype=bool))


def engine_model(model: ColQwen2, dropout: float) -> nn.Module:
    """colpali-engine's ColQwen2 with the same weights and the same adapter, through peft."""
    from colpali_engine.models.qwen2 import colqwen2
    from peft import LoraConfig, PeftModel

    settings = lora_settings(dropout)
    theirs = colqwen2.ColQwen2(copy.deepcopy(model.config))
    wrapped = PeftModel(
        theirs,
        LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha,
            lora_dropout=dropout,
            bias="none",
            target_modules=settings.target_modules,
        ),
    )
    # Ours holds the adapter in place; theirs has the same modules inside the wrapper.
    _, unexpected = wrapped.base_model.model.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected, unexpected
    return wrapped


def engine_batch(batch: SmallBatch) -> dict[str, Any]:
    """The batch as the engine's collator hands it over: padded on the left, pixels padded too."""
    inputs = {}
    for prefix, rows in (("query_", batch.queries), ("doc_", batch.pages)):
        ids, mask = pad(rows, left=True)
        inputs |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask.long()}
    inputs["doc_pixel_values"] = nn.utils.rnn.pad_sequence(batch.patches, batch_first=True)
    inputs["doc_image_grid_thw"] = patch_grids(batch.grids)
    # The processor of transformers 5 says which tokens are an image's, for M-RoPE.
    inputs["doc_mm_token_type_ids"] = (
        inputs["doc_input_ids"] == tiny_config().image_token_id
    ).long()
    return inputs


def sentence_transformers_model(model: ColQwen2, dropout: float) -> nn.Module:
    """sentence-transformers' flat Qwen2-VL and Dense, same weights and adapter, through peft."""
    from peft import LoraConfig, inject_adapter_in_model
    from sentence_transformers import MultiVectorEncoder

    from coltrain.model.export import sentence_transformers

    plain = ColQwen2(small_config())
    weights = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    plain.load_state_dict(weights)
    built = replace(load("tiny").built, model=plain)
    with tempfile.TemporaryDirectory() as folder:
        sentence_transformers.write(built, Path(folder), torch.float32)
        theirs = MultiVectorEncoder(folder, device="cpu")
    settings = lora_settings(dropout)
    targets = {theirs[0].model: settings.target_modules, theirs[1]: "linear"}
    for module, expression in targets.items():
        config = LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha,
            lora_dropout=dropout,
            bias="none",
            target_modules=expression,
        )
        inject_adapter_in_model(config, module)
    ours = lora_layers(model)
    with torch.no_grad():
        for name, layer in lora_layers(theirs).items():
            _, _, inner = name.partition("language_model.")
            own = ours[f"language_model.{inner}" if inner else "custom_text_proj"]
            for part in ("lora_A", "lora_B"):
                weight = getattr(layer, part)[ADAPTER_NAME].weight
                weight.copy_(getattr(own, part)[ADAPTER_NAME].weight)
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    return theirs


def sentence_transformers_columns(batch: SmallBatch) -> list[dict[str, Any]]:
    """The batch as its collator hands it over: flat pixels, padding on the right."""
    columns = []
    for rows, task, modality in (
        (batch.queries, "query", "text"),
        (batch.pages, "document", "image"),
    ):
        ids, mask = pad(rows)
        column = {"input_ids": ids, "attention_mask": mask.long()}
        columns.append(column | {"task": task, "modality": modality})
    columns[1] |= {
        "pixel_values": torch.cat(batch.patches),
        "image_grid_thw": patch_grids(batch.grids),
        "mm_token_type_ids": (columns[1]["input_ids"] == tiny_config().image_token_id).long(),
    }
    return columns
