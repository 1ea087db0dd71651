"""Results as JSON: the form that scripts rely on, there and back."""

import json

import pytest

from coltrain.errors import RunError
from coltrain.evaluation.results import (
    Result,
    read_results,
    results_from_json,
    results_to_json,
    write_results,
)

RESULT = Result(
    dataset="tiny:test",
    num_queries=2,
    num_pages=3,
    measures={"nDCG@5": 0.75},
    per_query={"q1": {"nDCG@5": 1.0}, "17": {"nDCG@5": 0.5}},
)
DOCUMENT = {
    "results": [
        {
            "dataset": "tiny:test",
            "num_queries": 2,
            "num_pages": 3,
            "measures": {"nDCG@5": 0.75},
            "per_query": {"q1": {"nDCG@5": 1.0}, "17": {"nDCG@5": 0.5}},
        }
    ]
}


def test_the_document_has_the_form_that_scripts_rely_on():
    assert results_to_json([RESULT]) == DOCUMENT
    assert results_to_json([], step=20) == {"results": [], "step": 20}


def test_results_come_back_from_their_document():
    assert results_from_json(json.loads(json.dumps(DOCUMENT))) == [RESULT]
    assert results_from_json(DOCUMENT | {"step": 20, "later": [1]}) == [RESULT]


def test_results_come_back_from_a_file(tmp_path):
    path = tmp_path / "evaluation" / "final.json"
    write_results(path, [RESULT, RESULT], step=60)
    assert read_results(path) == [RESULT, RESULT]
    assert json.loads(path.read_text())["step"] == 60
    assert [file.name for file in path.parent.iterdir()] == ["final.json"]
    write_results(path, [RESULT])
    assert read_results(path) == [RESULT]


def test_ids_stay_as_they_are(tmp_path):
    path = tmp_path / "r.json"
    strange = Result("données", 1, 1, {"MAP": 1}, {"où est-ce ?": {"MAP": 1}})
    write_results(path, [strange])
    assert "où est-ce ?" in path.read_text(encoding="utf-8")
    assert list(read_results(path)[0].per_query) == ["où est-ce ?"]


def test_whole_numbers_become_fractions_on_reading():
    value = results_from_json(results_to_json([Result("d", 1, 1, {"MAP": 1}, {})]))[0]
    assert isinstance(value.measures["MAP"], float)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_measure_that_json_cannot_say_is_refused(value, tmp_path):
    result = Result("d", 1, 1, {"MAP": 1.0}, {"q": {"MAP": value}})
    with pytest.raises(ValueError, match="MAP of q on d is"):
        write_results(tmp_path / "r.json", [result])
    assert list(tmp_path.iterdir()) == []


def changed(**changes):
    entry = DOCUMENT["results"][0] | changes
    return {"results": [{key: value for key, value in entry.items() if value is not None}]}


@pytest.mark.parametrize(
    ("document", "where", "received", "expected"),
    [
        ([], "the document", "list: []", 'a mapping with a list "results"'),
        ({"result": []}, "the document", "dict:", '"results"'),
        ({"results": {}}, "the document", "dict:", '"results"'),
        ({"results": [3]}, "the document, results[0]", "int: 3", "a mapping"),
        (changed(num_pages=None), "results[0]", "keys dataset", "a key num_pages"),
        (changed(num_pages="3"), "results[0].num_pages", "str: 3", "int"),
        (changed(num_queries=True), "results[0].num_queries", "bool: True", "int"),
        (changed(measures=[1]), "results[0].measures", "list: [1]", "a mapping"),
        (changed(measures={"MAP": "1"}), "results[0]", "MAP = '1'", "a number"),
        (changed(per_query={"q": 0.5}), "results[0]", "float: 0.5", "measures by name"),
    ],
)
def test_other_documents_are_named(document, where, received, expected):
    with pytest.raises(RunError, match=r"\[not-results\]") as caught:
        results_from_json(document)
    assert where in caught.value.where
    assert received in caught.value.received
    assert expected in caught.value.expected


def test_a_missing_or_broken_file_is_named(tmp_path):
    path = tmp_path / "final.json"
    with pytest.raises(RunError) as caught:
        read_results(path)
    assert (caught.value.where, caught.value.received) == (str(path), "No such file or directory")
    path.write_text("{")
    with pytest.raises(RunError) as caught:
        read_results(path)
    assert caught.value.received.startswith("no JSON: Expecting property name")
