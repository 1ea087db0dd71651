"""Tokens by size alone are the tokens that the model's inputs have."""

import pytest
from PIL import Image

from coltrain.model.visual_tokens import visual_tokens


@pytest.mark.parametrize("budget", [16, 64, 768])
@pytest.mark.parametrize(
    "size", [(224, 280), (30, 500), (1000, 700), (57, 41), (600, 600), (28, 28)]
)
def test_a_size_costs_what_the_page_costs(tiny_retriever, size, budget):
    preparer = tiny_retriever.built.preparer
    before, preparer.max_visual_tokens = preparer.max_visual_tokens, budget
    try:
        page = preparer.prepare_page(Image.new("RGB", size))
    finally:
        preparer.max_visual_tokens = before
    assert visual_tokens(*size, budget) == page.grid_height * page.grid_width // 4


def test_pages_of_known_cost():
    assert visual_tokens(1654, 2339, 768) == 736  # A4 at 200 dpi
    assert visual_tokens(1700, 2200, 768) == 744  # letter at 200 dpi
