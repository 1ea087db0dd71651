import copy
import io
import json
import re

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from small_pages import small_page

import coltrain
from coltrain.errors import DataError, UsageError
from coltrain.evaluation.export import encode_to_file, read_pages, read_queries
from coltrain.model.retriever import Retriever


def encode(retriever, tmp_path, images=(), texts=(), name="out.npz"):
    encode_to_file(retriever, list(images), list(texts), tmp_path / name)
    with np.load(tmp_path / name, allow_pickle=False) as arrays:
        return dict(arrays)


def test_a_file_holds_each_item_unpadded_and_in_order(tiny_retriever, tmp_path):
    images = [small_page(number) for number in range(3)]
    texts = ["red iron", "night", "light of the north"]
    arrays = encode(tiny_retriever, tmp_path, images, texts)
    assert list(arrays) == [
        *[
            name + end
            for name in [f"{kind}_{number}" for kind in ("page", "query") for number in range(3)]
            for end in ("", "_ids", "_positions")
        ],
        "settings",
    ]
    pages, queries = tiny_retriever.encode_pages(images), tiny_retriever.encode_queries(texts)
    for number in range(3):
        assert arrays[f"page_{number}"].dtype == np.float32
        assert np.array_equal(arrays[f"page_{number}"], pages[number].numpy())
        assert np.array_equal(arrays[f"query_{number}"], queries[number].numpy())
        ids = arrays[f"query_{number}_ids"].tolist()
        assert ids == tiny_retriever.query_ids(texts[number])
        for name in (f"page_{number}", f"query_{number}"):
            num_tokens = len(arrays[name])
            assert arrays[f"{name}_ids"].shape == (num_tokens,)
            assert arrays[f"{name}_positions"].shape == (3, num_tokens)
            assert arrays[f"{name}_positions"].dtype == arrays[f"{name}_ids"].dtype == np.int64
    assert len({len(arrays[f"page_{n}"]) for n in range(3)}) == 3
    norms = np.linalg.norm(arrays["page_1"], axis=1)
    assert norms == pytest.approx(np.ones(len(norms)), abs=1e-5)


def test_ids_and_positions_are_those_that_the_model_read(tiny_retriever, tmp_path):
    arrays = encode(tiny_retriever, tmp_path, [small_page(1)], ["red iron"])
    preparer = tiny_retriever.built.preparer
    page = preparer.collate_pages([preparer.prepare_page(small_page(1))])
    assert arrays["page_0_ids"].tolist() == page.input_ids[0].tolist()
    assert arrays["page_0_positions"].tolist() == page.position_ids[:, 0].tolist()
    assert arrays["query_0_positions"].tolist() == [list(range(len(arrays["query_0"])))] * 3


def test_the_settings_are_in_the_file(tiny_retriever, tmp_path):
    encode_to_file(tiny_retriever, [], ["red"], tmp_path / "out.npz", model="tiny")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert arrays["settings"].shape == ()
        settings = json.loads(arrays["settings"].item())
    built = tiny_retriever.built
    assert settings == {
        "format": 1,
        "model": "tiny",
        "base": "tiny",
        "base_revision": None,
        "base_weights_hash": built.weights_hash,
        "projection_hash": built.projection_hash,
        "has_adapter": False,
        "dtype": "float32",
        "device": "cpu",
        **built.preparer.settings(),
        "versions": {
            "coltrain": coltrain.__version__,
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
        },
    }


def test_embeddings_do_not_depend_on_their_neighbours(tiny_retriever, tmp_path):
    texts = ["red", "light of the north and water and glass and stone"]
    together = encode(tiny_retriever, tmp_path, [small_page(0), small_page(2)], texts)
    alone = encode(tiny_retriever, tmp_path, [small_page(2)], texts[:1], "alone.npz")
    assert np.array_equal(together["page_1"], alone["page_0"])
    assert np.array_equal(together["query_0"], alone["query_0"])


def test_embeddings_are_written_in_float32_whatever_the_model_computes_in(tiny_retriever, tmp_path):
    built = copy.deepcopy(tiny_retriever.built)
    built.model.double()
    retriever = Retriever(built)
    assert retriever.encode_queries(["red"])[0].dtype == torch.float64
    assert encode(retriever, tmp_path, texts=["red"])["query_0"].dtype == np.float32


def test_the_name_of_the_file_is_kept_and_its_folder_made(tiny_retriever, tmp_path):
    encode_to_file(tiny_retriever, [], ["red"], tmp_path / "deep" / "embeddings.bin")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["embeddings.bin"]


