"""Pixels equal those of transformers' image processors and of colpali-engine's, bit for bit."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessor, Qwen2VLImageProcessorPil, Qwen2VLVideoProcessor

from coltrain.model.image_backend import image_processor_for
from coltrain.model.inputs import Preparer
from coltrain.model.tiny.architecture import tiny_tokenizer
from coltrain.recipe import template_named

pytestmark = pytest.mark.reference

CLASSES = {"pil": Qwen2VLImageProcessorPil, "torchvision": Qwen2VLImageProcessor}
# preprocessor_config.json of Qwen/Qwen2-VL-2B-Instruct.
RELEASED = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
}
LETTER, A4 = (1700, 2200), (1654, 2339)  # at 200 dpi
SIZES = [(640, 333), (28, 28), (31, 97), (3, 3), (1, 100), (400, 20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    (folder / "preprocessor_config.json").write_text(json.dumps(RELEASED))
    return folder


@pytest.fixture(params=CLASSES)
def backend(request):
    return request.param


@cache
def tokenizer():
    return tiny_tokenizer()


def preparer_of(folder, backend, budget=768, alpha="drop"):
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    whole = Preparer(tokenizer(), processor, template_named("engine-0.3.13"), budget)
    return whole.using(image_backend=backend, alpha=alpha)


def noise(size, seed=0):
    # Blocks of 5 pixels: an even noise would be resized to an even gray.
    width, height = size
    draws = np.random.default_rng(seed)
    coarse = draws.integers(0, 256, (-(-height // 5), -(-width // 5), 3), np.uint8)
    return Image.fromarray(coarse.repeat(5, 0).repeat(5, 1)[:height, :width].copy())


def theirs(folder, backend, image, budget=768):
    processor = CLASSES[backend].from_pretrained(folder)
    return processor(
        [image],
        size={"shortest_edge": 3136, "longest_edge": budget * 784},
        return_tensors="pt",
    )


@pytest.mark.parametrize(
    ("size", "budget"),
    [*[(size, 64) for size in SIZES], (LETTER, 768), (LETTER, 1024), (A4, 768), (A4, 1024)],
)
def test_pixels_are_those_of_transformers(folder, backend, size, budget):
    page = preparer_of(folder, backend, budget).prepare_page(noise(size))
    expected = theirs(folder, backend, noise(size), budget)
    assert torch.equal(page.pixel_values, expected["pixel_values"])
    assert expected["image_grid_thw"].tolist() == [[1, page.grid_height, page.grid_width]]


@pytest.mark.parametrize(
    ("size", "at_768", "at_1024"), [(LETTER, 744, 1008), (A4, 736, 988), ((850, 1100), 744, 1008)]
)
def test_published_pages_have_these_visual_tokens(folder, backend, size, at_768, at_1024):
    for budget, expected in ((768, at_768), (1024, at_1024)):
        page = preparer_of(folder, backend, budget).prepare_page(Image.new("RGB", size))
        assert page.grid_height * page.grid_width // 4 == expected


def test_the_two_back_ends_differ_where_a_page_is_resized(folder):
    def pixels(backend, size):
        return preparer_of(folder, backend).prepare_page(noise(size)).pixel_values

    resized = (pixels("pil", LETTER) - pixels("torchvision", LETTER)).abs()
    level = 1 / 255 / min(RELEASED["image_std"])
    assert 0 < resized.max() < 2.01 * level  # by two of 256 levels at most
    assert 0 < (resized > 1e-6).float().mean() < 0.01
    kept = (pixels("pil", (56, 84)) - pixels("torchvision", (56, 84))).abs()
    assert kept.max() < 1e-6  # normalised in another order


def test_a_back_end_can_be_chosen_from_either_side(folder):
    both = {name: kind.from_pretrained(folder) for name, kind in CLASSES.items()}
    for name, processor in both.items():
        assert image_processor_for(name, processor) is processor
        other = {"pil": "torchvision", "torchvision": "pil"}[name]
        changed = image_processor_for(other, processor)
        assert type(changed) is CLASSES[other]
        assert as_plain(changed) == as_plain(both[other])


def as_plain(processor):
    return {key: value for key, value in processor.to_dict().items() if key != "_processor_class"}


def every_mode():
    rgb = noise((84, 112))
    half = rgb.copy()
    half.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (112, 84), np.uint8)))
    palette = rgb.quantize(16)
    clear, graded, keyed = rgb.quantize(16), rgb.quantize(16), rgb.copy()
    clear.info["transparency"] = 3
    graded.info["transparency"] = bytes(range(0, 256, 16))
    keyed.info["transparency"] = keyed.getpixel((7, 7))
    return {
        "RGB": rgb,
        "RGBA": half,
        "LA": half.convert("LA"),
        "L": rgb.convert("L"),
        "P": palette,
        "P with a transparent colour": clear,
        "P with alphas": graded,
        "RGB with a transparent colour": keyed,
        "1": rgb.convert("1"),
        "CMYK": rgb.convert("CMYK"),
    }


MODES = list(every_mode())
KEYED = [mode for mode in MODES if mode.endswith("colour")]
TRANSPARENT = ["RGBA", "LA", "P with alphas"]


@pytest.mark.parametrize("mode", MODES)
def test_on_white_a_page_of_any_mode_is_as_in_transformers(folder, backend, mode):
    image = every_mode()[mode]
    page = preparer_of(folder, backend, alpha="white").prepare_page(image)
    assert torch.equal(page.pixel_values, theirs(folder, backend, image)["pixel_values"])


def engine_pixels(folder, backend, image):
    from colpali_engine.models.qwen2.colqwen2 import ColQwen2Processor

    image_processor = CLASSES[backend].from_pretrained(folder)
    image_processor.size["longest_edge"] = 768 * 784
    processor = ColQwen2Processor(image_processor, tokenizer(), Qwen2VLVideoProcessor())
    return processor.process_images([image])["pixel_values"][0]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in KEYED])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency expressed in bytes")
def test_with_alpha_dropped_a_page_is_as_in_the_engine(folder, backend, mode):
    image = every_mode()[mode]
    page = preparer_of(folder, backend).prepare_page(image).pixel_values
    assert torch.equal(page, engine_pixels(folder, backend, image))
    on_white = preparer_of(folder, backend, alpha="white").prepare_page(image).pixel_values
    assert torch.equal(page, on_white) == (mode not in TRANSPARENT)


@pytest.mark.parametrize("mode", KEYED)
def test_a_transparent_colour_is_dropped_where_the_engine_puts_it_on_white(folder, backend, mode):
    """A difference on purpose: Pillow hands the colour on, and transformers 5 acts on it.

    transformers 4, on which the published models were trained, did not.
    """
    image = every_mode()[mode]
    found = engine_pixels(folder, backend, image)
    on_white = preparer_of(folder, backend, alpha="white").prepare_page(image).pixel_values
    assert torch.equal(found, on_white)
    dropped = preparer_of(folder, backend).prepare_page(image).pixel_values
    assert not torch.equal(found, dropped)
    del image.info["transparency"]
    assert torch.equal(dropped, engine_pixels(folder, backend, image))


def test_gray_of_sixteen_bits_is_scaled_where_the_libraries_clip_it(folder, backend):
    """A difference on purpose: most of such a scan would be white."""
    ramp = np.linspace(0, 65535, 56 * 84).astype(np.uint16).reshape(84, 56)
    page = preparer_of(folder, backend).prepare_page(Image.fromarray(ramp)).pixel_values
    eight = Image.fromarray((ramp >> 8).astype(np.uint8))
    assert torch.equal(page, preparer_of(folder, backend).prepare_page(eight).pixel_values)
    clipped = theirs(folder, backend, Image.fromarray(ramp))["pixel_values"]
    assert (clipped == clipped.max()).float().mean() > 0.3  # a third of all values: one channel's
    assert not torch.equal(page, clipped)
