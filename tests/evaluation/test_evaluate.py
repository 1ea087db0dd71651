import copy
import dataclasses
import importlib

import pytest
import pytrec_eval
import torch
from small_pages import small_collection

from coltrain.data import Query
from coltrain.errors import DataError, ModelError
from coltrain.evaluation.evaluate import evaluate, with_intervals
from coltrain.evaluation.illustrations import illustrate
from coltrain.evaluation.measures import DEFAULT_MEASURES, measure
from coltrain.evaluation.rank import score_all
from coltrain.evaluation.results import ranked, results_from_json, results_to_json
from coltrain.evaluation.scoring import Scoring
from coltrain.evaluation.store import EmbeddingStore

module = importlib.import_module("coltrain.evaluation.evaluate")


@pytest.fixture(scope="module")
def collection():
    return small_collection("pages", 6)


@pytest.fixture(scope="module")
def evaluation(tiny_retriever, collection):
    return evaluate(tiny_retriever, collection)


def test_every_page_is_ranked_for_every_query(evaluation, collection):
    assert evaluation.scores.shape == (6, 6)
    ranking = {
        query.id: {
            page: float((evaluation.queries[q] @ evaluation.pages[p].T).amax(1).sum())
            for p, page in enumerate(collection.page_ids)
        }
        for q, query in enumerate(collection.queries)
    }
    expected = measure(collection.qrels, ranking)
    assert evaluation.result.measures == pytest.approx(expected.measures)
    assert evaluation.result.per_query.keys() == expected.per_query.keys()
    assert list(evaluation.result.measures) == list(DEFAULT_MEASURES)


def test_the_result_names_the_data_and_counts_it(evaluation):
    result = evaluation.result
    assert (result.dataset, result.num_queries, result.num_pages) == ("pages", 6, 6)


def test_embeddings_are_those_of_the_retriever_in_the_order_of_the_data(
    evaluation, tiny_retriever, collection
):
    pages = tiny_retriever.encode_pages([collection.page_image(4)])
    queries = tiny_retriever.encode_queries([collection.queries[2].text])
    assert torch.equal(evaluation.pages[4], pages[0])
    assert torch.equal(evaluation.queries[2], queries[0])
    assert len({len(page) for page in evaluation.pages}) > 1


def test_queries_without_a_judgement_are_not_measured(tiny_retriever, collection):
    more = [*collection.queries, Query("extra", "what nobody judged")]
    evaluation = evaluate(tiny_retriever, dataclasses.replace(collection, queries=more))
    assert "extra" not in evaluation.result.per_query
    assert evaluation.result.num_queries == 6
    assert len(evaluation.queries) == 7


def test_data_without_a_judgement_are_refused_before_anything_is_encoded(collection):
    unjudged = dataclasses.replace(collection, qrels={"q1": {}})
    with pytest.raises(DataError) as caught:
        evaluate(None, unjudged)
    assert str(caught.value) == (
        "DataError [nothing-judged]: no query of the data set has a judgement, so there is nothing "
        "to measure.\n"
        "  where     pages\n"
        "  received  6 pages, 6 queries\n"
        "  expected  at least one query with a judged page"
    )


def test_progress_is_told_of_each_page_and_query(tiny_retriever, collection):
    items = []
    evaluate(tiny_retriever, collection, lambda: items.append(None))
    assert len(items) == 6 + 6


def test_an_evaluation_of_the_same_is_the_same(evaluation, tiny_retriever, collection):
    again = evaluate(tiny_retriever, collection)
    assert again.result == evaluation.result
    assert torch.equal(again.scores, evaluation.scores)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_on_a_cpu_the_batch_size_changes_no_bit(evaluation, tiny_retriever, collection, batch_size):
    other = evaluate(tiny_retriever, collection, batch_size=batch_size)
    assert torch.equal(other.scores, evaluation.scores)
    assert other.result == evaluation.result


