import pytest

from coltrain.evaluation.benchmarks.translations import base_queries

LANGUAGES = ("french", "english", "german")


def test_translations_are_found_by_their_judgements_in_the_order_of_the_data():
    # Two questions about the same page, and one about another: 1st with 1st, 2nd with 2nd.
    judged = [{"p1": 1}, {"p1": 1}, {"p2": 2, "p1": 1}]
    language_of = {f"{lang}-{n}": lang for lang in LANGUAGES for n in range(3)}
    qrels = {f"{lang}-{n}": judged[n] for lang in LANGUAGES for n in range(3)}
    found = base_queries(language_of, qrels)
    assert found == {query: f"french-{query[-1]}" for query in language_of}


def test_grades_tell_queries_apart():
    language_of = {"f1": "french", "f2": "french", "e1": "english", "e2": "english"}
    qrels = {"f1": {"p": 1}, "f2": {"p": 2}, "e1": {"p": 2}, "e2": {"p": 1}}
    assert base_queries(language_of, qrels) == {"f1": "f1", "f2": "f2", "e1": "f2", "e2": "f1"}


def test_languages_with_different_numbers_of_alike_queries_are_one_group():
    language_of = {"f1": "french", "f2": "french", "e1": "english", "g1": "german"}
    qrels = {query: {"p": 1} for query in language_of}
    assert base_queries(language_of, qrels) == dict.fromkeys(language_of, "f1")


@pytest.mark.parametrize("language", ["french", "english"])
def test_in_one_language_every_query_is_its_own(language):
    language_of = {"q1": language, "q2": language, "q3": language}
    qrels = {"q1": {"p": 1}, "q2": {"p": 1}, "q3": {}}
    assert base_queries(language_of, qrels) == {"q1": "q1", "q2": "q2"}
