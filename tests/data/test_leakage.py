"""Queries that two sets share, however they are spaced."""

import pytest

from coltrain.data.collection import Query
from coltrain.data.leakage import shared_queries


def queries(*texts):
    return [Query(f"q{place}", text) for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("train", "evaluation", "kind"),
    [
        ("What is it?", "What is it?", "same-text"),
        ("What is it?", "what  is it? ", "same-words"),
        ("What is it?", "What is it", "same-letters"),
        ("self-test", "Self test!", "same-letters"),
        ("Ａ４", "a4", "same-letters"),
        ("What is it?", "What was it?", None),
        ("?", "!", None),
        ("…", "…", "same-text"),
    ],
)
def test_a_shared_query_has_its_closest_kind(train, evaluation, kind):
    found = shared_queries(queries(train), queries("other", evaluation))
    assert [(one.kind, one.train, one.eval) for one in found] == (
        [(kind, "q0", "q1")] if kind else []
    )


def test_every_pair_is_listed_once_in_the_order_of_the_evaluation_set():
    found = shared_queries(queries("a b", "A B", "c"), queries("c", "a  b"))
    assert [(one.train, one.eval) for one in found] == [("q2", "q0"), ("q0", "q1"), ("q1", "q1")]
