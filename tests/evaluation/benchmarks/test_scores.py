import pytest
from evaluation_data import LANGUAGES, write_beir, write_v2

from coltrain.evaluation.benchmarks.catalogue import benchmarks
from coltrain.evaluation.benchmarks.loading import load_tasks
from coltrain.evaluation.benchmarks.scores import benchmark_means, task_result
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.results import Result, results_from_json, results_to_json


def result(name: str, **measures: float) -> Result:
    return Result(name, 1, 1, measures, {"q": measures})


def test_a_task_s_score_is_the_mean_over_its_languages(tmp_path, small, tiny_retriever):
    [data] = load_tasks([small("v2-esg")], data_dir=write_v2(tmp_path))
    plain = evaluate(tiny_retriever, data.collection).result
    # Take a query away, so that languages have different numbers and the two means differ.
    del plain.per_query["query-test-0"]
    found = task_result(data, plain)
    by_language = {
        language: [
            values["nDCG@5"]
            for query, values in plain.per_query.items()
            if data.language_of[query] == language
        ]
        for language in LANGUAGES[:4]
    }
    assert [len(values) for values in by_language.values()] == [1, 2, 2, 2]
    expected = {language: sum(v) / len(v) for language, v in by_language.items()}
    assert {k: v["nDCG@5"] for k, v in found.subsets.items()} == pytest.approx(expected)
    assert found.measures["nDCG@5"] == pytest.approx(sum(expected.values()) / 4)
    everything = [value for values in by_language.values() for value in values]
    assert found.measures["nDCG@5"] != pytest.approx(sum(everything) / 7)
    assert found.base_queries["query-test-3"] == "query-test-1"
    assert found.languages["query-test-3"] == "spanish"
    assert found.data["layout"] == "beir"


def test_a_task_in_one_language_has_no_subsets(tmp_path, tabfquad, tiny_retriever):
    [data] = load_tasks([tabfquad], data_dir=write_beir(tmp_path))
    plain = evaluate(tiny_retriever, data.collection).result
    found = task_result(data, plain)
    assert (found.measures, found.subsets) == (plain.measures, None)
    [again] = results_from_json(results_to_json([found]))
    assert again == found


def test_the_mean_of_v1_is_told_apart_by_domain():
    v1, v2, v3 = benchmarks()
    scores = {task.name: 0.9 if task.in_domain else 0.5 for task in v1.tasks}
    results = [result(name, **{"nDCG@5": s, "MAP": s / 2}) for name, s in scores.items()]
    means = benchmark_means(v1, results[::-1])
    assert means == {
        "nDCG@5": pytest.approx((4 * 0.9 + 6 * 0.5) / 10),
        "MAP": pytest.approx((4 * 0.9 + 6 * 0.5) / 20),
        "num_tasks": 10,
        "in_domain": pytest.approx(0.9),
        "out_of_domain": pytest.approx(0.5),
    }
    means = benchmark_means(v3, [result(task.name, **{"nDCG@10": 0.25}) for task in v3.tasks])
    assert means == {"nDCG@10": 0.25, "num_tasks": 8}
    with pytest.raises(ValueError, match="no result of Vidore2ESGReportsRetrieval"):
        benchmark_means(v2, [result(task.name, **{"nDCG@5": 1.0}) for task in v2.tasks[1:]])
