"""Which pages become hard negatives, on embeddings that are made by hand.

A page is one unit vector, a query is the first axis, so a page's score is its first component.
"""

import math
from dataclasses import replace

import pytest
import torch
from small_pages import SmallPages

from coltrain.data import Collection, Query, Row
from coltrain.evaluation.mining import MiningSettings, mine

SCORES = {"answer": 0.9, "twin": 0.895, "other-answer": 0.85, "near": 0.88, "far": 0.5, "hard": 0.8}


def vector(score, sign=1.0):
    return torch.tensor([[score, sign * math.sqrt(1 - score**2)]])


class ByHand:
    """A retriever that knows its answers. The twin lies close to the answer, the others across."""

    def encode_pages(self, images, on_item=None):
        list(images)
        return [
            vector(s, 1.0 if name in ("answer", "twin") else -1.0) for name, s in SCORES.items()
        ]

    def encode_queries(self, texts, on_item=None):
        return [torch.tensor([[1.0, 0.0]]) for _ in texts]


@pytest.fixture
def pages():
    """`answer` is the page of the row; `other-answer` answers a query of the same text."""
    ids = list(SCORES)
    return Collection(
        name="by-hand",
        layout="corpus",
        page_ids=ids,
        queries=[
            Query("q", "what is red"),
            Query("same", "What is  red"),
            Query("no", "unanswered"),
        ],
        rows=[Row(0, 0, "by-hand")],
        qrels={"q": {"answer": 1}, "same": {"other-answer": 1}},
        images=SmallPages(list(range(len(ids)))),
    )


def mined(pages, **settings):
    return mine(ByHand(), pages, MiningSettings(**{"top_k": 6, "per_query": 6, **settings}))


def names(found, query="q"):
    return [negative.page_id for negative in found.negatives[query]]


def test_answers_copies_and_pages_nearly_as_good_are_no_negatives(pages):
    found = mined(pages)
    # 95 % of .9 is .855: twin and near are above it; the other answer answers the same text.
    assert names(found) == ["hard", "far"]
    assert found.scores["q"] == pytest.approx(0.9)
    assert found.skipped == {
        "query without a relevant page": 1,
        "relevant": 4,  # both answers, for both queries
        "scores nearly as high as the positive": 4,
    }
    assert found.num_found == 2


def test_a_copy_of_the_positive_is_left_out_by_its_likeness_where_its_score_is_not_enough(pages):
    found = mined(pages, max_share=1.0)
    assert names(found) == ["near", "hard", "far"]
    assert found.skipped["near-duplicate of the positive"] == 2
    assert names(mined(pages, max_share=1.0, near_duplicate=1.0)) == ["twin", "near", "hard", "far"]


def test_a_judged_answer_is_left_out_though_another_query_was_judged(pages):
    assert "other-answer" not in names(mined(pages, max_share=1.0, near_duplicate=1.0))
    alone = {"q": {"answer": 1}}
    pages = replace(pages, qrels=alone)
    assert "other-answer" in names(mined(pages, max_share=1.0))


def test_only_the_first_of_the_ranking_are_looked_at_and_only_so_many_kept(pages):
    assert names(mined(pages, top_k=5, per_query=5)) == ["hard"]
    assert names(mined(pages, per_query=1)) == ["hard"]


def test_advice_says_which_rule_took_the_candidates_and_what_to_try(pages):
    assert mined(pages).advice() is None
    few = mined(pages, max_share=0.1)
    assert names(few) == []
    assert few.advice() == (
        "2 of 2 queries got no negative; 8 candidates scored nearly as high as the positive or "
        "higher: a larger --max-share keeps more of them, at the risk of pages that answer"
    )
    # The first of the ranking is the answer of `q`, and of `same` by its text.
    assert mined(pages, top_k=1, per_query=1, max_share=0.1).num_found == 2


def test_a_model_that_finds_nothing_is_to_be_trained_first(pages):
    lost = {"q": {"far": 1}}
    pages = replace(pages, qrels=lost, rows=[Row(0, 4, "by-hand")])
    found = mined(pages, top_k=3, per_query=3)
    assert found.num_found == 0
    assert "finds a relevant page for 0 queries only" in found.advice()
    assert "train it on this data first" in found.advice()
