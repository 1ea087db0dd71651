"""The one rule by which a page of any mode becomes RGB, whatever reads, resizes or encodes it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

AlphaRule = Literal["drop", "white"]


def to_gray_or_rgb(image: Image.Image, alpha: AlphaRule = "drop") -> Image.Image:
    """Gray of 8 bits as it is, everything else in RGB by `to_rgb`.

    For who resizes a page next: each channel is resized alone, so gray may be repeated afterwards,
    for a third of the work, with the same result to the bit.
    """
    if image.mode == "L" and "transparency" not in image.info:
        return image
    return to_rgb(image, alpha)


def to_rgb(image: Image.Image, alpha: AlphaRule = "drop") -> Image.Image:
    """An image in RGB.

    Gray is repeated in three channels, a palette is looked up, black and white becomes 0 and 255,
    CMYK is inverted as Pillow does it. Gray of 16 bits keeps its high byte, as Pillow's own decoder
    keeps it of colours of 16 bits; `convert` alone would clip all above 255 to white.

    Args:
        image: Of any mode that Pillow converts.
        alpha: What becomes of transparency (an alpha channel, or a transparent colour): `drop`
            shows the colours that lie under it, as colpali-engine did when the published models
            were trained (today, on transformers 5, it drops an alpha channel and puts a transparent
            colour on white); `white` puts the page on white paper, as transformers 5 does. (A transparent level of 16-bit gray is not looked
            for.)

    Source:
        colpali-engine, `image.convert("RGB")` in processing_colqwen2.py; transformers 5.23,
        `convert_to_rgb` in image_transforms.py.
    """
    image = _eight_bits(image)
    if alpha == "white" and image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, image).convert("RGB")
    if "transparency" in image.info:
        # Pillow would hand a transparent colour on beside the pixels, and transformers 5 would then
        # put it on white after all.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64).clip(0, 0xFFFF)
    return Image.fromarray((pixels >> 8).astype(np.uint8))
