"""Measures: tables worked by hand, then pytrec_eval on random rankings full of ties."""

import doctest
import importlib
import math
import random

import pytest
import pytrec_eval

from coltrain.errors import UsageError
from coltrain.evaluation.measures import DEFAULT_MEASURES, measure

module = importlib.import_module("coltrain.evaluation.measures")

QRELS = {"q1": {"a": 1, "b": 2, "c": 0}, "q2": {"d": 1}}
RANKING = {
    "q1": {"c": 0.9, "a": 0.8, "x": 0.7, "b": 0.6},
    "q2": {"d": 3.0, "a": 2.0},
}


def test_ndcg_worked_by_hand():
    result = measure(QRELS, RANKING, ["nDCG@2", "nDCG@5", "nDCG"])
    # q1 ranks c a x b with gains 0 1 0 2; the ideal order is b a with gains 2 1.
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    at_2 = (1 / math.log2(3)) / ideal
    whole = (1 / math.log2(3) + 2 / math.log2(5)) / ideal
    assert result.per_query["q1"] == pytest.approx({"nDCG@2": at_2, "nDCG@5": whole, "nDCG": whole})
    assert result.per_query["q2"] == {"nDCG@2": 1.0, "nDCG@5": 1.0, "nDCG": 1.0}
    assert result.measures["nDCG@5"] == pytest.approx((whole + 1) / 2)


def test_recall_mrr_and_map_worked_by_hand():
    result = measure(QRELS, RANKING, ["Recall@1", "Recall@2", "Recall@10", "MRR@1", "MRR", "MAP"])
    assert result.per_query["q1"] == pytest.approx(
        {
            "Recall@1": 0.0,
            "Recall@2": 1 / 2,  # a, of a and b
            "Recall@10": 1.0,
            "MRR@1": 0.0,
            "MRR": 1 / 2,  # a is second
            "MAP": (1 / 2 + 2 / 4) / 2,  # a second, b fourth
        }
    )
    assert result.measures["MRR"] == pytest.approx(3 / 4)
    assert list(result.measures) == ["Recall@1", "Recall@2", "Recall@10", "MRR@1", "MRR", "MAP"]


def test_the_place_of_a_page_is_all_that_one_judgement_needs():
    ranking = {"q": {f"p{place:02}": float(-place) for place in range(20)}}
    for place in range(20):
        measures = measure({"q": {f"p{place:02}": 1}}, ranking).measures
        assert measures["nDCG@5"] == pytest.approx(
            1 / math.log2(place + 2) if place < 5 else 0, abs=1e-15
        )
        assert measures["Recall@10"] == (place < 10)
        assert measures["MRR@10"] == pytest.approx(1 / (place + 1) if place < 10 else 0)
        assert measures["MAP"] == pytest.approx(1 / (place + 1))


def test_ties_go_to_the_larger_id_as_a_string():
    ranking = {"q": {"9": 1.0, "10": 1.0, "100": 1.0}}  # in descending order: 9, 100, 10
    places = {page: measure({"q": {page: 1}}, ranking, ["MRR"]).measures["MRR"] for page in "9"}
    assert places == {"9": 1.0}
    assert measure({"q": {"100": 1}}, ranking, ["MRR"]).measures["MRR"] == 1 / 2
    assert measure({"q": {"10": 1}}, ranking, ["MRR"]).measures["MRR"] == pytest.approx(1 / 3)


def test_scores_that_differ_beyond_float32_are_ties():
    ranking = {"q": {"a": 1.0 + 1e-9, "b": 1.0}}
    assert measure({"q": {"b": 1}}, ranking, ["MRR"]).measures["MRR"] == 1.0
    apart = {"q": {"a": 1.0 + 1e-6, "b": 1.0}}
    assert measure({"q": {"b": 1}}, apart, ["MRR"]).measures["MRR"] == 0.5


def test_order_in_the_mappings_does_not_matter():
    backwards = {q: dict(reversed(pages.items())) for q, pages in reversed(RANKING.items())}
    assert measure(QRELS, backwards) == measure(QRELS, RANKING)


def test_unjudged_queries_are_absent():
    ranking = RANKING | {"q3": {"a": 1.0}}
    result = measure(QRELS | {"q4": {}}, ranking | {"q4": {"a": 1.0}})
    assert list(result.per_query) == ["q1", "q2"]
    assert result.measures == measure(QRELS, RANKING).measures


@pytest.mark.parametrize("ranking", [{"q1": RANKING["q1"]}, {"q1": RANKING["q1"], "q2": {}}])
def test_a_judged_query_that_the_ranking_lacks_counts_zero(ranking):
    result = measure(QRELS, ranking, ["MRR"])
    assert result.per_query == {"q1": {"MRR": 0.5}, "q2": {"MRR": 0.0}}
    assert result.measures == {"MRR": 0.25}


def test_a_query_without_a_relevant_page_counts_zero():
    result = measure({"q": {"a": 0, "b": -1}}, {"q": {"a": 2.0, "b": 1.0}})
    assert set(result.measures) == set(DEFAULT_MEASURES)
    assert set(result.measures.values()) == {0.0}


