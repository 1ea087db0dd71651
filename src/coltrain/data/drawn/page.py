"""Drawing a page: words in lines, each word at the left edge of a visual token's square.

Pages are small (224 x 224 pixels, 8 x 8 visual tokens) and regular on purpose: a model of less than
a million parameters learns to read them in minutes. With words at free positions it does not.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 28  # pixels along a visual token
SIDE = 224  # pixels along a page
FONT_SIZE = 17  # pixels
GAP = 5  # least pixels between words


@dataclass(frozen=True)
class PlacedWord:
    """A word on a page.

    Attributes:
        text: The word as drawn.
        left: Pixels from the left edge; a multiple of 28.
        width: Pixels.
        line: Line of the page, from 0.
    """

    text: str
    left: int
    width: float
    line: int


@cache
def font() -> ImageFont.FreeTypeFont:
    """Pillow's built-in scalable font, so that every machine draws the same pages."""
    return ImageFont.load_default(size=FONT_SIZE)


@lru_cache(100_000)
def _drawn_word(text: str) -> np.ndarray:
    """White on black, height x width."""
    ascent, descent = font().getmetrics()
    image = Image.new("L", (math.ceil(text_length(text)) + 2, ascent + descent), 0)
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font())
    return np.asarray(image)


@lru_cache(100_000)
def text_length(text: str) -> float:
    """Pixels that a text takes on a line."""
    return font().getlength(text)


def lay_out(words: tuple[str, ...]) -> list[PlacedWord]:
    """Place as many of the words as a page holds, in reading order."""
    placed: list[PlacedWord] = []
    line, left = 0, 0
    for word in words:
        length = text_length(word)
        if left > 0 and left + length > SIDE:
            line, left = line + 1, 0
        if line >= SIDE // CELL:
            break
        placed.append(PlacedWord(word, left, min(length, SIDE - left), line))
        left = math.ceil((left + length + GAP) / CELL) * CELL
    return placed


def draw(placed: list[PlacedWord]) -> Image.Image:
    """The page as a gray image, black on white, 224 x 224 pixels."""
    ink = np.zeros((SIDE, SIDE), np.uint8)
    for word in placed:
        image = _drawn_word(word.text)
        top = word.line * CELL + max(0, (CELL - image.shape[0]) // 2)
        target = ink[top : top + image.shape[0], word.left : word.left + image.shape[1]]
        np.maximum(target, image[: target.shape[0], : target.shape[1]], out=target)
    return Image.fromarray(255 - ink)
