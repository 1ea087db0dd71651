"""From an image to the vision tower's patches, at the least cost that is exact.

transformers' processor repeats gray pages in three channels before it resizes them, and rescales,
normalises and cuts up float32 images. Here a page is resized in the channels that it has, cut up
while a pixel is one byte, and a table of 256 numbers for each channel does the arithmetic. The table
is made by the processor itself, so the patches are the processor's to the bit, for a third of the
time (`python benchmarks/data_path.py`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor, Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

_CHANNELS = 3


def is_served(processor: BaseImageProcessor) -> bool:
    """Whether a processor does what is done here: Pillow's, with no step left out."""
    return type(processor) is Qwen2VLImageProcessorPil and all(
        (
            processor.do_resize,
            processor.do_rescale,
            processor.do_normalize,
            processor.do_convert_rgb,
        )
    )


def lookup_table(processor: BaseImageProcessor) -> Float[np.ndarray, "channels levels"]:
    """What the processor makes of each level of each channel."""
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8), (_CHANNELS, 1, 256))
    levels = processor.rescale(levels, processor.rescale_factor)
    normal = processor.normalize(levels, processor.image_mean, processor.image_std)
    return np.ascontiguousarray(np.asarray(normal, dtype=np.float32)[:, 0])


@dataclass(frozen=True)
class ResizedTo:
    """The size that a page is resized to, by Qwen2-VL's rule.

    Attributes:
        factor: Both sides are multiples of it.
        min_pixels: Of the resized page.
        max_pixels: Likewise.
    """

    factor: int
    min_pixels: int
    max_pixels: int

    @classmethod
    def by(cls, processor: BaseImageProcessor, max_pixels: int) -> "ResizedTo":
        """As a processor does within a budget."""
        factor = processor.patch_size * processor.merge_size
        return cls(factor, processor.size["shortest_edge"], max_pixels)

    def __call__(self, width: int, height: int) -> tuple[int, int]:
        """Of a page's width and height the new ones.

        Raises:
            ValueError: The page is more than 200 times as long as wide.
        """
        height, width = smart_resize(
            height,
            width,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )
        return width, height


def resized(
    image: Image.Image, processor: BaseImageProcessor, max_pixels: int
) -> UInt8[np.ndarray, "height width *channels"]:
    """A page resized within the budget.

    Args:
        image: In RGB, or gray ("L"), which has no axis of channels then.
        processor: One that `is_served`.
        max_pixels: Of the resized page.

    Raises:
        ValueError: The page is more than 200 times as long as wide.
    """
    size = ResizedTo.by(processor, max_pixels)(*image.size)
    return np.asarray(image.resize(size, processor.resample))


def patches_of(
    pixels: UInt8[np.ndarray, "height width *channels"],
    processor: BaseImageProcessor,
    table: Float[np.ndarray, "channels levels"],
) -> tuple[Float[Tensor, "patches patch_dim"], int, int]:
    """A resized page normalised and cut into patches.

    Args:
        pixels: See `resized`.
        processor: One that `is_served`.
        table: Its `lookup_table`.

    Returns:
        Flat patches, and the page's height and width in patches.

    Source:
        transformers 5.23, `Qwen2VLImageProcessorPil`, whose order of pixels is kept: rows and columns
        of merged squares, rows and columns of patches within, channel, frame (the same twice), pixels.
    """
    size, merge = processor.patch_size, processor.merge_size
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    squares = pixels.reshape(rows // merge, merge, size, columns // merge, merge, size, -1)
    squares = squares.transpose(6, 0, 3, 1, 4, 2, 5).reshape(-1, rows * columns, size * size)
    frames = processor.temporal_patch_size
    patches = np.empty((rows * columns, _CHANNELS, frames, size * size), dtype=np.float32)
    for channel in range(_CHANNELS):
        levels = squares[channel if len(squares) == _CHANNELS else 0]
        patches[:, channel] = table[channel][levels][:, None]
    return torch.from_numpy(patches.reshape(rows * columns, -1)), rows, columns
