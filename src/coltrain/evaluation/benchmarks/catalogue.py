"""The benchmarks that are known by name: their tasks, pins and expected counts.

`catalogue.yaml` holds the data with its sources; this file gives it types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml

Layout = Literal["beir", "mteb", "question-answer"]

EDITIONS = {
    "mteb": "the data that mteb reads today",
    "beir": "the same sets under vidore/, as mteb read them up to 2.7.28",
    "qa": "the sets of the first benchmark, a row for each question and page",
}


@dataclass(frozen=True)
class Edition:
    """One place from which a task's data come.

    Attributes:
        name: mteb, beir or qa.
        repository: Data set of the hub.
        revision: Commit; None where none was ever published.
        layout: How the tables lie.
    """

    name: str
    repository: str
    revision: str | None
    layout: Layout

    @property
    def source(self) -> str:
        """`repository@revision`."""
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


@dataclass(frozen=True)
class Task:
    """One data set of a benchmark.

    Attributes:
        name: Its name in mteb.
        short: Its name on our command line.
        benchmark: The benchmark that it belongs to.
        measure: Main measure of the benchmark.
        editions: Where the data come from, by edition.
        languages: Of the queries.
        subsets: The languages into which the queries are translated; empty where there is one.
            The task's score is the mean of its subsets' scores.
        base_queries: Judged queries of one language.
        pages: Pages of the corpus, which all languages share.
        judgements: Pairs of a query of one language and a relevant page.
        licence: Of the data set, as mteb declares it; pages may have rights of their own.
        in_domain: Whether the published training set has data of the same source; None where
            nobody says.
    """

    name: str
    short: str
    benchmark: str
    measure: str
    editions: Mapping[str, Edition]
    languages: tuple[str, ...]
    subsets: tuple[str, ...]
    base_queries: int
    pages: int
    judgements: int
    licence: str
    in_domain: bool | None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which the task can be asked for."""
        return self.name, self.short, *(e.repository for e in self.editions.values())

    @property
    def folder_names(self) -> tuple[str, ...]:
        """Names that a folder with a copy of it may have."""
        last_parts = [edition.repository.rpartition("/")[2] for edition in self.editions.values()]
        return self.name, self.short, *last_parts


@dataclass(frozen=True)
class Benchmark:
    """Tasks whose plain mean is published as one number.

    Attributes:
        name: On our command line.
        title: As papers write it.
        measure: Main measure.
        paper: Where it is described.
        tasks: In the order of its tables.
    """

    name: str
    title: str
    measure: str
    paper: str
    tasks: tuple[Task, ...]


@cache
def benchmarks() -> tuple[Benchmark, ...]:
    """Every benchmark that is known by name."""
    text = resources.files(__package__).joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return tuple(_benchmark(name, entry) for name, entry in yaml.safe_load(text).items())


def tasks() -> tuple[Task, ...]:
    """Every task of every benchmark."""
    return tuple(task for benchmark in benchmarks() for task in benchmark.tasks)


def _benchmark(name: str, entry: dict) -> Benchmark:
    of_benchmark = {"benchmark": name, "measure": entry["measure"]}
    return Benchmark(
        name=name,
        title=entry["title"],
        measure=entry["measure"],
        paper=entry["paper"],
        tasks=tuple(_task({**of_benchmark, **task}) for task in entry["tasks"]),
    )


def _task(entry: dict) -> Task:
    editions = {name: Edition(name=name, **edition) for name, edition in entry["editions"].items()}
    entry = {"subsets": (), "in_domain": None, **entry, "editions": editions}
    return Task(
        **{**entry, "languages": tuple(entry["languages"]), "subsets": tuple(entry["subsets"])}
    )
