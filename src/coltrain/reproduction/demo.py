"""What the demo prints: before and after, beside chance and word matching."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coltrain.data.drawn import drawn_collection
from coltrain.data.drawn.hardness import hardness
from coltrain.data.drawn.text import normalise
from coltrain.data.drawn.windows import drawn_pages
from coltrain.evaluation.lexical import bm25_scores, chance_ndcg_at_5
from coltrain.evaluation.measures import measure
from coltrain.evaluation.results import read_results


def demo_summary(run: Path) -> dict[str, Any]:
    """Scores of a demo run beside what a reader has to compare them with.

    Args:
        run: A finished run of the recipe `tiny`.

    Returns:
        `nDCG@5` by name, facts about the test pages, and how long the run took.
    """
    facts = hardness("test")
    scores = {
        "chance": chance_ndcg_at_5(facts.num_pages),
        "before training": _score(run / "evaluation" / "before.json"),
        "after training": _score(run / "evaluation" / "final.json"),
        "BM25 on the drawn words": _bm25(),
    }
    seconds = json.loads((run / "run.json").read_text(encoding="utf-8"))["seconds"]
    return {"nDCG@5": scores, "test": asdict(facts), "seconds": seconds}


def _score(file: Path) -> float:
    [result] = read_results(file)
    return result.measures["nDCG@5"]


def _bm25() -> float:
    collection = drawn_collection("test")
    texts = [" ".join(normalise(word.text) for word in page.words) for page in drawn_pages("test")]
    scores = bm25_scores([query.text for query in collection.queries], texts)
    ranking = {
        query.id: dict(zip(collection.page_ids, map(float, row), strict=True))
        for query, row in zip(collection.queries, scores, strict=True)
    }
    return measure(collection.qrels, ranking).measures["nDCG@5"]
