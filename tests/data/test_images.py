"""What becomes of a page's file."""

import warnings

import broken_pages
import numpy as np
import pytest
from datasets import Dataset
from jpeg_pages import jpeg_page, stored_pages
from PIL import Image

from coltrain.data.images import (
    JoinedImages,
    SelectedImages,
    StoredImages,
    decode,
    drafted,
    encoded,
    examine,
    pixels,
)
from coltrain.errors import DataError


def stored(content):
    return {"bytes": content, "path": None}


@pytest.mark.parametrize(
    ("kind", "content"),
    [(kind, content) for kind, files in broken_pages.BROKEN.items() for content in files],
)
def test_a_page_that_cannot_be_used_says_why(tmp_path, kind, content):
    with pytest.raises(DataError) as caught:
        decode(stored(content), tmp_path)
    assert caught.value.code == kind


def test_a_bomb_is_a_bomb_where_warnings_are_silenced(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"\[decompression-bomb\]") as caught:
            decode(stored(broken_pages.png_header(12_000, 12_000)), tmp_path)
    assert caught.value.received.startswith("Image size (144000000 pixels) exceeds limit")
    assert caught.value.expected == "at most 89,478,485 pixels"


def test_a_page_of_200_by_1_is_still_used(tmp_path):
    content = broken_pages.encoded(Image.new("L", (200, 1)))
    assert decode(stored(content), tmp_path).size == (200, 1)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, form):
    page = decode(stored(broken_pages.sixteen_bit(form)), tmp_path)
    expected = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(np.asarray(page), np.stack([expected] * 3, axis=-1))


def test_sixteen_bits_are_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(8, 32)
    content = broken_pages.encoded(Image.fromarray(ramp), exif=exif)
    page = decode(stored(content), tmp_path)
    assert page.size == (8, 32)
    assert [page.getpixel(place)[0] for place in ((7, 0), (7, 31), (0, 31))] == [0, 31, 255]


def test_the_first_frame_is_the_page(tmp_path):
    frames = [Image.new("RGB", (6, 6), color) for color in ((250, 0, 0), (0, 250, 0))]
    for form in ("GIF", "PNG", "TIFF"):
        content = broken_pages.encoded(frames[0], form, save_all=True, append_images=frames[1:])
        assert decode(stored(content), tmp_path).getpixel((3, 3)) == (250, 0, 0)


def test_cmyk_becomes_the_colours_that_pillow_gives(tmp_path):
    image = broken_pages.noise(1).convert("CMYK")
    content = broken_pages.encoded(image, "TIFF")
    page = decode(stored(content), tmp_path)
    assert np.array_equal(np.asarray(page), np.asarray(image.convert("RGB")))


class _Files:
    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return decode(stored(self.files[index]), None)

    def encoded(self, index):
        return self.files[index]

    def examine(self, index):
        return (str(index),)


class _Drawn:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Image.new("RGB", (3, 3), (index, 0, 0))


def test_files_stay_as_they_are_through_selections_and_joins():
    files = [broken_pages.encoded(broken_pages.noise(i), "JPEG") for i in range(3)]
    joined = JoinedImages([_Drawn(), SelectedImages(_Files(files), [2, 0])])
    assert encoded(joined, 2) == files[2]
    assert encoded(joined, 3) == files[0]
    assert examine(joined, 3) == ("0",)
    assert examine(joined, 1) is None
    assert decode(stored(encoded(joined, 1)), None).getpixel((0, 0)) == (1, 0, 0)
    assert joined[2].tobytes() == _Files(files)[2].tobytes()


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "1", "I;16"])
def test_pixels_for_who_resizes_are_gray_where_that_is_the_same(tmp_path, mode):
    levels = np.random.default_rng(3).integers(0, 256, (40, 30), np.uint8)
    image = Image.fromarray(levels).convert(mode)
    image.save(tmp_path / "page.png")
    stored = {"bytes": (tmp_path / "page.png").read_bytes(), "path": None}
    table = Dataset.from_dict({"image": [stored, stored]})
    images = JoinedImages([SelectedImages(StoredImages(table, [0, 1], tmp_path), [1])])
    found = pixels(images, 0)
    assert found.mode == ("L" if mode == "L" else "RGB")
    assert found.convert("RGB").tobytes() == images[0].tobytes()


def at_least_60(width, height):
    return 60, 60 * height // width


def test_drafted_pages_are_smaller_but_no_smaller_than_needed():
    images = stored_pages([jpeg_page(1, (400, 300)), jpeg_page(1, (400, 300), form="PNG")])
    small = drafted(images, at_least_60)
    assert pixels(small, 0).size == (100, 75)  # a quarter: an eighth would be 50 wide
    assert pixels(small, 1).size == (400, 300)
    assert small[0].size == (400, 300)  # to look at, a page is whole
    assert small.encoded(0) == images.encoded(0)
    exact = pixels(images, 0).resize((60, 45), Image.Resampling.BICUBIC)
    near = pixels(small, 0).resize((60, 45), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(near, dtype=int) - np.asarray(exact, dtype=int))
    assert 0 < difference.mean() < 8
    for wrapped in (SelectedImages(images, [0]), JoinedImages([images])):
        assert pixels(drafted(wrapped, at_least_60), 0).size == (100, 75)
        assert pixels(wrapped, 0).size == (400, 300)


def test_a_turned_page_is_drafted_and_then_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    images = stored_pages([jpeg_page(1, (400, 300), exif=exif)])
    assert pixels(images, 0).size == (300, 400)
    assert pixels(drafted(images, at_least_60), 0).size == (75, 100)
