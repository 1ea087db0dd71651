import math

import numpy as np
import pytest

from coltrain.evaluation.lexical import bm25_scores, chance_ndcg_at_5
from coltrain.evaluation.measures import measure


def test_chance_is_what_random_rankings_reach():
    # 1/log2(2) + 1/log2(3) + 1/log2(4) + 1/log2(5) + 1/log2(6) = 2.9485, over the pages.
    assert chance_ndcg_at_5(200) == pytest.approx(2.948459118879392 / 200)
    draws = np.random.default_rng(0)
    num_pages, num_queries = 20, 4000
    qrels = {str(query): {"0": 1} for query in range(num_queries)}
    ranking = {
        query: {str(page): score for page, score in enumerate(draws.random(num_pages))}
        for query in qrels
    }
    found = measure(qrels, ranking, ["nDCG@5"]).measures["nDCG@5"]
    # Standard error: a spread of about 0.3 over the root of 4,000.
    assert found == pytest.approx(chance_ndcg_at_5(num_pages), abs=0.015)


def test_bm25_follows_its_formula():
    texts = ["red iron iron", "red paper", "glass of red water and light"]
    scores = bm25_scores(["iron red", "paper"], texts)
    assert scores.shape == (2, 3)
    k1, b, mean_length = 1.5, 0.75, (3 + 2 + 6) / 3

    def term(count, in_texts, length):
        idf = math.log(1 + (3 - in_texts + 0.5) / (in_texts + 0.5))
        return idf * count / (count + k1 * (1 - b + b * length / mean_length))

    assert scores[0, 0] == pytest.approx(term(2, 1, 3) + term(1, 3, 3), rel=1e-5)
    assert scores[0, 1] == pytest.approx(term(1, 3, 2), rel=1e-5)
    assert scores[1] == pytest.approx([0, term(1, 1, 2), 0], rel=1e-5)


def test_words_that_no_text_has_score_nothing():
    assert bm25_scores(["zebra"], ["red iron", "paper"]).tolist() == [[0.0, 0.0]]
