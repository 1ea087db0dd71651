import pytest

from coltrain.errors import UsageError
from coltrain.evaluation.published import benchmark_means, published_scores
from coltrain.evaluation.published.names import TASKS, task_key, task_named, tasks_of
from coltrain.evaluation.published.scores import (
    largest_rerun_change,
    latest,
    model_named,
    published_averages,
    published_models,
    reruns,
    select,
)


@pytest.fixture(scope="module")
def colqwen2():
    return published_scores("vidore/colqwen2-v1.0")


def test_colqwen2_has_the_ten_tasks_of_v1_and_their_mean(colqwen2):
    v1 = select(colqwen2, None, "vidore-v1")
    assert [score.task for score in v1] == sorted(task.name for task in tasks_of("vidore-v1"))
    means = benchmark_means({task: score.measures for task, score in latest(v1).items()})
    assert {name: round(100 * mean, 2) for name, mean in means.items()} == {
        "vidore-v1": 89.23,
        # (.87983 + .61483 + .92507 + .82228) / 4
        "vidore-v1 in-domain": 81.05,
        "vidore-v1 out-of-domain": 94.68,
    }


def test_a_task_of_several_languages_is_the_mean_of_them(colqwen2):
    [score] = select(colqwen2, "v2-esg", None)
    assert set(score.subsets) == {"english", "french", "german", "spanish"}
    # (.55228 + .52498 + .52524 + .56029) / 4
    assert score.measures["nDCG@5"] == pytest.approx(0.5406975)
    assert score.main_measure == "nDCG@5"


def test_a_score_says_where_it_comes_from(colqwen2):
    [score] = select(colqwen2, "tatdqa", None)
    assert score.measures["nDCG@5"] == 0.82228
    assert score.evaluator == "mteb 1.38.34"
    assert score.source == (
        "embeddings-benchmark/results@6e474bdad5ee: results/vidore__colqwen2-v1.0/"
        "530094e83a40ca4edcb5c9e5ddfa61a4b5ea0d2f/VidoreTatdqaRetrieval.json"
    )
    assert score.query_text.startswith('"Query: ", query, 10 augmentation tokens (most likely')


def test_the_doubled_prefix_of_the_v3_runs_is_said(colqwen2):
    assert all("both twice" in s.query_text for s in select(colqwen2, None, "vidore-v3"))


def test_incomplete_benchmarks_have_no_mean(colqwen2):
    v1 = latest(select(colqwen2, None, "vidore-v1"))
    v1.pop("VidoreTatdqaRetrieval")
    assert benchmark_means({task: score.measures for task, score in v1.items()}) == {}


def test_every_model_and_task_of_the_file_is_known():
    scores = published_scores()
    assert len(scores) == 886
    assert len({score.model for score in scores}) == 43
    assert all(task_named(score.task) for score in scores)
    assert all(0 <= value <= 1 for score in scores for value in score.measures.values())
    assert all(score.task in TASK_NAMES for score in scores)


TASK_NAMES = {task.name for task in TASKS}


def test_re_runs_bound_the_noise_of_the_software():
    assert {rerun.values[1] - rerun.values[0] for rerun in reruns("vidore/colqwen2-v1.0")} == {0.0}
    # colpali-v1.1 on ShiftProject
    assert largest_rerun_change("VidoreShiftProjectRetrieval") == pytest.approx(0.0184, abs=5e-5)
    assert largest_rerun_change("VidoreNothing") is None


def test_a_model_with_an_average_alone_is_known():
    assert published_scores("vidore/colqwen2-v0.1") == []
    assert [a.value for a in published_averages("vidore/colqwen2-v0.1")] == [0.873, 0.866]


def test_a_model_is_found_without_its_owner_and_in_any_case():
    assert model_named("ColQwen2-V1.0") == "vidore/colqwen2-v1.0"
    assert "vidore/colqwen2-v1.0" in published_models()


@pytest.mark.parametrize(
    ("name", "near"), [("vidore/colqwen2-v1", "colqwen2-v1.0"), ("colpali-v1.4", "colpali-v1.")]
)
def test_an_unknown_model_is_refused_with_the_nearest(name, near):
    with pytest.raises(UsageError, match=r"\[no-published-scores\]") as caught:
        model_named(name)
    assert near in caught.value.suggestion


def test_unknown_tasks_and_benchmarks_are_refused(colqwen2):
    with pytest.raises(UsageError, match=r"\[no-such-task\]") as caught:
        select(colqwen2, "tatdq", None)
    assert caught.value.suggestion == "tatdqa"
    with pytest.raises(UsageError, match=r"\[no-such-benchmark\]"):
        select(colqwen2, None, "vidore-v4")


@pytest.mark.parametrize(
    "name",
    [
        "VidoreTatdqaRetrieval",
        "tatdqa",
        "TATDQA",
        "vidore/tatdqa_test_beir",
        "mteb/tatdqa_test_beir@dc7924ec102addd7f85c1ccfdd8625848179f615",
        "vidore/tatdqa_test",
        "vidore/tatdqa_test_beir:test",
    ],
)
def test_a_task_is_known_under_all_its_names(name):
    assert task_key(name) == "VidoreTatdqaRetrieval"


def test_other_data_sets_keep_their_names():
    assert task_named("tiny:test") is None
    assert task_key("tiny:test") == "tiny:test"
    assert task_key("outline/test") == "outline/test"


def test_the_tasks_are_those_of_the_benchmarks():
    assert [len(tasks_of(b)) for b in ("vidore-v1", "vidore-v2", "vidore-v3")] == [10, 4, 8]
    assert sum(task.base_queries for task in tasks_of("vidore-v1")) == 3871
    assert sum(task.is_in_domain for task in TASKS) == 4
