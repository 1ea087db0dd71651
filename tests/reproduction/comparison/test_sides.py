import json

import pytest

from coltrain.errors import RunError, UsageError
from coltrain.evaluation.results import Result, results_to_json
from coltrain.reproduction.comparison import read_side


def document(*names, **more):
    results = [Result(n, 2, 3, {"nDCG@5": 0.5}, {"q": {"nDCG@5": 0.5}}) for n in names]
    found = results_to_json(results)
    for entry in found["results"]:
        entry |= more
    return json.dumps(found)


@pytest.mark.parametrize("name", ["evaluation/final.json", "evaluation.json", "results.json", None])
def test_a_run_a_folder_and_a_file_are_read(tmp_path, name):
    path = tmp_path / (name or "ours.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(document("tiny:test", "vidore/tatdqa_test_beir"))
    side = read_side(str(tmp_path if name else path))
    assert list(side.tasks) == ["tiny:test", "VidoreTatdqaRetrieval"]
    assert side.tasks["VidoreTatdqaRetrieval"].name == "vidore/tatdqa_test_beir"
    assert not side.is_published


def test_languages_and_base_queries_are_read_where_they_are_there(tmp_path):
    path = tmp_path / "ours.json"
    path.write_text(document("v2-esg", base_queries={"q": "b"}, languages={"q": "french"}))
    [scores] = read_side(str(path)).tasks.values()
    assert (scores.base_of, scores.language_of) == ({"q": "b"}, {"q": "french"})


def test_published_scores_are_a_side():
    side = read_side("published:colqwen2-v1.0")
    assert side.label == "published:vidore/colqwen2-v1.0"
    assert side.is_published
    assert side.tasks["VidoreTatdqaRetrieval"].num_queries == 1646
    assert "mteb 1.38.34" in side.tasks["VidoreTatdqaRetrieval"].provenance


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(RunError, match=r"\[no-evaluation\]") as caught:
        read_side(str(tmp_path))
    assert caught.value.received == "notes.txt"


def test_what_is_no_evaluation_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"scores": 1}')
    for name in ("x.json", "missing.json"):
        with pytest.raises(RunError, match=r"\[not-results\]"):
            read_side(str(tmp_path / name))


def test_a_task_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "ours.json"
    path.write_text(document("tatdqa", "vidore/tatdqa_test"))
    with pytest.raises(UsageError, match=r"\[task-twice\]"):
        read_side(str(path))
