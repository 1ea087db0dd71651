"""Patches are the processor's to the bit, whatever the page."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from coltrain.model.patches import is_served, lookup_table, patches_of, resized

SIZES = [(56, 56), (224, 140), (300, 411), (1000, 60), (28, 3000), (9, 9)]


@pytest.fixture(params=["published", "tiny"])
def processor(request, tiny_retriever):
    if request.param == "tiny":
        return tiny_retriever.built.preparer.image_processor
    return Qwen2VLImageProcessorPil()


def page(size, mode):
    noise = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def expected(image, processor, max_pixels):
    size = {"shortest_edge": processor.size["shortest_edge"], "longest_edge": max_pixels}
    output = processor(image.convert("RGB"), size=size, return_tensors="pt")
    return output["pixel_values"], *output["image_grid_thw"][0, 1:].tolist()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", SIZES)
def test_patches_equal_the_processor_s_to_the_bit(processor, size, mode):
    image = page(size, mode)
    assert is_served(processor)
    ours = patches_of(resized(image, processor, 64 * 28 * 28), processor, lookup_table(processor))
    theirs = expected(image, processor, 64 * 28 * 28)
    assert torch.equal(ours[0], theirs[0])
    assert ours[1:] == theirs[1:]
    assert ours[0].std() > 0.1


def test_a_page_that_is_too_long_is_refused_as_the_processor_does(processor):
    with pytest.raises(ValueError, match="aspect ratio"):
        resized(page((2, 500), "L"), processor, 64 * 28 * 28)


def test_a_processor_that_leaves_a_step_out_is_asked_itself(processor):
    changed = Qwen2VLImageProcessorPil(do_normalize=False)
    assert not is_served(changed)


def test_a_changed_mean_is_seen_at_once(tiny_built):
    preparer = tiny_built.preparer
    before = preparer.prepare_page(page((56, 56), "L")).pixel_values
    preparer.image_processor.image_mean = [0.1, 0.2, 0.3]
    after = preparer.prepare_page(page((56, 56), "L")).pixel_values
    assert not torch.equal(before, after)
