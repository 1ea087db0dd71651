import base64
import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from run_on_paper import evaluation_of, scores_of
from small_pages import small_collection

from coltrain.data import Query
from coltrain.evaluation.illustrations import (
    THUMBNAIL_BYTES,
    THUMBNAIL_SIZE,
    illustrate,
    thumbnail,
)


@pytest.fixture
def collection():
    return small_collection("pages", 30)


class Counted:
    """Page images that count how often one is decoded."""

    def __init__(self, images):
        self.images, self.decoded = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.decoded.append(index)
        return self.images[index]


def test_ranks_and_scores_are_those_of_the_scores(collection):
    scores = scores_of(collection, skill=0.3)
    found = illustrate(evaluation_of(collection, scores), collection)["queries"]
    assert len(found) == 30
    for place, one in enumerate(found):
        row = scores[place]
        others = [row[p].item() for p in range(30) if p != place]
        assert one["id"] == f"q{place}"
        assert one["rank"] == 1 + sum(other > row[place].item() for other in others)
        assert one["relevant_score"] == row[place].item()
        assert one["other_score"] == max(others)
        assert one["winner"] == f"p{int(row.argmax())}"
        assert one["num_tokens"] == 3 + place % 4
    assert len({one["rank"] for one in found}) > 1


def test_ties_are_broken_as_the_measures_break_them(collection):
    scores = torch.ones(30, 30)
    evaluation = evaluation_of(collection, scores)
    found = illustrate(evaluation, collection)["queries"]
    hits = sum(one["rank"] == 1 for one in found)
    assert hits / 30 == pytest.approx(evaluation.result.measures["Recall@1"])
    assert {one["winner"] for one in found} == {"p9"}  # the largest id as a string


def test_the_best_of_several_relevant_pages_counts_and_none_of_them_is_another(collection):
    qrels = {**collection.qrels, "q0": {"p0": 1, "p1": 2, "p2": 0}}
    collection = dataclasses.replace(collection, qrels=qrels)
    scores = torch.zeros(30, 30)
    scores[0, :4] = torch.tensor([0.5, 0.8, 0.7, 0.6])
    found = illustrate(evaluation_of(collection, scores), collection)["queries"][0]
    assert found["rank"] == 1
    assert found["relevant_score"] == pytest.approx(0.8)
    assert found["other_score"] == pytest.approx(0.7)  # judged, and not relevant


def test_queries_without_a_relevant_page_are_left_out(collection):
    qrels = {**collection.qrels, "q3": {"p3": 0}}
    more = [*collection.queries, Query("unjudged", "what nobody judged")]
    collection = dataclasses.replace(collection, qrels=qrels, queries=more)
    evaluation = evaluation_of(collection, torch.rand(31, 30))
    ids = {one["id"] for one in illustrate(evaluation, collection)["queries"]}
    assert ids == {f"q{n}" for n in range(30)} - {"q3"}


def test_where_all_pages_are_relevant_there_is_no_other_score():
    collection = small_collection("all", 2)
    qrels = {query.id: {"p0": 1, "p1": 1} for query in collection.queries}
    collection = dataclasses.replace(collection, qrels=qrels)
    found = illustrate(evaluation_of(collection, torch.rand(2, 2)), collection)["queries"]
    assert [one["other_score"] for one in found] == [None, None]


def test_the_gallery_shows_misses_first_and_hits_in_a_third_of_it(collection):
    document = illustrate(evaluation_of(collection, scores_of(collection, skill=0.5)), collection)
    ranks = [one["rank"] for one in document["gallery"]]
    assert sum(one["rank"] > 1 for one in document["queries"]) > 8
    assert len(ranks) == 12
    assert ranks[:8] == sorted(ranks[:8], reverse=True)
    assert min(ranks[:8]) > 1
    assert ranks[8:] == [1, 1, 1, 1]
    assert ranks[0] == max(one["rank"] for one in document["queries"])


@pytest.mark.parametrize(("skill", "num_misses"), [(9.0, 0), (-9.0, 12)])
def test_the_gallery_is_full_where_there_are_only_hits_or_only_misses(
    collection, skill, num_misses
):
    document = illustrate(evaluation_of(collection, scores_of(collection, skill)), collection)
    gallery = document["gallery"]
    assert (len(gallery), sum(one["rank"] > 1 for one in gallery)) == (12, num_misses)
    assert len({one["id"] for one in gallery}) == 12
    assert all((one["winner"] == one["relevant"]) == (one["rank"] == 1) for one in gallery)


def test_a_short_gallery_shows_what_there_is():
    collection = small_collection("few", 3)
    document = illustrate(evaluation_of(collection, torch.eye(3)), collection)
    assert [one["id"] for one in document["gallery"]] == ["q0", "q1", "q2"]


def test_only_pages_that_are_shown_are_decoded_and_each_once(collection):
    images = Counted(collection.images)
    collection = dataclasses.replace(collection, images=images)
    document = illustrate(evaluation_of(collection, scores_of(collection, skill=0.5)), collection)
    named = {one[role] for one in document["gallery"] for role in ("relevant", "winner")}
    assert set(document["pages"]) == named
    assert len(named) < 30
    assert sorted(images.decoded) == sorted(int(page[1:]) for page in named)


def test_the_document_is_json_and_the_same_each_time(collection):
    evaluation = evaluation_of(collection, scores_of(collection, skill=0.5))
    first, second = (json.dumps(illustrate(evaluation, collection)) for _ in range(2))
    assert first == second
    assert json.loads(first)["dataset"] == "pages"


@pytest.mark.parametrize("size", [(1654, 2339), (20_000, 3), (3, 5000), (40, 30), (1, 1)])
def test_a_thumbnail_of_any_page_is_small_and_keeps_its_proportions(size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    page = Image.fromarray(noise)
    found = thumbnail(page)
    content = base64.b64decode(found["jpeg"], validate=True)
    decoded = Image.open(io.BytesIO(content))
    assert page.size == size
    assert decoded.format == "JPEG"
    assert decoded.size == (found["width"], found["height"])
    assert len(content) <= THUMBNAIL_BYTES
    assert found["width"] <= THUMBNAIL_SIZE[0]
    assert found["height"] <= THUMBNAIL_SIZE[1]
    if min(found["width"], found["height"]) > 20:
        assert found["width"] / found["height"] == pytest.approx(size[0] / size[1], rel=0.05)
