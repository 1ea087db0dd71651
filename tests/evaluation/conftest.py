"""What the tests of the evaluation share."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import datasets
import pytest

from coltrain.evaluation.benchmarks.catalogue import Task
from coltrain.evaluation.benchmarks.names import asked_for


@pytest.fixture(autouse=True, scope="session")
def _cache_of_datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tables are copied into a folder of the test run, not into the user's cache."""
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="session")
def tabfquad() -> Task:
    """A task of v1 with the counts of `write_beir`."""
    return replace(asked_for("tabfquad").tasks[0], base_queries=3, pages=4, judgements=4)


@pytest.fixture(scope="session")
def small() -> Callable[[str], Task]:
    """A task by name with the counts of `write_v2` and `write_v3`."""

    def task(name: str) -> Task:
        return replace(asked_for(name).tasks[0], base_queries=2, pages=5, judgements=3)

    return task
