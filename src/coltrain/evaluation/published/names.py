"""The tasks of ViDoRe under all the names that results use."""

import re
from dataclasses import dataclass

MAIN_MEASURES = {
    "vidore-v1": "nDCG@5",
    "vidore-v2": "nDCG@5",
    "vidore-v3": "nDCG@10",
    "vidore-v3.1": "nDCG@10",
}


@dataclass(frozen=True)
class TaskName:
    """One task of a benchmark.

    Attributes:
        name: In mteb.
        short: On the command line.
        benchmark: The benchmark that it is part of.
        base_queries: Queries, translations counted once.
        data_sets: Names of its data on the hub, without the owner.
        is_in_domain: `vidore/colpali_train_set` has training data of the same source.
        is_public: Its data can be had.
    """

    name: str
    short: str
    benchmark: str
    base_queries: int
    data_sets: tuple[str, ...] = ()
    is_in_domain: bool = False
    is_public: bool = True

    @property
    def has_one_relevant_page(self) -> bool:
        """Whether (nearly) every query has a single relevant page."""
        return self.benchmark == "vidore-v1"


def _v1(part: str, short: str, queries: int, stem: str, is_in_domain: bool = False) -> TaskName:
    data_sets = (f"{stem}_beir", stem)
    return TaskName(f"Vidore{part}Retrieval", short, "vidore-v1", queries, data_sets, is_in_domain)


def _v2(part: str, short: str, queries: int, data_set: str) -> TaskName:
    return TaskName(f"Vidore2{part}Retrieval", f"v2-{short}", "vidore-v2", queries, (data_set,))


def _v3(part: str, short: str, queries: int, is_public: bool = True) -> list[TaskName]:
    stem = f"vidore_v3_{short.replace('-', '_')}"
    data_sets = (f"{stem}_mteb_format", stem) if is_public else ()
    name = f"Vidore3{part}Retrieval"
    return [
        TaskName(name, f"v3-{short}", "vidore-v3", queries, data_sets, is_public=is_public),
        TaskName(f"{name}.v2", f"v3.1-{short}", "vidore-v3.1", queries, is_public=is_public),
    ]


# Sources: mteb 2.20.0, tasks/retrieval; base queries from its descriptive statistics.
TASKS = (
    _v1("ArxivQA", "arxivqa", 500, "arxivqa_test_subsampled", True),
    _v1("DocVQA", "docvqa", 451, "docvqa_test_subsampled", True),
    _v1("InfoVQA", "infovqa", 494, "infovqa_test_subsampled", True),
    _v1("Tabfquad", "tabfquad", 280, "tabfquad_test_subsampled"),
    _v1("Tatdqa", "tatdqa", 1646, "tatdqa_test", True),
    _v1("ShiftProject", "shiftproject", 100, "shiftproject_test"),
    _v1(
        "SyntheticDocQAAI",
        "syntheticdocqa-ai",
        100,
        "syntheticDocQA_artificial_intelligence_test",
    ),
    _v1("SyntheticDocQAEnergy", "syntheticdocqa-energy", 100, "syntheticDocQA_energy_test"),
    _v1(
        "SyntheticDocQAGovernmentReports",
        "syntheticdocqa-government",
        100,
        "syntheticDocQA_government_reports_test",
    ),
    _v1(
        "SyntheticDocQAHealthcareIndustry",
        "syntheticdocqa-healthcare",
        100,
        "syntheticDocQA_healthcare_industry_test",
    ),
    _v2("ESGReports", "esg", 57, "esg_reports_v2"),
    _v2("EconomicsReports", "economics", 58, "economics_reports_v2"),
    _v2("BioMedicalLectures", "biomedical", 160, "biomedical_lectures_v2"),
    _v2("ESGReportsHL", "esg-human", 52, "esg_reports_human_labeled_v2"),
    *_v3("FinanceEn", "finance-en", 309),
    *_v3("FinanceFr", "finance-fr", 320),
    *_v3("Industrial", "industrial", 283),
    *_v3("Pharmaceuticals", "pharmaceuticals", 364),
    *_v3("ComputerScience", "computer-science", 215),
    *_v3("Hr", "hr", 318),
    *_v3("Energy", "energy", 308),
    *_v3("Physics", "physics", 302),
    *_v3("Telecom", "telecom", 348, is_public=False),
    *_v3("Nuclear", "nuclear", 332, is_public=False),
)

_KNOWN = {
    known.casefold(): task for task in TASKS for known in (task.name, task.short, *task.data_sets)
}


def task_named(name: str) -> TaskName | None:
    """The task that a data set of some results is; None where it is none of ViDoRe's.

    Known are the name in mteb, the short name, and the names of the data on the hub, with or
    without owner, revision and split: `vidore/tatdqa_test_beir@5feb563:test`.

    Args:
        name: As results have it.

    Example:
        >>> task_named("mteb/arxivqa_test_subsampled_beir").short
        'arxivqa'
    """
    plain = re.sub(r"(@[0-9a-f]+)?([:/]test)?$", "", name)
    return _KNOWN.get(plain.rpartition("/")[2].casefold())


def task_key(name: str) -> str:
    """What data sets of two results are matched by: the task's name in mteb, or their own."""
    task = task_named(name)
    return task.name if task else name


def tasks_of(benchmark: str) -> list[TaskName]:
    """The tasks that the mean of a benchmark is taken over: those whose data can be had."""
    return [task for task in TASKS if task.benchmark == benchmark and task.is_public]
