"""Ranking files: read by pytrec_eval, they give the same measures."""

import dataclasses
import itertools

import pytest
import pytrec_eval
import torch
from small_pages import small_collection

from coltrain.data import Query
from coltrain.errors import DataError, UsageError
from coltrain.evaluation.evaluate import result_of
from coltrain.evaluation.ranking_file import prepare_output, refuse_spaces, write_ranking


@pytest.fixture
def collection():
    return small_collection("pages", 12)


def scores_with_ties(seed=0):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand(12, 12, generator=draw) * 20
    scores[:, ::3] = scores[:, :1]  # ties
    scores[4] = 20 + torch.randint(0, 4, (12,), generator=draw) * 2e-6  # last bits
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_pytrec_eval_on_the_file_gives_the_result_s_measures(collection, tmp_path, seed):
    scores = scores_with_ties(seed)
    write_ranking(tmp_path / "r.trec", collection, scores)
    with (tmp_path / "r.trec").open() as file:
        run = pytrec_eval.parse_run(file)
    names = {"ndcg_cut.1,5,10": "nDCG", "recall.1,5,10,100": "Recall", "map": "MAP"}
    theirs = pytrec_eval.RelevanceEvaluator(collection.qrels, set(names)).evaluate(run)
    ours = result_of(collection, scores).per_query
    for query, values in ours.items():
        for k in (1, 5, 10):
            assert values[f"nDCG@{k}"] == pytest.approx(theirs[query][f"ndcg_cut_{k}"], abs=1e-9)
        for k in (1, 5, 10, 100):
            assert values[f"Recall@{k}"] == pytest.approx(theirs[query][f"recall_{k}"], abs=1e-9)
        assert values["MAP"] == pytest.approx(theirs[query]["map"], abs=1e-9)
    lines = [line.split() for line in (tmp_path / "r.trec").read_text().splitlines()]
    for place, query in enumerate(collection.queries):
        own = [line for line in lines if line[0] == query.id]
        assert [int(line[3]) for line in own] == list(range(1, 13))
        for line in own:
            row = collection.page_ids.index(line[2])
            assert torch.tensor(float(line[4])) == scores[place, row]  # to the last bit
        keys = [(-torch.tensor(float(line[4])).item(), line[2]) for line in own]
        for (left, left_id), (right, right_id) in itertools.pairwise(keys):
            assert left < right or (left == right and left_id > right_id)


def test_a_cut_file_has_the_best(collection, tmp_path):
    scores = scores_with_ties()
    write_ranking(tmp_path / "all", collection, scores)
    write_ranking(tmp_path / "few", collection, scores, top_k=2)
    whole = (tmp_path / "all").read_text().splitlines()
    assert (tmp_path / "few").read_text().splitlines() == [
        line for line in whole if int(line.split()[3]) <= 2
    ]


def test_ids_with_spaces_are_named_beforehand(collection):
    pages = ["a b", *collection.page_ids[1:]]
    with pytest.raises(DataError, match=r"\[id-with-space\]") as caught:
        refuse_spaces(dataclasses.replace(collection, page_ids=pages))
    assert caught.value.received == "page id 'a b'"
    queries = [Query("q\t0", "text"), *collection.queries[1:]]
    with pytest.raises(DataError, match=r"\[id-with-space\]") as caught:
        refuse_spaces(dataclasses.replace(collection, queries=queries))
    assert caught.value.received == "query id 'q\\t0'"


def test_a_file_that_cannot_be_written_is_named_beforehand(tmp_path):
    prepare_output(tmp_path / "new" / "r.trec")
    assert not (tmp_path / "new" / "r.trec").exists()
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "r.trec"):
        with pytest.raises(UsageError, match=r"\[cannot-write\]"):
            prepare_output(path)