def test_a_negative_judgement_counts_as_not_relevant():
    # By hand alone: pytrec_eval reads beyond its tables when the judgements of a query are negative.
    qrels = {"q": {"a": -1, "b": 1}}
    result = measure(qrels, {"q": {"a": 2.0, "b": 1.0}}, ["nDCG", "Recall@1", "MRR"])
    assert result.measures == pytest.approx({"nDCG": 1 / math.log2(3), "Recall@1": 0, "MRR": 0.5})


# pytrec_eval's names; it knows no cut-off for MRR, so the ranking is cut for it.
PYTREC = {
    "nDCG@1": "ndcg_cut_1",
    "nDCG@5": "ndcg_cut_5",
    "nDCG@10": "ndcg_cut_10",
    "nDCG": "ndcg",
    "Recall@1": "recall_1",
    "Recall@5": "recall_5",
    "Recall@10": "recall_10",
    "Recall@100": "recall_100",
    "MRR": "recip_rank",
    "MAP": "map",
    "MAP@10": "map_cut_10",
}


def random_case(seed):
    """Judgements from 0 to 3, few distinct scores, ids whose order as text is not that of numbers."""
    draw = random.Random(seed)
    pages = [f"page-{n}" for n in range(150)] + [str(n) for n in range(40)] + ["é", "Ω", "z", "A"]
    qrels, ranking = {}, {}
    for number in range(30):
        judged = draw.sample(pages, draw.randint(1, 12))
        qrels[f"q{number}"] = {page: draw.choice([0, 0, 1, 1, 2, 3]) for page in judged}
        retrieved = draw.sample(pages, draw.randint(1, len(pages)))
        kind = draw.choice(["few", "close", "any"])
        ranking[f"q{number}"] = {
            page: {
                "few": draw.randint(0, 3) / 3,
                "close": 20 + draw.randint(0, 9) * 1e-7,
                "any": draw.uniform(-50, 50),
            }[kind]
            for page in retrieved
        }
    ranking["unjudged"] = {"A": 1.0}
    return qrels, ranking


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_pytrec_eval(seed):
    qrels, ranking = random_case(seed)
    names = {
        "ndcg_cut.1,5,10",
        "ndcg",
        "recall.1,5,10,100",
        "recip_rank",
        "map",
        "map_cut.10",
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(ranking)
    ours = measure(qrels, ranking, list(PYTREC))
    assert set(ours.per_query) == set(theirs)
    for query, values in ours.per_query.items():
        for name, value in values.items():
            assert value == pytest.approx(theirs[query][PYTREC[name]], abs=1e-9)
    for name, value in ours.measures.items():
        mean = sum(values[PYTREC[name]] for values in theirs.values()) / len(theirs)
        assert value == pytest.approx(mean, abs=1e-9)
        assert 0 <= value < 1
    assert ours.measures["nDCG@10"] > 0


@pytest.mark.parametrize("seed", range(4))
def test_mrr_at_10_equals_pytrec_eval_on_a_cut_ranking(seed):
    qrels, ranking = random_case(seed)
    ours = measure(qrels, ranking, ["MRR@10"])
    cut = {}
    for query, scores in ranking.items():
        ranked = module._rank(query, scores, {page: n for n, page in enumerate(sorted(scores))})
        cut[query] = {page: -float(place) for place, page in enumerate(ranked[:10])}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(cut)
    for query, values in ours.per_query.items():
        assert values["MRR@10"] == pytest.approx(theirs[query]["recip_rank"], abs=1e-9)


def test_scores_beyond_float32_are_infinite_and_still_ranked():
    ranking = {"q": {"a": 1e300, "b": 1.0, "c": -1e300, "d": float("-inf")}}
    assert measure({"q": {"a": 1}}, ranking, ["MRR"]).measures["MRR"] == 1.0
    assert (
        measure({"q": {"c": 1}}, ranking, ["MRR"]).measures["MRR"] == 0.25
    )  # d ties, and is larger


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("ndcg@5", "did you mean nDCG@5?"), ("nDCG@0", "did you mean nDCG@1"), ("Recall", None)],
)
def test_an_unknown_measure_names_the_nearest(name, suggestion):
    with pytest.raises(UsageError) as caught:
        measure(QRELS, RANKING, [name])
    assert caught.value.code == "unknown-measure"
    assert f"there is no measure {name!r}" in str(caught.value)
    assert suggestion is None or suggestion in str(caught.value)


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(UsageError, match=r"\[not-a-score\]") as caught:
        measure(QRELS, RANKING | {"q2": {"d": float("nan"), "a": 1.0}})
    assert caught.value.where == "query 'q2', page 'd'"
    assert caught.value.received == "nan"


def test_nothing_to_measure_is_refused():
    with pytest.raises(UsageError, match=r"\[nothing-judged\]: no query has a judgement"):
        measure({"q": {}}, {"q": {"a": 1.0}})


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(module)
    assert result.attempted >= 1
    assert result.failed == 0
