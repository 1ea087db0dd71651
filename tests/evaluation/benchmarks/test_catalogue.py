import re

import pytest

from coltrain.evaluation.benchmarks.catalogue import EDITIONS, benchmarks, tasks
from coltrain.evaluation.measures import DEFAULT_MEASURES


def test_the_benchmarks_are_these():
    found = {b.name: (len(b.tasks), b.measure) for b in benchmarks()}
    assert found == {
        "vidore-v1": (10, "nDCG@5"),
        "vidore-v2": (4, "nDCG@5"),
        "vidore-v3": (8, "nDCG@10"),
    }
    assert {measure for _, measure in found.values()} <= set(DEFAULT_MEASURES)


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_every_edition_but_the_first_benchmark_s_is_pinned_to_a_commit(task):
    for edition in task.editions.values():
        assert edition.name in EDITIONS
        if edition.name == "qa":
            assert edition.revision is None
        else:
            assert re.fullmatch("[0-9a-f]{40}", edition.revision)
    assert next(iter(task.editions)) == "mteb"  # the default


def test_queries_and_pages_are_as_many_as_the_facts_say():
    by_benchmark = {b.name: b.tasks for b in benchmarks()}
    assert sum(task.base_queries for task in by_benchmark["vidore-v1"]) == 3871
    # 3,099 base queries with the two private tasks, which have 348 and 332.
    assert sum(task.base_queries for task in by_benchmark["vidore-v3"]) == 3099 - 348 - 332
    assert {task.short for task in tasks() if task.in_domain} == {
        "arxivqa",
        "docvqa",
        "infovqa",
        "tatdqa",
    }
    assert all(task.in_domain is False for task in by_benchmark["vidore-v1"][5:])


def test_what_mteb_calls_english_and_is_french_is_called_french():
    assert {t.short: t.languages for t in tasks() if t.short in ("tabfquad", "shiftproject")} == {
        "tabfquad": ("french",),
        "shiftproject": ("french",),
    }
