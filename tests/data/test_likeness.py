"""Pages that look the same are found, whatever their encoding and size; others are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from coltrain.data.collection import Collection
from coltrain.data.drawn import drawn_collection
from coltrain.data.images import PageImages
from coltrain.data.likeness import (
    ALIKE,
    Alike,
    Looks,
    alike_pages,
    groups,
    likeness,
    look_at,
    thumbnail,
)
from coltrain.errors import DataError


def jpeg(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def resized(image, factor):
    return image.resize((round(image.width * factor), round(image.height * factor)))


def receipt(total, width=360, height=700):
    """Receipts of one shop: the same but for a number."""
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for line in range(12):
        draw.text(
            (30, 40 + 45 * line), f"ITEM {line * 7919 % 100} THING", fill="black", font_size=22
        )
    draw.text((200, 600), f"{total}", fill="black", font_size=44)
    return page


class Pages(PageImages):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if self.images[index] is None:
            raise DataError(
                "truncated", "a page's image is cut off or damaged.", received="3 bytes"
            )
        return self.images[index]


def collection(*images, name="pages"):
    ids = [f"p{place}" for place in range(len(images))]
    return Collection(name, "rows", ids, [], [], {}, Pages(list(images)))


@pytest.fixture(scope="module")
def drawn():
    pages = drawn_collection("test")
    return [pages.page_image(place) for place in range(40)]


WAYS = {
    "q30": lambda image: jpeg(image, 30),
    "q95": lambda image: jpeg(image, 95),
    "half": lambda image: resized(image, 0.5),
    "double": lambda image: resized(image, 2),
    "gray": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_found_and_nothing_else(drawn, way):
    everything = look_at(collection(*drawn))
    copies = look_at(collection(*(WAYS[way](image) for image in drawn)))
    pairs = alike_pages(copies, everything)
    assert {(pair.left, pair.right) for pair in pairs} == {(i, i) for i in range(len(drawn))}
    assert all(ALIKE <= pair.likeness <= 1 for pair in pairs)


def test_the_same_pixels_are_told_from_the_same_picture(drawn):
    looks = look_at(collection(drawn[0], drawn[0].copy(), jpeg(drawn[0], 80), drawn[1]))
    pairs = alike_pages(looks)
    assert [(pair.left, pair.right, pair.is_exact) for pair in pairs] == [
        (0, 1, True),
        (0, 2, False),
        (1, 2, False),
    ]
    assert pairs[0].likeness == 1.0


def test_receipts_of_one_shop_are_different_pages():
    looks = look_at(collection(receipt("12.50"), receipt("98.35"), jpeg(receipt("98.35"), 40)))
    far = np.corrcoef(looks.thumbnails[0].ravel(), looks.thumbnails[1].ravel())[0, 1]
    assert far > 0.9  # the case bites: from afar they are one
    assert [(pair.left, pair.right) for pair in alike_pages(looks)] == [(1, 2)]


def test_a_pixel_that_differs_is_another_page_to_the_hash():
    page = receipt("1.00")
    other = page.copy()
    other.putpixel((0, 0), (254, 255, 255))
    looks = look_at(collection(page, other))
    assert looks.pixels[0] != looks.pixels[1]
    turned = Image.frombytes("RGB", (page.height, page.width), page.tobytes())
    assert look_at(collection(page, turned)).pixels[0] != look_at(collection(turned)).pixels[0]


def test_pages_that_show_nothing_are_alike_by_their_pixels_only():
    white = Image.new("RGB", (100, 140), "white")
    looks = look_at(collection(white, white.copy(), Image.new("RGB", (90, 140), "white")))
    assert looks.blank.all()
    assert [(pair.left, pair.right) for pair in alike_pages(looks)] == [(0, 1)]


def test_a_page_that_cannot_be_decoded_is_listed():
    page = receipt("1.00")
    looks = look_at(collection(page, None, page.copy(), None), num_threads=3)
    assert looks.broken == {1: "truncated: 3 bytes", 3: "truncated: 3 bytes"}
    assert [(pair.left, pair.right) for pair in alike_pages(looks)] == [(0, 2)]


def test_threads_change_nothing(drawn):
    one, four = (look_at(collection(*drawn), num_threads=number) for number in (1, 4))
    assert one.pixels == four.pixels
    assert (one.thumbnails == four.thumbnails).all()
    assert (one.sizes == four.sizes).all()


def slow_likeness(left, right):
    a, b = left.astype(float), right.astype(float)
    a, b = a - a.mean(), b - b.mean()
    b = b * (a * b).sum() / (b * b).sum()
    values = []
    for y in range(0, 64, 8):
        for x in range(0, 64, 8):
            p, q = a[y : y + 8, x : x + 8], b[y : y + 8, x : x + 8]
            cov = ((p - p.mean()) * (q - q.mean())).mean()
            floor = 0.2 * max((a * a).mean(), 1)
            values.append((2 * cov + floor) / (p.var() + q.var() + floor))
    return min(values)


def test_likeness_is_what_a_slow_loop_says(drawn):
    left = np.array([thumbnail(image) for image in drawn[:6]])
    right = np.array(
        [thumbnail(jpeg(resized(image, 0.5), 30)) for image in drawn[1:4] + drawn[3:6]]
    )
    expected = [slow_likeness(a, b) for a, b in zip(left, right, strict=True)]
    assert min(expected) < 0.5 < 0.9 < max(expected)
    # float32 sums over 4,096 pixels
    np.testing.assert_allclose(likeness(left, right), expected, rtol=1e-4, atol=1e-4)


def test_blocks_do_not_lose_pairs(drawn, monkeypatch):
    looks = look_at(collection(*drawn[:8], *(jpeg(image, 50) for image in drawn[:8])))
    whole = alike_pages(looks)
    monkeypatch.setattr("coltrain.data.likeness._ROWS_AT_ONCE", 3)
    seen = []
    assert alike_pages(looks, on_rows=seen.append) == whole
    assert len(whole) == 8
    assert sum(seen) == 16
    assert len(seen) > 1


def test_pairs_make_groups():
    pairs = [Alike(0, 3, True, 1.0), Alike(5, 6, False, 0.9), Alike(3, 4, False, 0.9)]
    assert groups(pairs) == [[0, 3, 4], [5, 6]]


def test_nothing_is_alike_in_an_empty_set():
    empty = Looks([], np.zeros((0, 64, 64), np.uint8), np.zeros((0, 2), int), {})
    assert alike_pages(empty) == []
