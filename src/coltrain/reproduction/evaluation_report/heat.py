"""Heat maps as tiny pictures, a pixel for each patch, that a browser stretches over the page."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from coltrain.evaluation.explanation import Explanation

# Vermilion: it shows on white paper and on photographs, and to colour-blind readers.
_COLOUR = (213, 60, 0)
_STRONGEST = 200  # of 255, so that the words below can still be read


def overlay(values: Tensor) -> str:
    """A map as PNG in base64: clear at the median and below, strong at the maximum.

    Args:
        values: rows x columns.
    """
    grid = values.float().numpy()
    low, high = float(np.median(grid)), float(grid.max())
    share = np.clip((grid - low) / (high - low), 0, 1) if high > low else np.zeros_like(grid)
    pixels = np.empty((*grid.shape, 4), np.uint8)
    pixels[..., :3] = _COLOUR
    pixels[..., 3] = (share * _STRONGEST).round()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def maps(explanation: Explanation, num_words: int | None = None) -> list[dict[str, Any]]:
    """What is drawn over a page: where the score comes from, then the query's own tokens.

    Returns:
        For each map `label`, `png`, and for a token `similarity`, `box` (left, top, width, height
        of the best patch, in percent of the page) and `won_by`.
    """
    drawn = [{"label": "the whole score", "png": overlay(explanation.won())}]
    words = [place for place, match in enumerate(explanation.matches) if match.is_word]
    for place in words[:num_words]:
        match = explanation.matches[place]
        drawn.append(
            {
                "label": match.token.strip() or repr(match.token),
                "png": overlay(explanation.similarities[place]),
                "similarity": match.similarity,
                "won_by": match.won_by,
                "box": {
                    "left": 100 * match.column / explanation.columns,
                    "top": 100 * match.row / explanation.rows,
                    "width": 100 / explanation.columns,
                    "height": 100 / explanation.rows,
                },
            }
        )
    return drawn
