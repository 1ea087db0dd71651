"""Pages and queries in, multi-vector embeddings out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from coltrain.errors import ModelError
from coltrain.model.build import BuiltModel
from coltrain.model.card import is_model_folder, read_merged_card
from coltrain.model.folder import load_model_folder
from coltrain.model.inputs import Inputs, PreparedPage
from coltrain.model.locate import TINY, locate_model
from coltrain.model.published import load_published
from coltrain.model.weights import Checkpoint, Layout, recognise
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
        for image in images:
            yield self.encode_prepared(self.built.preparer.prepare_page(image))
            if on_item is not None:
                on_item()

    def encode_prepared(self, page: PreparedPage) -> Encoded:
        """The same of one page that was prepared; its visual tokens are taken if it has them."""
        inputs = self.built.preparer.collate_pages([page]).to(self.built.model.device)
        with torch.inference_mode():
            if inputs.visual_tokens is None:
                visual_tokens = self.built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            else:
                [visual_tokens] = inputs.visual_tokens
        return self._encode(inputs, visual_tokens)

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
    base: str | Path | None = None,
    template: str | None = None,
    max_visual_tokens: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    key_mapping: bool = True,
    allow_pickle: bool = False,
    other_template: bool = False,
    positions: str = "mrope",
    image_backend: str = "pil",
    alpha: str = "drop",
) -> Retriever:
    """Load a model to encode with, from any published layout; every tensor is accounted for.

    Args:
        model: `tiny`, a run, or a model in any layout of `coltrain.model.weights.Layout`: a base
            with its projection, colpali-engine's adapters and merged models, transformers'
            `ColQwen2ForRetrieval`, sentence-transformers' multi-vector folders; by folder or hub
            name.
        revision: Of a hub model.
        template: The strings around queries and pages, by name. A model of coltrain's has its own;
            a base or a published adapter gets the one of the published models after v0.1.
        max_visual_tokens: Budget of a page; a model's card says its own, otherwise 768.
        dtype: Type of the weights, an adapter's as well; None keeps the card's, or float32.
        device: Where it computes.
        key_mapping: False insists that the files name tensors as ColQwen2 does.
        allow_pickle: Read pickled weights, as tensors alone, where there are no safetensors.
        other_template: Read a model with `template` though it was trained with another one, to
            compare; without this word that is refused.
        positions: `mrope`, or `sequential` as transformers' native ColQwen2 numbers tokens.
        image_backend: `pil`, or `torchvision` as colpali-engine resizes where it is installed.
        alpha: Transparency: `drop`, as colpali-engine does, or `white`, as transformers 5 does.

    Returns:
        A retriever with `encode_pages` and `encode_queries`; what loading found is its
        `built.report`.

    Raises:
        ModelError: The model cannot be found, its files do not fit or hold what no training gives,
            its base is another one, it was trained with another template, there is no such
            position scheme, backend or rule, or torchvision is missing.
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
    checkpoint = recognise(folder / "model" if is_model_folder(folder / "model") else folder)
    base = None if base is None else str(base)
    _refuse_useless_base(checkpoint, base)
    reading = {"base": base, "key_mapping": key_mapping, "allow_pickle": allow_pickle}
    if checkpoint.layout is Layout.COLTRAIN:
        built = load_model_folder(checkpoint.folder, device, dtype, **reading)
        _refuse_other_template(
            built.preparer.template, chosen, checkpoint.folder, is_meant=other_template
        )
        return Retriever(
            _reading(built, chosen, max_visual_tokens, positions, image_backend, alpha)
        )
    own, budget = chosen or template_named(DEFAULT_TEMPLATE), DEFAULT_MAX_VISUAL_TOKENS
    if is_model_folder(checkpoint.folder):
        card = read_merged_card(checkpoint.folder)
        own, budget = Template(**card["template"]), card["max_visual_tokens"]
        _refuse_other_template(own, chosen, checkpoint.folder, is_meant=other_template)
    elif str(model) == TINY:
        budget = 64
    built = load_published(
        checkpoint,
        str(model),
        revision=revision,
        template=own,
        max_visual_tokens=max_visual_tokens or budget,
        dtype=dtype or torch.float32,
        device=device,
        **reading,
    )
    return Retriever(_reading(built, chosen, None, positions, image_backend, alpha))


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


def _refuse_other_template(
    own: Template, chosen: Template | None, folder: Path, *, is_meant: bool
) -> None:
    if chosen is not None and chosen.strings != own.strings and not is_meant:
        raise ModelError(
            "other-template",
            "the model was trained with another template, and scores lower under this one.",
            where=str(folder),
            received=chosen.name,
            expected=own.name,
            suggestion="leave the template out; or --other-template (other_template=True), to "
            "see what it does",
        )


def _refuse_useless_base(checkpoint: Checkpoint, base: str | None) -> None:
    if base is not None and checkpoint.network is not None:
        raise ModelError(
            "base-of-no-adapter",
            "a base was given, but the model is no adapter and has its own weights.",
            where=str(checkpoint.folder),
            received=f"base {base}, layout {checkpoint.layout}",
            expected="a base with an adapter only",
            suggestion="leave --base out",
        )
