"""A model that is to see transparent pages on white sees them so in an evaluation too."""

import io

import datasets
import torch
from PIL import Image

import coltrain
from coltrain.data.sources import load_collection
from coltrain.evaluation.evaluate import evaluate
from coltrain.recipe import Source


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def test_pages_of_a_data_set_are_decoded_by_the_rule_of_the_model(tmp_path):
    pages = [Image.new("RGBA", (56, 56), (200, 100, 50, 0)), Image.new("RGB", (56, 84), "gray")]
    table = datasets.Dataset.from_dict(
        {
            "query": ["iron", "night"],
            "image": [png(page) for page in pages],
            "image_filename": ["a", "b"],
        },
        features=datasets.Features(
            {
                "query": datasets.Value("string"),
                "image": datasets.Image(),
                "image_filename": datasets.Value("string"),
            }
        ),
    )
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    collection = load_collection(Source(path=str(tmp_path)), "test")
    dropped, white = (
        evaluate(coltrain.load("tiny", alpha=alpha), collection).pages
        for alpha in ("drop", "white")
    )
    [on_paper] = coltrain.load("tiny").encode_pages([Image.new("RGB", (56, 56), "white")])
    assert torch.equal(white[0], on_paper)
    assert not torch.equal(dropped[0], on_paper)
    assert torch.equal(white[1], dropped[1])
