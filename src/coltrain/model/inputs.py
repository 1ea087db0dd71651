"""From images and texts to what the model's forward pass takes.

One place applies the template, so that a prefix cannot be doubled or lost. Samples are padded on
the right; pixel values stay flat, without a padded copy.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from coltrain.data.rgb import AlphaRule, to_gray_or_rgb, to_rgb
from coltrain.errors import DataError, ModelError
from coltrain.model.image_backend import (
    ImageBackend,
    backend_of,
    image_processor_for,
    library_of,
)
from coltrain.model.patches import is_served, lookup_table, patches_of, resized
from coltrain.model.positions import PositionScheme, page_positions, text_positions
from coltrain.recipe import Template

IMAGE_TOKEN = "<|image_pad|>"
PIXELS_PER_VISUAL_TOKEN = 28 * 28  # patches of 14 x 14, merged two by two


@dataclass(frozen=True)
class Inputs:
    """A padded chunk of queries, or of pages if it has pixels.

    Attributes:
        input_ids: Token ids, padded on the right.
        mask: True at real tokens.
        position_ids: M-RoPE positions.
        pixel_values: Flat patches of all pages, in order; None for queries, and where the visual
            tokens of all pages are known.
        grid_thw: Patches of each page along time, height and width; None for queries.
        visual_tokens: Of each page, None where they are not known and its patches stand in
            `pixel_values`; None as a whole where none is known.
    """

    input_ids: Int[Tensor, "samples tokens"]
    mask: Bool[Tensor, "samples tokens"]
    position_ids: Int[Tensor, "3 samples tokens"]
    pixel_values: Float[Tensor, "patches patch_dim"] | None = None
    grid_thw: Int[Tensor, "samples 3"] | None = None
    visual_tokens: tuple[Tensor | None, ...] | None = None

    def to(self, device: torch.device) -> "Inputs":
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Inputs":
        """The same in pages of memory from which a card copies while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        def changed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        tokens = self.visual_tokens
        return Inputs(
            change(self.input_ids),
            change(self.mask),
            change(self.position_ids),
            changed(self.pixel_values),
            changed(self.grid_thw),
            None if tokens is None else tuple(changed(one) for one in tokens),
        )

    def part(self, start: int, stop: int) -> "Inputs":
        """The samples from `start` to before `stop`, padded as before."""
        pixel_values, tokens = self.pixel_values, self.visual_tokens
        if pixel_values is not None:
            known = [one is not None for one in tokens or (None,) * len(self.input_ids)]
            counts = [
                0 if k else n for k, n in zip(known, self.grid_thw.prod(1).tolist(), strict=True)
            ]
            pixel_values = pixel_values[sum(counts[:start]) : sum(counts[:stop])]
        return Inputs(
            self.input_ids[start:stop],
            self.mask[start:stop],
            self.position_ids[:, start:stop],
            pixel_values,
            None if self.grid_thw is None else self.grid_thw[start:stop],
            None if tokens is None else tokens[start:stop],
        )

    def without_pixels(self) -> "Inputs":
        """The same without pixel values, so that their memory can go."""
        return Inputs(self.input_ids, self.mask, self.position_ids)


@dataclass(frozen=True)
class PreparedPage:
    """One page, resized, normalised and cut into patches; or already behind the vision tower."""

    pixel_values: Float[Tensor, "patches patch_dim"] | None
    grid_height: int  # patches
    grid_width: int
    visual_tokens: Float[Tensor, "visual_tokens hidden"] | None = None


