"""Which pages are relevant to a query that stands in several rows."""

from dataclasses import replace

from coltrain.data.collection import Collection
from coltrain.errors import UsageError

ALL_PAGES = "all-pages"
LAST_ROW = "last-row"
RULES = {
    ALL_PAGES: "every page of its rows is relevant, as in the BEIR sets made of them",
    LAST_ROW: "only the page of its last row is relevant, as in vidore-benchmark",
}


def apply_rule(
    collection: Collection, layout: str, rule: str, asked: str | None
) -> tuple[Collection, str]:
    """A collection with the judgements that a rule leaves.

    Only the question-answer layout has queries in several rows; elsewhere judgements are given.

    Args:
        collection: Of rows, with every page of a query relevant.
        layout: Of the data.
        rule: `all-pages` or `last-row`.
        asked: What somebody asked for; None where nobody did.

    Returns:
        The collection, and the rule that was applied.

    Raises:
        UsageError: `[unknown-rule]`; `[rule-without-rows]` The rule was asked for, and the layout
            knows no rows.

    Source:
        `last-row`: vidore-benchmark v5.0.0, vidore_evaluator_qa.py, `_get_relevant_docs_results`: a
        dict of the file name of each query, which every later row of the query overwrites.
    """
    if rule not in RULES:
        raise UsageError(
            "unknown-rule",
            "there is no such rule for queries in several rows.",
            where="--duplicates",
            received=rule,
            expected=" or ".join(RULES),
        )
    if layout != "question-answer":
        if asked == LAST_ROW:
            raise UsageError(
                "rule-without-rows",
                "these data say themselves which pages are relevant to a query.",
                where=f"--duplicates, {collection.name}",
                received=f"{rule}, on data in the {layout} layout",
                expected="data with a row for each question and page",
                suggestion="--edition qa, or leave it out",
            )
        return collection, ALL_PAGES
    if rule == LAST_ROW:
        last = {collection.queries[row.query].id: row.page for row in collection.rows}
        qrels = {query: {collection.page_ids[page]: 1} for query, page in last.items()}
        return replace(collection, qrels=qrels), rule
    return collection, rule
