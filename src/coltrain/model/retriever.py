"""Pages and queries in, multi-vector embeddings out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
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


@dataclass(frozen=True)
class Encoded:
    """One page or query as the model read it.

    Attributes:
        embedding: Float32 unit vectors, unpadded, on the CPU.
        token_ids: What was read.
        position_ids: On the axes of time, height and width.
    """

    embedding: Float[Tensor, "tokens dim"]
    token_ids: Int[Tensor, " tokens"]
    position_ids: Int[Tensor, "3 tokens"]


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
            images: Pages of any mode; `alpha` of the model's preparer says what becomes of
                transparency.
            on_item: Called after each page.
        """
        return [encoded.embedding for encoded in self.read_pages(images, on_item)]

    def encode_queries(
        self, texts: Iterable[str], on_item: Callable[[], None] | None = None
    ) -> list[Tensor]:
        """One tensor of tokens x dim for each query, the template's suffix included."""
        return [encoded.embedding for encoded in self.read_queries(texts, on_item)]

    def read_pages(
        self, images: Iterable[Image.Image], on_item: Callable[[], None] | None = None
    ) -> Iterator[Encoded]:
        """As `encode_pages`, one by one, with what was read."""
        preparer, device = self.built.preparer, self.built.model.device
        for image in images:
            inputs = preparer.collate_pages([preparer.prepare_page(image)]).to(device)
            with torch.inference_mode():
                visual_tokens = self.built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            yield self._encode(inputs, visual_tokens)
            if on_item is not None:
                on_item()

    def read_queries(
        self, texts: Iterable[str], on_item: Callable[[], None] | None = None
    ) -> Iterator[Encoded]:
        """As `encode_queries`, one by one, with what was read."""
        for text in texts:
            inputs = self.built.preparer.collate_queries([text]).to(self.built.model.device)
            yield self._encode(inputs, None)
            if on_item is not None:
                on_item()

    def query_ids(self, text: str) -> list[int]:
        """The token ids that a query becomes."""
        return self.built.preparer.query_ids(text)

    def _encode(self, inputs: Inputs, visual_tokens: Tensor | None) -> Encoded:
        with torch.inference_mode():
            embedding = self.built.model(
                inputs.input_ids, inputs.mask, inputs.position_ids, visual_tokens
            )
        return Encoded(
            embedding[0].cpu().clone(),
            inputs.input_ids[0].cpu(),
            inputs.position_ids[:, 0].cpu(),
        )


def load(
    model: str | Path,
    *,
    revision: str | None = None,
    template: str | None = None,
    max_visual_tokens: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    other_template: bool = False,
    positions: str = "mrope",
    image_backend: str = "pil",
    alpha: str = "drop",
) -> Retriever:
    """Load a model to encode with.

    Args:
        model: `tiny`, a run, a model folder of coltrain's, a base with its projection, or a
            published adapter; by folder or hub name.
        revision: Of a hub model.
        template: The strings around queries and pages, by name. A model of coltrain's has its own;
            a base or a published adapter gets the one of the published models after v0.1.
        max_visual_tokens: Budget of a page; a model's card says its own, otherwise 768.
        dtype: Type of the weights; None keeps the card's, or float32.
        device: Where it computes.
        other_template: Read a model with `template` though it was trained with another one, to
            compare; without this word that is refused.
        positions: `mrope`, or `sequential` as transformers' native ColQwen2 numbers tokens.
        image_backend: `pil`, or `torchvision` as colpali-engine resizes where it is installed.
        alpha: Transparency: `drop`, as colpali-engine does, or `white`, as transformers 5 does.

    Returns:
        A retriever with `encode_pages` and `encode_queries`.

    Raises:
        ModelError: The model cannot be found, its files do not fit, it was trained with another
            template, there is no such position scheme, backend or rule, or torchvision is missing.
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
        trained = built.preparer.template
        if chosen is not None and chosen.strings != trained.strings and not other_template:
            raise ModelError(
                "other-template",
                "the model was trained with another template, and scores lower under this one.",
                where=str(folder),
                received=chosen.name,
                expected=trained.name,
                suggestion="leave the template out; or --other-template (other_template=True), to "
                "see what it does",
            )
        return Retriever(
            _reading(built, chosen, max_visual_tokens, positions, image_backend, alpha)
        )
    if str(model) == TINY and max_visual_tokens is None:
        max_visual_tokens = 64
    built = _load_published(
        folder,
        str(model),
        revision,
        chosen or template_named(DEFAULT_TEMPLATE),
        max_visual_tokens or DEFAULT_MAX_VISUAL_TOKENS,
        dtype or torch.float32,
        device,
    )
    return Retriever(_reading(built, None, None, positions, image_backend, alpha))


def _reading(
    built: BuiltModel,
    template: Template | None,
    max_visual_tokens: int | None,
    positions: str,
    image_backend: str,
    alpha: str,
) -> BuiltModel:
    """A model that reads pages and queries so."""
    preparer = built.preparer.using(
        template=template,
        max_visual_tokens=max_visual_tokens,
        positions=positions,
        image_backend=image_backend,
        alpha=alpha,
    )
    return replace(built, preparer=preparer)


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
