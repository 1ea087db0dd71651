"""The page of an evaluation and of an explanation: whole, self-contained, and telling the truth."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from report_reader import read
from small_pages import small_collection, small_page

from coltrain.evaluation.evaluate import Evaluation, evaluate, result_of, with_intervals
from coltrain.evaluation.explanation import explain
from coltrain.evaluation.noise import Floor
from coltrain.reproduction.evaluation_report import (
    evaluation_page,
    explanation_page,
    section_of,
    visible,
)
from coltrain.reproduction.evaluation_report.heat import maps, overlay

DOCUMENT = {
    "model": "runs/<b>first</b>",
    "encoder": {
        "dtype": "float32",
        "device": "cpu",
        "max_visual_tokens": 64,
        "query_prefix": "Query: ",
        "query_suffix": "<|endoftext|>",
    },
    "scoring": {"dtype": "float32", "padding": "masked"},
}
FLOORS = [
    Floor("batches of 4, padded", 2e-6, 0, 6, {"nDCG@5": 0.0}, 0.0),
    Floor("weights in float16", None, None, 6, {}, None, "not-finite-embedding: pages, page 'p1'"),
]


@pytest.fixture(scope="module")
def collection():
    return small_collection("pages", 6)


@pytest.fixture(scope="module")
def evaluation(tiny_retriever, collection):
    """Real embeddings, with scores of which p5 wins all but its own query, and ties with p1."""
    found = evaluate(tiny_retriever, collection)
    scores = torch.eye(6) * 5
    scores[:, 5] = 9.0
    scores[1, 1] = 9.0
    result = with_intervals(result_of(collection, scores))
    return Evaluation(result, found.queries, found.pages, scores)


@pytest.fixture(scope="module")
def page(tiny_retriever, collection, evaluation):
    return evaluation_page([section_of(tiny_retriever, collection, evaluation, FLOORS)], DOCUMENT)


def test_the_page_asks_for_nothing_from_anywhere(page):
    found = read(page)
    assert found.unclosed == []
    assert found.scripts == []
    for image in found.all("img"):
        assert image["src"].startswith("data:image/")
        assert "alt" in image
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "@import" not in found.style
    assert not re.search(r"url\((?!#)", found.style)
    assert "prefers-color-scheme: dark" in found.style
    assert found.all("meta")[1]["content"] == "width=device-width, initial-scale=1"
    assert "<b>first</b>" not in page  # names are text


def test_scores_intervals_and_noise_are_there(page, evaluation):
    text = read(page).text
    for name, value in evaluation.result.measures.items():
        assert f"{name}" in text
        assert f"{100 * value:.1f}" in text
    interval = evaluation.result.intervals["MAP"]
    assert f"{100 * interval['low']:.1f} – {100 * interval['high']:.1f}" in text
    assert "batches of 4, padded" in text
    assert "2.0e-06" in text
    assert "not-finite-embedding: pages, page 'p1'" in text


def test_each_missed_query_shows_the_page_that_should_have_won_and_the_one_that_did(
    page, collection
):
    text = read(page).text
    assert "5 of 6 queries do not have a relevant page first" in text
    for place in range(5):
        assert f"“{collection.queries[place].text}”" in text
    assert text.count("should have won") == 5
    assert text.count("✗ won") == 5
    assert "The best relevant page of 1 of 6 queries has exactly the score of a page" in text


def test_a_data_set_without_misses_says_so(tiny_retriever, collection, evaluation):
    scores = torch.eye(6)
    best = Evaluation(with_intervals(result_of(collection, scores)), evaluation.queries, (), scores)
    page = evaluation_page([section_of(tiny_retriever, collection, best)], DOCUMENT)
    text = read(page).text
    assert "No query missed its page" in text
    assert "No relevant page ties with another" in text
    assert "Noise floor" not in text


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_a_heat_map_is_strongest_where_the_similarity_is():
    values = torch.tensor([[0.1, 0.2, 0.9], [0.15, 0.5, 0.12]])
    drawn = pixels(overlay(values))
    assert drawn.shape == (2, 3, 4)
    assert np.unravel_index(drawn[..., 3].argmax(), (2, 3)) == (0, 2)
    assert drawn[1, 1, 3] > 0
    assert (drawn[..., 3] == 0).sum() >= 3  # at the median and below
    assert pixels(overlay(torch.ones(2, 2)))[..., 3].max() == 0


def test_the_box_is_on_the_best_patch(tiny_retriever):
    found = explain(tiny_retriever, "red glass", small_page(1))
    drawn = maps(found)
    assert drawn[0]["label"] == "the whole score"
    words = [place for place, match in enumerate(found.matches) if match.is_word]
    assert len(drawn) == 1 + len(words)
    for one, place in zip(drawn[1:], words, strict=True):
        row, column = divmod(int(found.similarities[place].argmax()), found.columns)
        assert one["box"]["left"] == pytest.approx(100 * column / 3)
        assert one["box"]["top"] == pytest.approx(100 * row / 2)
    assert len(maps(found, 1)) == 2


def test_an_explanation_has_every_token(tiny_retriever):
    image = small_page(1)
    found = explain(tiny_retriever, "red <glass>", image)
    page = read(explanation_page(found, image, "tiny", "a.png"))
    assert page.unclosed == []
    assert f"score {found.score:.4f}" in page.text
    assert sum(element == "tr" for element, _ in page.elements) == 1 + len(found.matches)
    assert "<glass>" in page.text


def test_white_space_is_visible():
    assert (visible("\n"), visible("a b")) == ("\\n", "a b")