class Preparer:
    """Turns texts and images into model inputs by a template and a budget of visual tokens.

    Args:
        tokenizer: The base's tokenizer.
        image_processor: The base's image processor; the Pillow back end equals what colpali-engine
            had when the published models were trained (see `image_backend`).
        template: The exact strings around a query and a page.
        max_visual_tokens: A page gets at most this many visual tokens. (Two exceptions, as in
            colpali-engine: one that is more than this many times as long as wide, since its short
            side keeps one token; and below 8, a page of a few pixels.)

    Attributes:
        positions: How tokens are numbered: `mrope`, or `sequential` as transformers' native
            ColQwen2 does.
        alpha: What becomes of a page's transparency: `drop` or `white`.
        trained_template: The template that the model was trained with, where it is known and
            another than `template`.

    Raises:
        ModelError: The page prompt lacks its image placeholder, or the tokenizer does not know it or
            the padding token.
    """

    positions: PositionScheme = "mrope"
    alpha: AlphaRule = "drop"
    trained_template: Template | None = None

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: BaseImageProcessor,
        template: Template,
        max_visual_tokens: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_visual_tokens = max_visual_tokens
        self.image_processor = image_processor
        self.merge_size = image_processor.merge_size
        self.image_token_id = self._special_id(IMAGE_TOKEN)
        self.pad_token_id = self._special_id("<|endoftext|>")
        self._set_template(template)

    def _set_template(self, template: Template) -> None:
        if template.page_prompt.count(IMAGE_TOKEN) != 1:
            raise ModelError(
                "page-prompt-without-image",
                "the page prompt must name the image exactly once.",
                where=f"template {template.name!r}",
                received=repr(template.page_prompt),
                expected=f"one {IMAGE_TOKEN}",
            )
        self.template = template
        before, after = template.page_prompt.split(IMAGE_TOKEN)
        self._ids_before = self._tokenize(before)
        self._ids_after = self._tokenize(after)

    @property
    def image_backend(self) -> ImageBackend:
        """The library that resizes pages."""
        return backend_of(self.image_processor)

    def using(
        self,
        *,
        positions: str | None = None,
        image_backend: str | None = None,
        alpha: str | None = None,
        template: Template | None = None,
        max_visual_tokens: int | None = None,
    ) -> "Preparer":
        """A copy that differs in what is given; for comparisons, not for training.

        Args:
            positions: `mrope` or `sequential`.
            image_backend: `pil` or `torchvision`.
            alpha: `drop` or `white`.
            template: Other strings; the present ones are remembered as those of training.
            max_visual_tokens: Another budget.

        Raises:
            ModelError: There is no such choice, or torchvision is not installed.
        """
        _refuse_other("positions", positions, PositionScheme)
        _refuse_other("image_backend", image_backend, ImageBackend)
        _refuse_other("alpha", alpha, AlphaRule)
        changed = copy.copy(self)
        changed.positions = positions or self.positions
        changed.alpha = alpha or self.alpha
        changed.max_visual_tokens = max_visual_tokens or self.max_visual_tokens
        if image_backend is not None:
            changed.image_processor = image_processor_for(image_backend, self.image_processor)
        if template is not None:
            if template.strings != self.template.strings:
                changed.trained_template = self.template
            changed._set_template(template)
        return changed

    def settings(self) -> dict[str, Any]:
        """All that decides what a text or a page becomes, for a record: plain types."""
        trained = self.trained_template
        return {
            "template": self.template.model_dump(),
            "trained_template": None if trained is None else trained.model_dump(),
            "positions": self.positions,
            "max_visual_tokens": self.max_visual_tokens,
            "image_backend": self.image_backend,
            "image_library": library_of(self.image_backend),
            "alpha": self.alpha,
        }

    def _special_id(self, token: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(token)
        # An unknown token may get the number of another: Qwen2's own is <|endoftext|> by default.
        if number is None or self.tokenizer.convert_ids_to_tokens(number) != token:
            raise ModelError(
                "tokenizer-does-not-fit",
                "the tokenizer is not that of a Qwen2-VL model.",
                where=str(self.tokenizer.name_or_path) or None,
                received=f"no token {token}",
                expected=f"{token} as one token",
            )
        return number

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def query_ids(self, text: str) -> list[int]:
        """Token ids of one query, as typed, within the template."""
        return self._tokenize(self.template.query_prefix + text + self.template.query_suffix)

    def page_ids(self, num_visual_tokens: int) -> list[int]:
        """Token ids of a page with this many visual tokens."""
        return [
            *self._ids_before,
            *[self.image_token_id] * num_visual_tokens,
            *self._ids_after,
        ]

    def prepare_page(self, image: Image.Image) -> PreparedPage:
        """Resize within the budget, normalise, cut into patches. Runs in worker processes.

        Raises:
            DataError: The page is so long and narrow that the model cannot take it.
        """
        if is_served(self.image_processor):
            return self.page_of_pixels(self.resized_page(image))
        with _naming_size(image):
            output = self.image_processor(
                to_rgb(image, self.alpha),
                size={
                    "shortest_edge": self.image_processor.size["shortest_edge"],
                    "longest_edge": self.max_pixels,
                },
                return_tensors="pt",
            )
        _, height, width = output["image_grid_thw"][0].tolist()
        return PreparedPage(output["pixel_values"], height, width)

    @property
    def max_pixels(self) -> int:
        """Of a resized page."""
        return self.max_visual_tokens * PIXELS_PER_VISUAL_TOKEN

    def resized_page(self, image: Image.Image) -> UInt8[np.ndarray, "height width *channels"]:
        """The first half of `prepare_page`, for a processor that `is_served`: what can be kept.

        Raises:
            DataError: As `prepare_page`.
        """
        with _naming_size(image):
            gray_or_rgb = to_gray_or_rgb(image, self.alpha)
            return resized(gray_or_rgb, self.image_processor, self.max_pixels)

    def page_of_pixels(self, pixels: UInt8[np.ndarray, "height width *channels"]) -> PreparedPage:
        """The second half: normalise, cut into patches."""
        table = lookup_table(self.image_processor)
        return PreparedPage(*patches_of(pixels, self.image_processor, table))

    def _page_positions(self, height: int, width: int) -> Int[Tensor, "3 tokens"]:
        before, after = len(self._ids_before), len(self._ids_after)
        if self.positions == "sequential":
            return text_positions(before + height * width + after)
        return page_positions(before, height, width, after)

    def collate_queries(self, texts: Sequence[str]) -> Inputs:
        """A padded chunk of queries."""
        ids = [self.query_ids(text) for text in texts]
        return self._pad(ids, [text_positions(len(row)) for row in ids])

    def collate_pages(self, pages: Sequence[PreparedPage]) -> Inputs:
        """A padded chunk of pages, with flat pixel values of those whose visual tokens are unknown."""
        ids, positions = [], []
        for page in pages:
            height, width = page.grid_height // self.merge_size, page.grid_width // self.merge_size
            ids.append(self.page_ids(height * width))
            positions.append(self._page_positions(height, width))
        padded = self._pad(ids, positions)
        pixels = [page.pixel_values for page in pages if page.visual_tokens is None]
        tokens = tuple(page.visual_tokens for page in pages)
        return Inputs(
            padded.input_ids,
            padded.mask,
            padded.position_ids,
            pixel_values=torch.cat(pixels) if pixels else None,
            grid_thw=torch.tensor([[1, page.grid_height, page.grid_width] for page in pages]),
            visual_tokens=None if len(pixels) == len(pages) else tokens,
        )

    def _pad(self, ids: list[list[int]], positions: list[Tensor]) -> Inputs:
        lengths = np.array([len(row) for row in ids])
        shape = (len(ids), int(lengths.max()))
        input_ids = torch.full(shape, self.pad_token_id)
        position_ids = torch.zeros((3, *shape), dtype=torch.int64)
        for index, (row, places) in enumerate(zip(ids, positions, strict=True)):
            input_ids[index, : len(row)] = torch.tensor(row)
            position_ids[:, index, : len(row)] = places
        mask = torch.from_numpy(np.arange(shape[1])[None, :] < lengths[:, None])
        return Inputs(input_ids, mask, position_ids)


@contextmanager
def _naming_size(image: Image.Image) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise DataError(
            "page-cannot-be-resized",
            "the image processor cannot take this page.",
            received=f"{image.width} x {image.height} pixels: {error}",
            expected="at most 200 times as long as wide",
        ) from error


def _refuse_other(name: str, value: str | None, choices: object) -> None:
    if value is not None and value not in get_args(choices):
        raise ModelError(
            "unknown-input-setting",
            "there is no such way to read pages and queries.",
            where=name,
            received=repr(value),
            expected=" or ".join(map(repr, get_args(choices))),
        )
