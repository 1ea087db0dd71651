"""`coltrain compare` and `coltrain published`, as typed."""

import json

import numpy as np
import pytest
from run_on_paper import write_run

from coltrain.evaluation.published.names import tasks_of
from coltrain.evaluation.published.scores import published_scores
from coltrain.evaluation.results import Result, write_results


@pytest.fixture
def ours(tmp_path):
    """An evaluation with two data sets."""
    generator = np.random.default_rng(0)
    results = []
    for name in ("tatdqa", "own"):
        values = generator.choice([0.0, 0.5, 1.0], size=60).tolist()
        per_query = {f"q{i}": {"nDCG@5": value} for i, value in enumerate(values)}
        results.append(Result(name, 60, 60, {"nDCG@5": float(np.mean(values))}, per_query))
    write_results(tmp_path / "ours.json", results)
    return "ours.json"


def test_a_comparison_with_published_scores_is_a_table(coltrain, ours):
    found = coltrain("compare", ours, "published:vidore/colqwen2-v1.0")
    assert found.code == 0
    assert "nDCG@5 x 100, unpaired" in found.out
    assert "VidoreTatdqaRetrieval" in found.out
    assert "below by" in found.out
    assert "only in this: own" in found.out
    assert "mteb 1.38.34" in found.out


def test_a_comparison_with_oneself_as_json_and_a_page(coltrain, ours, tmp_path):
    found = coltrain("compare", ours, ours, "--json", "--html", "page.html")
    assert found.code == 0
    document = json.loads(found.out)
    assert [task["words"] for task in document["tasks"]] == [
        "reproduced: the same on every query"
    ] * 2
    assert document["pairing"] == "paired"
    assert "</html>" in (tmp_path / "page.html").read_text()


def test_acceptance_is_the_exit_code(coltrain, tmp_path):
    published = {
        score.task: score.measures["nDCG@5"] for score in published_scores("colqwen2-v1.0")
    }
    for points, code in ((0.2, 0), (0.4, 1)):
        results = [
            Result(task.name, 1, 1, {"nDCG@5": published[task.name] + points / 100}, {})
            for task in tasks_of("vidore-v1")
        ]
        write_results(tmp_path / "ours" / "results.json", results)
        found = coltrain("compare", "ours", "published:vidore/colqwen2-v1.0", "--accept")
        assert found.code == code
        assert found.out.count("PASS") == (12 if code == 0 else 10)
        assert found.out.count("FAIL") == (0 if code == 0 else 2)
        found = coltrain("compare", "ours", "published:colqwen2-v1.0", "--accept", "--json")
        assert (found.code, json.loads(found.out)["accepted"]) == (code, code == 0)


def test_published_scores_of_a_model(coltrain):
    found = coltrain("published", "vidore/colqwen2-v1.0")
    assert found.code == 0
    assert all(task.name in found.out for task in tasks_of("vidore-v1"))
    assert "89.23" in found.out
    document = json.loads(coltrain("published", "vidore/colqwen2-v1.0", "--json").out)
    assert document["means"]["vidore-v1"] == pytest.approx(0.892269)
    first = document["results"][0]
    assert {"model", "task", "measures", "source", "evaluator", "query_text"} <= first.keys()
    assert document["reruns"][0]["nDCG@5"]


def test_published_scores_of_all_models(coltrain):
    assert "89.23" in coltrain("published").out
    found = coltrain("published", "--task", "tatdqa", "--json")
    results = json.loads(found.out)["results"]
    assert {result["task"] for result in results} == {"VidoreTatdqaRetrieval"}
    assert len(results) == 39
    assert "82.2" in coltrain("published", "--task", "tatdqa").out
    only = coltrain("published", "colqwen2-v1.0", "--benchmark", "vidore-v2").out
    assert "Vidore2ESGReportsRetrieval" in only
    assert "VidoreTatdqa" not in only


def test_a_model_of_which_only_an_average_is_published(coltrain):
    assert "87.3" in coltrain("published", "vidore/colqwen2-v0.1").out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["compare", "nowhere", "ours.json"], "RunError [not-results]"),
        (["compare", "ours.json", "."], "RunError [no-evaluation]"),
        (["compare", "ours.json", "published:colqwen9"], "UsageError [no-published-scores]"),
        (["compare", "ours.json", "published:colqwen2-v0.1"], "UsageError [no-common-task]"),
        (["compare", "ours.json", "ours.json", "--margin", "0"], "UsageError [bad-margin]"),
        (
            ["compare", "ours.json", "ours.json", "--measure", "nDCG@7"],
            "UsageError [measure-not-in-both]",
        ),
        (["compare", "ours.json", "ours.json", "--accept"], "UsageError [nothing-to-accept]"),
        (["compare", "ours.json", "ours.json", "--html", "no/x.html"], "RunError [cannot-write]"),
        (["published", "colqwen9"], "UsageError [no-published-scores]"),
        (["published", "--task", "nothing"], "UsageError [no-such-task]"),
        (["published", "--benchmark", "v1"], "UsageError [no-such-benchmark]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_compared_is_one_clear_message(coltrain, ours, arguments, code):
    found = coltrain(*arguments)
    assert found.code == 2
    assert found.err.startswith(code)
    assert found.out == ""


def test_two_recipes_are_compared_by_what_differs(coltrain):
    found = coltrain("compare", "colqwen2-hard-negatives", "published:colqwen2-v0.1")
    assert found.code == 0
    first = found.out.splitlines()[0]
    assert first == "You asked for a batch of 32, but each query met 1 negative, not 31."
    assert "scores were not compared" in found.out
    document = json.loads(
        coltrain("compare", "colqwen2-hard-negatives", "published:colqwen2-v0.1", "--json").out
    )
    assert document["scores"] is None
    one = document["differences"][0]
    assert {"what", "a", "b", "effect", "evidence", "source"} <= one.keys()
    assert (one["a"], one["b"]) == ("1", "31")
    assert one["evidence"] == "reported in a public thread"
    assert one["source"].endswith("/124")


def test_two_runs_have_causes_and_scores_in_one_document(coltrain, tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, steps=4, of=4)
    found = coltrain("compare", "a", "b", "--json", "--html", "page.html")
    document = json.loads(found.out)
    assert document["differences"] == []
    assert document["scores"]["pairing"] == document["pairing"] == "paired"
    assert document["tasks"] == document["scores"]["tasks"]
    page = (tmp_path / "page.html").read_text()
    assert "Nothing that both sides record differs." in page
    assert "How far the scores are apart" in page
    found = coltrain("compare", "a", "b")
    assert "Nothing that both sides record differs." in found.out
    assert "nDCG@5 x 100, paired" in found.out


def test_a_page_without_scores_has_the_causes(coltrain, tmp_path):
    assert coltrain("compare", "tiny", "colqwen2-v0.1", "--html", "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "What differs" in page
    assert "How far the scores are apart" not in page


def test_a_recipe_that_is_mistyped_is_one_clear_message(coltrain):
    found = coltrain("compare", "colqwen2-v0.1", "colqwen2-v0.11")
    assert (found.code, found.out) == (2, "")
    assert "RecipeError" in found.err
    found = coltrain("compare", "no/such/folder", "colqwen2-v0.1")
    assert (found.code, found.out) == (2, "")
    assert "UsageError [no-such-target]" in found.err
