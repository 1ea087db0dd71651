import hashlib
import io

import pytest
from PIL import Image

from coltrain.data import Row, load_collection
from coltrain.data.images import decode
from coltrain.errors import DataError
from coltrain.recipe.source import Source


@pytest.fixture
def load_rows(tmp_path, write_table):
    """Writes columns as a folder in the rows layout and loads it."""

    def load(folder: str = "pages", **columns: list):
        write_table(tmp_path / folder / "data" / "train-00000-of-00001.parquet", **columns)
        return load_collection(Source(path=str(tmp_path / folder)), "train")

    return load


def test_texts_become_queries_and_file_names_become_pages(load_rows, png):
    collection = load_rows(
        query=["how", "what", "how"],
        image=[png(1), png(2), png(3)],
        image_filename=["a.png", "b.png", "c.png"],
        source=["x", "y", "x"],
    )
    assert collection.layout == "rows"
    assert collection.page_ids == ["a.png", "b.png", "c.png"]
    assert [(query.id, query.text) for query in collection.queries] == [("0", "how"), ("1", "what")]
    assert collection.rows == [Row(0, 0, "x"), Row(1, 1, "y"), Row(0, 2, "x")]
    assert collection.qrels == {"0": {"a.png": 1, "c.png": 1}, "1": {"b.png": 1}}


def test_rows_of_one_page_share_it_and_the_first_image_is_shown(load_rows, png):
    collection = load_rows(
        query=["how", "what"], image=[png(1), png(9)], image_filename=["a.png", "a.png"]
    )
    assert collection.page_ids == ["a.png"]
    assert collection.rows[1].page == 0
    assert collection.page_image(0).getpixel((0, 0)) == (1, 0, 0)


def test_one_file_name_in_two_sources_is_two_pages(load_rows, png):
    collection = load_rows(
        query=["how", "what", "why"],
        image=[png(1), png(2), png(3)],
        image_filename=["1.png", "1.png", "2.png"],
        source=["x", "y", "y"],
    )
    assert collection.page_ids == ["x/1.png", "y/1.png", "2.png"]


def test_a_page_without_a_file_name_is_known_by_its_bytes(load_rows, png):
    collection = load_rows(
        query=["how", "what", "why"],
        image=[png(1), png(2), png(1)],
        image_filename=[None, "b.png", ""],
    )
    assert collection.page_ids == [hashlib.sha256(png(1)).hexdigest(), "b.png"]
    without_column = load_rows("others", query=["how", "what"], image=[png(1), png(1)])
    assert without_column.page_ids == [hashlib.sha256(png(1)).hexdigest()]


def test_a_row_without_a_query_leaves_its_page_as_a_distractor(load_rows, png):
    collection = load_rows(
        query=[None, "what", " \n", ""],
        image=[png(i) for i in range(4)],
        image_filename=list("abcd"),
    )
    assert collection.page_ids == list("abcd")
    assert [(query.id, query.text) for query in collection.queries] == [("1", "what")]
    assert collection.rows == [Row(0, 1, collection.name)]
    assert collection.left_out == {"empty-query": 3}
    assert [(found.row, found.page) for found in collection.findings] == [
        (0, "a"),
        (2, "c"),
        (3, "d"),
    ]


def test_a_query_keeps_its_text_as_typed(load_rows, png):
    collection = load_rows(query=["  How? "], image=[png(0)], image_filename=["a"])
    assert collection.queries[0].text == "  How? "


def test_image_files_beside_the_table_are_found(tmp_path, write_table, png):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(png(7))
    write_table(tmp_path / "rows.parquet", query=["how"], image=["scans/a.png"])
    collection = load_collection(Source(path=str(tmp_path)), "train")
    assert collection.page_image(0).getpixel((0, 0)) == (7, 0, 0)


def test_a_missing_column_says_which_there_are(load_rows, png):
    with pytest.raises(DataError) as caught:
        load_rows(question=["how"], image=[png(0)])
    assert str(caught.value).endswith(
        "pages:train\n  received  columns question, image\n  expected  query"
    )
    assert caught.value.code == "missing-column"
    with pytest.raises(DataError, match=r"\[missing-column\]: there is no column for images"):
        load_rows("others", query=["how"], picture=[png(0)])


def test_an_empty_table_is_an_empty_split(load_rows):
    with pytest.raises(DataError) as caught:
        load_rows(query=[], image=[])
    assert caught.value.code == "empty-split"


def test_a_column_of_numbers_holds_no_images(load_rows):
    with pytest.raises(DataError) as caught:
        load_rows(query=["how"], image=[3])
    assert caught.value.code == "not-an-image"
    assert caught.value.received == "values of type Value('int64')"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"no image at all", "not-an-image"), (b"", "zero-sized"), (None, "not-an-image")],
)
def test_a_page_that_cannot_be_decoded_is_named_when_it_is_asked_for(load_rows, png, content, code):
    collection = load_rows(
        query=["how", "what"], image=[png(1), content], image_filename=["a.png", "b.png"]
    )
    assert collection.page_image(0).size == (8, 4)
    with pytest.raises(DataError, match="a page's image") as caught:
        collection.page_image(1)
    assert caught.value.code == code
    assert caught.value.where == f"{collection.name}, page 'b.png'"
    assert caught.value.suggestion


def test_half_an_image_is_no_image(load_rows):
    stream = io.BytesIO()
    Image.effect_noise((60, 60), 90).save(stream, "PNG")
    half = stream.getvalue()[: len(stream.getvalue()) // 2]
    collection = load_rows(query=["how"], image=[half], image_filename=["a.png"])
    with pytest.raises(DataError, match=r"\[truncated\]: a page's image is cut off or damaged"):
        collection.page_image(0)


def test_a_page_without_name_and_image_is_known_by_its_row(load_rows, png):
    collection = load_rows(query=["how", "what", "why"], image=[png(1), None, b""])
    assert collection.page_ids == [hashlib.sha256(png(1)).hexdigest(), "row 1", "row 2"]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (200, 100, 50, 0), (200, 100, 50)),  # transparent, and its colour is kept
        ("LA", (80, 10), (80, 80, 80)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb_and_alpha_is_dropped(tmp_path, mode, color, expected):
    stream = io.BytesIO()
    Image.new(mode, (5, 3), color).save(stream, "PNG")
    image = decode({"bytes": stream.getvalue(), "path": None}, tmp_path)
    assert image.mode == "RGB"
    assert image.getpixel((2, 1)) == expected


def test_a_palette_is_looked_up(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), (10, 200, 30)).quantize(4).save(stream, "PNG")
    image = decode({"bytes": stream.getvalue(), "path": None}, tmp_path)
    assert image.getpixel((0, 0)) == (10, 200, 30)


def test_a_photograph_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by a quarter when shown"
    stream = io.BytesIO()
    Image.new("RGB", (30, 10)).save(stream, "JPEG", exif=exif)
    assert decode({"bytes": stream.getvalue(), "path": None}, tmp_path).size == (10, 30)
