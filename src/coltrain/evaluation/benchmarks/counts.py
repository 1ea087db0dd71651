"""Whether data are the task's, by their numbers of queries, pages and judgements."""

from collections import Counter

from coltrain.data.collection import Collection
from coltrain.errors import DataError
from coltrain.evaluation.benchmarks.catalogue import Layout, Task


def differences(
    task: Task, layout: Layout, collection: Collection, language_of: dict[str, str]
) -> list[str]:
    """What differs between the data's counts and those that were published, in words.

    Of the question-answer layout only the queries are known: its pages were never counted.
    """
    judged = [query.id for query in collection.queries if collection.qrels.get(query.id)]
    queries = Counter(language_of[query] for query in judged)
    judgements: Counter[str] = Counter()
    for query in judged:
        relevant = sum(score > 0 for score in collection.qrels[query].values())
        judgements[language_of[query]] += relevant
    found = []
    for language in task.subsets or (task.languages[0],):
        of = f" in {language}" if task.subsets else ""
        found += _differs(f"judged queries{of}", queries[language], task.base_queries)
        if layout != "question-answer":
            found += _differs(f"judgements{of}", judgements[language], task.judgements)
    if layout != "question-answer":
        found += _differs("pages", len(collection.page_ids), task.pages)
    return found


def refuse_other_counts(task: Task, where: str, found: list[str]) -> None:
    """Say that data are not those of the task.

    Raises:
        DataError: `[other-counts]` There are differences.
    """
    if found:
        raise DataError(
            "other-counts",
            f"these are not the data of {task.name}: the numbers differ.",
            where=where,
            received="\n".join(found),
            expected="the numbers of mteb's descriptive statistics",
            suggestion="download it again at the pinned revision (`coltrain benchmarks list`), or "
            "say --allow-other-counts to measure on these data and have it recorded",
        )


def _differs(what: str, received: int, expected: int) -> list[str]:
    if received == expected:
        return []
    return [f"{received} {what}, expected {expected} ({received - expected:+d})"]
