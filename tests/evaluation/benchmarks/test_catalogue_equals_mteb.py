"""The catalogue against the files of the installed mteb, without importing it (20 seconds)."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from coltrain.evaluation.benchmarks.catalogue import benchmarks, tasks

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def mteb_folder() -> Path:
    found = importlib.util.find_spec("mteb")
    assert found is not None, "make test-reference installs mteb"
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def declared(mteb_folder) -> dict[str, dict[str, str]]:
    """What each task's class says."""
    text = "".join(
        file.read_text(encoding="utf-8")
        for file in sorted(mteb_folder.rglob("tasks/retrieval/*/vidore*_bench_retrieval.py"))
    )
    keys = ("name", "path", "revision", "main_score", "license")
    found = {}
    for part in re.split(r"metadata = TaskMetadata\(", text)[1:]:
        values = {key: re.search(rf'"?{key}"?(?:=|: )"([^"]+)"', part)[1] for key in keys}
        values["languages"] = "_LANGS" if "eval_langs=_LANGS" in part else "one"
        found[values["name"]] = values
    return found


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_pins_measure_and_licence_are_mteb_s(task, declared):
    theirs = declared[task.name]
    edition = task.editions["mteb"]
    assert (edition.repository, edition.revision) == (theirs["path"], theirs["revision"])
    assert task.licence == theirs["license"]
    assert task.measure == theirs["main_score"].replace("ndcg_at_", "nDCG@")
    assert bool(task.subsets) == (theirs["languages"] == "_LANGS")


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_counts_are_those_of_mteb_s_descriptive_statistics(task, mteb_folder):
    file = mteb_folder / f"descriptive_stats/Image/DocumentUnderstanding/{task.name}.json"
    stats = json.loads(file.read_text(encoding="utf-8"))["test"]
    subsets = stats.get("hf_subset_descriptive_stats")
    assert tuple(subsets or ()) == task.subsets
    for one in (subsets or {"": stats}).values():
        relevant = one["relevant_docs_statistics"]
        # Of v2 and v3 each language's judgements are counted with all others'.
        total = relevant["num_relevant_docs"] / max(1, len(task.subsets))
        assert total == task.judgements
        queries = total / relevant["average_relevant_docs_per_query"]
        assert queries == pytest.approx(task.base_queries, abs=1e-9)
        assert one["num_samples"] == task.base_queries + task.pages


def test_the_benchmarks_have_the_tasks_of_mteb_s_and_the_public_ones_of_v3(mteb_folder):
    text = (mteb_folder / "benchmarks/benchmarks/benchmarks.py").read_text(encoding="utf-8")
    for benchmark in benchmarks():
        name = benchmark.title.partition(",")[0].replace("ViDoRe (", "ViDoRe(")
        theirs = re.search(rf'name="{re.escape(name)}".*?tasks=\[.*?\]', text, re.DOTALL)[0]
        named = re.findall(r'"(Vidore\w+)"', theirs)
        private = {"Vidore3TelecomRetrieval", "Vidore3NuclearRetrieval"}
        assert set(named) - private == {task.name for task in benchmark.tasks}
