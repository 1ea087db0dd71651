import torch
from small_pages import small_collection

from coltrain.evaluation.ties import ties


def test_ties_of_a_relevant_page_with_another_are_counted_and_named():
    collection = small_collection("pages", 4)
    scores = torch.eye(4)
    scores[1, 3] = 1.0  # ties with p1, which answers
    scores[2] = torch.tensor([9.0, 9.0, 1.0, 0.0])  # a tie of others
    found = ties(collection, scores)
    assert (found["num_queries"], found["num_judged"]) == (1, 4)
    assert [(one["id"], one["page_ids"]) for one in found["examples"]] == [("q1", ["p3", "p1"])]


def test_relevant_pages_that_tie_among_themselves_are_none():
    collection = small_collection("pages", 3)
    collection.qrels["q0"]["p1"] = 1
    scores = torch.eye(3)
    scores[0, 1] = 1.0
    assert ties(collection, scores)["num_queries"] == 0
