import dataclasses

import pytest
import torch
from small_pages import small_collection

from coltrain.data import Query
from coltrain.errors import DataError
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.measures import DEFAULT_MEASURES, measure


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
