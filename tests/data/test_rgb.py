"""Every mode of an image by one rule, with transparency dropped or on white."""

import io

import numpy as np
import pytest
from PIL import Image

from coltrain.data import Collection
from coltrain.data.images import JoinedImages, SelectedImages, decode, with_alpha
from coltrain.data.rgb import to_rgb
from coltrain.data.sources import load_collection
from coltrain.recipe import Source

RED = (200, 100, 50)


def transparent_palette():
    """A palette whose first colour is transparent, as PNG and GIF store it."""
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, 0, 0, 0])
    image.info["transparency"] = 0
    return image


def palette_of_alphas():
    """A palette with a transparency for each colour, which Pillow alone warns of."""
    image = transparent_palette()
    image.info["transparency"] = bytes([0, 255])
    return image


def transparent_colour():
    image = Image.new("RGB", (4, 4), RED)
    image.info["transparency"] = RED
    return image


@pytest.mark.parametrize(
    ("image", "dropped", "on_white"),
    [
        (Image.new("RGBA", (4, 4), (*RED, 0)), RED, (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (*RED, 255)), RED, RED),
        # 0.2 of the colour and 0.8 of white, in steps of 1/255: 200 -> 244, 100 -> 224, 50 -> 214.
        (Image.new("RGBA", (4, 4), (*RED, 51)), RED, (244, 224, 214)),
        (Image.new("LA", (4, 4), (80, 0)), (80, 80, 80), (255, 255, 255)),
        (transparent_palette(), RED, (255, 255, 255)),
        (palette_of_alphas(), RED, (255, 255, 255)),
        (transparent_colour(), RED, (255, 255, 255)),
        (Image.new("1", (4, 4), 1), (255, 255, 255), (255, 255, 255)),
        (Image.new("1", (4, 4), 0), (0, 0, 0), (0, 0, 0)),
        (Image.new("L", (4, 4), 90), (90, 90, 90), (90, 90, 90)),
        (Image.new("I;16", (4, 4), 0x7F80), (127, 127, 127), (127, 127, 127)),
        (Image.new("I", (4, 4), 0x1FFFF), (255, 255, 255), (255, 255, 255)),
        # Inverted without a colour profile: 255 - 10 times 255 - 0 of black.
        (Image.new("CMYK", (4, 4), (10, 20, 30, 0)), (245, 235, 225), (245, 235, 225)),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_each_mode_becomes_these_colours(image, dropped, on_white):
    for alpha, expected in (("drop", dropped), ("white", on_white)):
        found = to_rgb(image, alpha)
        assert found.mode == "RGB"
        assert found.getpixel((1, 2)) == expected
        # Nothing that another library would take for transparency.
        assert not found.has_transparency_data


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=image.info.get("transparency"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (4, 4), (*RED, 0)),
        transparent_palette(),
        palette_of_alphas(),
        transparent_colour(),
    ],
    ids=["alpha", "palette", "palette of alphas", "colour"],
)
def test_a_file_is_decoded_by_the_rule_that_is_asked_for(tmp_path, image):
    stored = {"bytes": png(image), "path": None}
    assert decode(stored, tmp_path).getpixel((0, 0)) == RED
    assert decode(stored, tmp_path, "white").getpixel((0, 0)) == (255, 255, 255)


def test_a_collection_is_read_by_the_rule_that_is_asked_for(tmp_path, write_table):
    content = png(Image.new("RGBA", (30, 30), (*RED, 0)))
    table = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_table(table, query=["how"], image=[content], image_filename=["a.png"])
    collection = load_collection(Source(path=str(tmp_path)), "train")
    white = collection.with_alpha("white")
    assert white.page_image(0).getpixel((0, 0)) == (255, 255, 255)
    assert collection.page_image(0).getpixel((0, 0)) == RED
    assert white.with_alpha("drop").page_image(0).getpixel((0, 0)) == RED
    assert isinstance(white, Collection)
    assert (white.queries, white.qrels) == (collection.queries, collection.qrels)
    several = JoinedImages([SelectedImages(collection.images, [0]), [Image.new("RGB", (2, 2))]])
    again = with_alpha(several, "white")
    assert again[0].getpixel((0, 0)) == (255, 255, 255)
    assert again[1].size == (2, 2)  # of pages that are not stored, as they are
    assert np.array_equal(np.asarray(several[0]), np.asarray(collection.page_image(0)))