@pytest.mark.parametrize("batch_size", [2, 4])
def test_padded_batches_give_the_same_ranking_and_embeddings(
    monkeypatch, evaluation, tiny_retriever, collection, batch_size
):
    monkeypatch.setattr(module, "is_padded", lambda retriever, batch_size: True)
    other = evaluate(tiny_retriever, collection, batch_size=batch_size)
    for ours, theirs in zip(
        [*other.pages, *other.queries], [*evaluation.pages, *evaluation.queries], strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert other.scores.argsort(1).tolist() == evaluation.scores.argsort(1).tolist()
    assert len({len(page) for page in evaluation.pages}) > 1  # so there was padding


class Broken:
    """A retriever that gives NaN for one page, or one query."""

    def __init__(self, retriever, page=None, query=None):
        self.built, self._retriever, self._page, self._query = (
            retriever.built,
            retriever,
            page,
            query,
        )
        self._seen = 0

    def encode_pages(self, images):
        found = self._retriever.encode_pages(images)
        for embedding in found:
            if self._seen == self._page:
                embedding[1, 3] = float("nan")
            self._seen += 1
        return found

    def encode_queries(self, texts):
        found = self._retriever.encode_queries(texts)
        for text, embedding in zip(texts, found, strict=True):
            if text == self._query:
                embedding[0, 0] = float("inf")
        return found


def test_a_page_whose_embedding_is_nan_is_named(tiny_retriever, collection, tmp_path):
    with (
        EmbeddingStore(tmp_path, {}) as store,
        pytest.raises(ModelError, match=r"\[not-finite-embedding\]") as caught,
    ):
        evaluate(Broken(tiny_retriever, page=4), collection, batch_size=2, store=store)
    assert caught.value.where == "pages, page 'p4'"
    assert "1 of " in caught.value.received
    assert len(EmbeddingStore(tmp_path, {})) == 4  # and it is not kept


def test_a_query_whose_embedding_is_not_finite_is_named(tiny_retriever, collection):
    broken = Broken(tiny_retriever, query=collection.queries[3].text)
    with pytest.raises(ModelError, match=r"\[not-finite-embedding\]") as caught:
        evaluate(broken, collection)
    assert caught.value.where == "pages, query 'q3'"


class Counting:
    """A retriever that counts its pages and stops like a killed process after some."""

    def __init__(self, retriever, limit=None):
        self.built, self._retriever, self._limit = retriever.built, retriever, limit
        self.num_pages = 0
        self.encode_queries = retriever.encode_queries

    def encode_pages(self, images):
        images = list(images)
        if self._limit is not None and self.num_pages + len(images) > self._limit:
            raise KeyboardInterrupt
        self.num_pages += len(images)
        return self._retriever.encode_pages(images)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_interrupted_evaluation_goes_on_and_encodes_no_page_twice(
    evaluation, tiny_retriever, collection, tmp_path, batch_size
):
    first, second = Counting(tiny_retriever, limit=3), Counting(tiny_retriever)
    with EmbeddingStore(tmp_path, {}) as store, pytest.raises(KeyboardInterrupt):
        evaluate(first, collection, store=store, batch_size=batch_size)
    assert first.num_pages > 0
    with EmbeddingStore(tmp_path, {}) as store:
        found = evaluate(second, collection, store=store, batch_size=batch_size)
        assert first.num_pages + second.num_pages == 6
        assert found.num_encoded == second.num_pages
        assert torch.equal(found.scores, evaluation.scores)
        assert found.result == evaluation.result
        assert all(map(torch.equal, found.pages, evaluation.pages))
        assert torch.equal(found.pages[2:4][1], evaluation.pages[3])
    third = Counting(tiny_retriever, limit=0)
    assert torch.equal(
        evaluate(third, collection, store=EmbeddingStore(tmp_path, {})).scores, evaluation.scores
    )


def test_half_precision_on_disk_is_what_is_scored_and_its_effect_is_said(
    evaluation, tiny_retriever, collection, tmp_path
):
    with EmbeddingStore(tmp_path, {}, "float16") as store:
        whole = evaluate(tiny_retriever, collection, store=store)
    expected = score_all(evaluation.queries, [page.half() for page in evaluation.pages])
    assert torch.equal(whole.scores, expected)
    assert whole.rounding.num_pages == 6
    change = (expected - evaluation.scores).abs().max().item()
    assert whole.rounding.max_score_change == pytest.approx(change)
    assert 0 < change < 0.02
    assert set(whole.rounding.measure_changes) == set(DEFAULT_MEASURES)
    again = evaluate(tiny_retriever, collection, store=EmbeddingStore(tmp_path, {}, "float16"))
    assert torch.equal(again.scores, whole.scores)
    assert (again.num_encoded, again.rounding.max_score_change) == (0, 0.0)


def test_pages_need_not_be_kept(evaluation, tiny_retriever, collection):
    other = evaluate(tiny_retriever, collection, keep_pages=False)
    assert len(other.pages) == 0
    assert torch.equal(other.scores, evaluation.scores)


def test_the_ranking_of_a_result_follows_the_scores(evaluation, tiny_retriever, collection):
    ranking = evaluate(tiny_retriever, collection, top_k=4).result.ranking
    assert list(ranking) == [query.id for query in collection.queries]
    for row, found in zip(evaluation.scores, ranking.values(), strict=True):
        best = row.topk(4)
        assert found["page_ids"] == [f"p{place}" for place in best.indices.tolist()]
        assert found["scores"] == best.values.tolist()
    assert evaluation.result.ranking is None


def test_pages_that_tie_are_ranked_by_descending_id(collection):
    scores = torch.zeros(6, 6)
    scores[:, 2] = 1.0
    assert ranked(collection, scores, 3)["q0"]["page_ids"] == ["p2", "p5", "p4"]


def test_a_judged_page_that_is_not_there_counts_as_not_found(tiny_retriever, collection):
    qrels = {query: dict(judged) for query, judged in collection.qrels.items()}
    qrels["q2"]["gone"] = 2
    more = dataclasses.replace(collection, qrels=qrels)
    found = evaluate(tiny_retriever, more)
    assert found.result.judged_but_missing == ["gone"]
    scores = {
        query.id: dict(zip(collection.page_ids, row, strict=True))
        for query, row in zip(collection.queries, found.scores.tolist(), strict=True)
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.5", "recall.10"}).evaluate(scores)
    for query, values in found.result.per_query.items():
        assert values["nDCG@5"] == pytest.approx(theirs[query]["ndcg_cut_5"], abs=1e-9)
        assert values["Recall@10"] == pytest.approx(theirs[query]["recall_10"], abs=1e-9)
    assert found.result.per_query["q2"]["Recall@10"] == 0.5
    assert illustrate(found, more)["queries"][2]["id"] == "q2"


def test_scores_in_the_type_of_the_weights_are_rounded_like_them(tiny_retriever, collection):
    other = copy.copy(tiny_retriever)
    model = copy.deepcopy(tiny_retriever.built.model).bfloat16()
    other.built = dataclasses.replace(tiny_retriever.built, model=model)
    found = evaluate(other, collection, scoring=Scoring(dtype="embeddings"))
    assert torch.equal(found.scores, found.scores.bfloat16().float())
    assert not torch.equal(found.scores, evaluate(other, collection).scores)


def test_a_mean_gets_its_interval(evaluation):
    result = with_intervals(evaluation.result)
    interval = result.intervals["nDCG@5"]
    assert interval["low"] <= result.measures["nDCG@5"] <= interval["high"]
    assert set(result.intervals) == set(DEFAULT_MEASURES)
    [back] = results_from_json(results_to_json([result]))
    assert back == result