def test_a_file_that_cannot_be_written_is_said(tiny_retriever, tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(UsageError) as caught:
        encode_to_file(tiny_retriever, [], ["red"], tmp_path / "notes" / "out.npz")
    assert str(caught.value) == (
        "UsageError [cannot-write]: the file of embeddings cannot be written.\n"
        f"  where     {tmp_path}/notes/out.npz\n"
        "  received  File exists"
    )


def queries_of(tmp_path, content: bytes) -> list[str]:
    (tmp_path / "queries.txt").write_bytes(content)
    return read_queries(tmp_path / "queries.txt")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"  leading\ttab \ntrailing  \n", ["  leading\ttab ", "trailing  "]),
        (b"one\n\n\nfour\n", ["one", "", "", "four"]),
        (b"\n", [""]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        ("größe\u2028nicht hier\x0cnoch da\n".encode(), ["größe\u2028nicht hier\x0cnoch da"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
    ],
    ids=["plain", "no end", "spaces", "blank", "one blank", "windows", "separators", "mark"],
)
def test_queries_are_kept_as_typed(tmp_path, content, texts):
    assert queries_of(tmp_path, content) == texts


def test_spaces_reach_the_tokens(tiny_retriever, tmp_path):
    plain, spaced, empty = queries_of(tmp_path, b"red iron\n  red iron\n\n")
    arrays = encode(tiny_retriever, tmp_path, texts=[plain, spaced, empty])
    ids = [arrays[f"query_{number}_ids"].tolist() for number in range(3)]
    assert len(ids[1]) > len(ids[0]) > len(ids[2]) > 0


def test_an_empty_file_has_no_queries(tmp_path):
    with pytest.raises(DataError) as caught:
        queries_of(tmp_path, b"")
    assert str(caught.value) == (
        "DataError [no-queries]: the file of queries is empty.\n"
        f"  where     {tmp_path}/queries.txt\n"
        "  expected  one a line"
    )


def test_a_file_of_queries_that_is_no_text_is_said(tmp_path):
    with pytest.raises(DataError, match=r"\[not-text\]: .*cannot be read as text") as caught:
        queries_of(tmp_path, b"\xff\xfe\x00")
    assert caught.value.expected == "UTF-8, one query a line"
    with pytest.raises(DataError, match=r"\[file-not-found\]: there is no such file"):
        read_queries(tmp_path / "missing.txt")
    with pytest.raises(DataError, match=r"\[not-text\]"):
        read_queries(tmp_path)


def test_pages_are_read_upright_in_rgb_as_a_data_set_reads_them(tmp_path):
    image = Image.new("RGBA", (4, 2), (10, 20, 30, 0))
    image.save(tmp_path / "alpha.png")
    turned = Image.new("RGB", (4, 2))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held on its side
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("1", (3, 3)).save(tmp_path / "scan.tif")
    names = ["alpha.png", "turned.jpg", "scan.tif"]
    alpha, upright, scan = read_pages([tmp_path / name for name in names])
    assert alpha.getpixel((0, 0)) == (10, 20, 30)
    [on_white] = read_pages([tmp_path / "alpha.png"], "white")
    assert on_white.getpixel((0, 0)) == (255, 255, 255)
    assert upright.size == (2, 4)
    assert {page.mode for page in (alpha, upright, scan)} == {"RGB"}


def test_a_missing_page_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        read_pages([tmp_path / "missing.png"])
    assert str(caught.value) == (
        "DataError [file-not-found]: there is no such image file.\n"
        f"  where     {tmp_path}/missing.png"
    )


def test_a_file_that_is_no_image_is_named(tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("not an image")
    with pytest.raises(DataError) as caught:
        read_pages([file])
    assert str(caught.value) == (
        "DataError [not-an-image]: this file cannot be read as an image.\n"
        f"  where     {file}\n"
        "  received  12 bytes that Pillow cannot decode\n"
        "  expected  PNG, JPEG, TIFF, WebP or another format that Pillow reads"
    )


@pytest.mark.parametrize("kind", ["folder", "cut off", "too large"])
def test_no_kind_of_broken_page_gives_a_traceback(tmp_path, monkeypatch, kind):
    file = tmp_path / "page.png"
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    if kind == "folder":
        file.mkdir()
    elif kind == "cut off":
        file.write_bytes(stream.getvalue()[:600])
    else:
        file.write_bytes(stream.getvalue())
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=re.escape("[not-an-image]")) as caught:
        read_pages([file])
    assert caught.value.where == str(file)


def test_a_page_is_encoded_as_its_pixels_say(tiny_retriever, tmp_path):
    small_page(1).save(tmp_path / "page.png")
    arrays = encode(tiny_retriever, tmp_path, read_pages([tmp_path / "page.png"]))
    expected = tiny_retriever.encode_pages([small_page(1)])[0]
    assert torch.equal(torch.from_numpy(arrays["page_0"]), expected)
