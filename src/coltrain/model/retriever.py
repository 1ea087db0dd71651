"""Pages and queries in, multi-vector embeddings out."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from coltrain.errors import ModelError
from coltrain.model.adapter import add_lora, load_adapter_weights, read_adapter
from coltrain.model.build import BuiltModel, load_preparer
from coltrain.model.card import is_model_folder
from coltrain.model.folder import load_model_folder
from coltrain.model.inputs import Inputs
from coltrain.model.locate import TINY, locate_model
from coltrain.model.weights import load_backbone
from coltrain.recipe import Template, template_named

DEFAULT_TEMPLATE = "engine-0.3.12"  # what colqwen2-v1.0 and later ones were trained with
DEFAULT_MAX_VISUAL_TOKENS = 768  # colpali-engine's README: the published models


class Retriever:
    """A model that encodes pages and queries.

    On a CPU each item is encoded alone and unpadded, so that its embedding does not depend on its
    neighbours.

    Args:
        built: A model with its template.
    """

    def __init__(self, built: BuiltModel) -> None:
        self.built = built

    def encode_pages(
        self,
        images: Iterable[Image.Image],
        on_item: Callable[[], None] | None = None,
    ) -> list[Tensor]:
        """One tensor of tokens x dim for each page: float32 unit vectors, unpadded, on the CPU.

        Args:
            images: Pages of any mode; an alpha channel is dropped, as colpali-engine does.
            on_item: Called after each page.
        """
        preparer, device = self.built.preparer, self.built.model.device
        embeddings = []
        for image in images:
            inputs = preparer.collate_pages([preparer.prepare_page(image)]).to(device)
            with torch.inference_mode():
                visual_tokens = self.built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            embeddings.append(self._encode(inputs, visual_tokens))
            if on_item is not None:
                on_item()
        return embeddings

    def encode_queries(
        self, texts: Iterable[str], on_item: Callable[[], None] | None = None
    ) -> list[Tensor]:
        """One tensor of tokens x dim for each query, the template's suffix included."""
        embeddings = []
        for text in texts:
            inputs = self.built.preparer.collate_queries([text]).to(self.built.model.device)
            embeddings.append(self._encode(inputs, None))
            if on_item is not None:
                on_item()
        return embeddings

    def query_ids(self, text: str) -> list[int]:
        """The token ids that a query becomes."""
        return self.built.preparer.query_ids(text)

    def _encode(self, inputs: Inputs, visual_tokens: Tensor | None) -> Tensor:
        with torch.inference_mode():
            embedding = self.built.model(
                inputs.input_ids, inputs.mask, inputs.position_ids, visual_tokens
            )
        return embedding[0].cpu().clone()


def load(
    model: str | Path,
    *,
    revision: str | None = None,
    template: str | None = None,
    max_visual_tokens: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Retriever:
    """Load a model to encode with.

    Args:
        model: `tiny`, a run, a model folder of coltrain's, a base with its projection, or a
            published adapter; by folder or hub name.
        revision: Of a hub model.
        template: The strings around queries and pages. A model of coltrain's has its own and is
            not read with others; a base or a published adapter gets the one of the published
            models after v0.1.
        max_visual_tokens: Budget of a page; a model's card says its own, otherwise 768.
        dtype: Type of the weights; None keeps the card's, or float32.
        device: Where it computes.

    Returns:
        A retriever with `encode_pages` and `encode_queries`.

    Raises:
        ModelError: The model cannot be found, its files do not fit, or it was trained with another
            template.
        RecipeError: The template is unknown.

    Example:
        >>> import coltrain
        >>> retriever = coltrain.load("tiny")
        >>> [page] = retriever.encode_pages([Image.new("RGB", (224, 224), "white")])
        >>> page.shape
        torch.Size([80, 128])
    """
    device = torch.device(device)
    chosen = None if template is None else template_named(template)
    folder = locate_model(str(model), revision)
    if is_model_folder(folder / "model"):
        folder = folder / "model"
    if is_model_folder(folder):
        built = load_model_folder(folder, device, dtype)
        if chosen is not None and chosen != built.preparer.template:
            raise ModelError(
                "other-template",
                "the model was trained with another template, and scores lower under this one.",
                where=str(folder),
                received=chosen.name,
                expected=built.preparer.template.name,
                suggestion="leave the template out",
            )
        if max_visual_tokens is not None:
            built.preparer.max_visual_tokens = max_visual_tokens
        return Retriever(built)
    if str(model) == TINY and max_visual_tokens is None:
        max_visual_tokens = 64
    return Retriever(
        _load_published(
            folder,
            str(model),
            revision,
            chosen or template_named(DEFAULT_TEMPLATE),
            max_visual_tokens or DEFAULT_MAX_VISUAL_TOKENS,
            dtype or torch.float32,
            device,
        )
    )


def _load_published(
    folder: Path,
    name: str,
    revision: str | None,
    template: Template,
    max_visual_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
) -> BuiltModel:
    """A base with its projection, or an adapter over the base that it names."""
    adapter, base_folder, base = None, folder, name
    if (folder / "adapter_config.json").is_file():
        adapter, tensors, base = read_adapter(folder)
        base_folder = locate_model(base)
    elif not (folder / "config.json").is_file():
        raise ModelError(
            "not-a-model",
            "the folder holds no model.",
            where=str(folder),
            expected="config.json and safetensors, adapter_config.json, or a run of coltrain's",
        )
    # A base without a projection is refused: its embeddings would be those of a random one.
    loaded = load_backbone(base_folder, dim=128, dtype=dtype, projection_std=None, seed=0)
    if adapter is not None:
        add_lora(loaded.model, adapter, seed=0)
        load_adapter_weights(loaded.model, tensors, str(folder))
    return BuiltModel(
        loaded.model.to(device),
        load_preparer(
            folder if (folder / "tokenizer_config.json").is_file() else base_folder,
            template,
            max_visual_tokens,
        ),
        adapter,
        base,
        revision if adapter is None else None,
        loaded.weights_hash,
        loaded.projection_from_file,
        dtype,
    )
