"""Hard negatives: pages that a model finds for a query though they do not answer it.

Three things keep answers out that nobody judged: pages that any judgement calls relevant, pages that
score nearly as high as the positive (positive-aware mining), and near-copies of the positive.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.data.writing import MinedNegative
from coltrain.errors import UsageError
from coltrain.evaluation.rank import score_all
from coltrain.late_interaction import maxsim
from coltrain.model.retriever import Retriever

TOO_HIGH = "scores nearly as high as the positive"


@dataclass(frozen=True)
class MiningSettings:
    """What counts as a hard negative.

    Attributes:
        top_k: Pages of the model's ranking that are looked at.
        per_query: The most that a query gets.
        max_share: A page scoring above this share of the positive is taken for an answer.
        near_duplicate: A page whose tokens match the positive page's this well, on average, is
            taken for a copy of it (cosine, both ways).
    """

    top_k: int = 50
    per_query: int = 10
    max_share: float = 0.95
    near_duplicate: float = 0.98

    def __post_init__(self) -> None:
        for name, is_right, expected in (
            ("top_k", self.top_k >= 1, "at least 1"),
            ("per_query", 1 <= self.per_query <= self.top_k, "between 1 and top_k"),
            ("max_share", 0 < self.max_share <= 1, "above 0, at most 1"),
            ("near_duplicate", 0 < self.near_duplicate <= 1, "above 0, at most 1"),
        ):
            if not is_right:
                raise UsageError(
                    "bad-mining-setting",
                    "a setting of mining is out of range.",
                    where=name,
                    received=str(getattr(self, name)),
                    expected=expected,
                )


@dataclass(frozen=True)
class Mined:
    """What mining found.

    Attributes:
        negatives: Query id to its hard negatives, the hardest first.
        scores: Query id to the score of its best positive.
        skipped: Reason to number of (query, page) pairs that were passed over.
        num_found: Queries with a relevant page among the pages that were looked at.
    """

    negatives: dict[str, list[MinedNegative]]
    scores: dict[str, float]
    skipped: dict[str, int] = field(default_factory=dict)
    num_found: int = 0

    def advice(self) -> str | None:
        """What to try where most queries got no negative; None where there is nothing to say."""
        num_empty = sum(not found for found in self.negatives.values())
        if 2 * num_empty <= len(self.negatives):
            return None
        words = f"{num_empty} of {len(self.negatives)} queries got no negative"
        too_high = self.skipped.get(TOO_HIGH, 0)
        if too_high:
            words += f"; {too_high} candidates scored nearly as high as the positive or higher"
        if 2 * self.num_found < len(self.negatives):
            return (
                f"{words}. The model finds a relevant page for {self.num_found} queries only, so "
                "what it ranks above them says little: train it on this data first, and mine with "
                "that run"
            )
        return f"{words}: a larger --max-share keeps more of them, at the risk of pages that answer"


def mine(
    retriever: Retriever,
    collection: Collection,
    settings: MiningSettings,
    on_item: Callable[[], None] | None = None,
) -> Mined:
    """Find hard negatives for every query that has a relevant page.

    Args:
        retriever: The model that ranks.
        collection: Pages, queries, judgements.
        settings: What counts.
        on_item: Called after each encoded page or query.

    Source:
        Positive-aware mining with a share of the positive's score: NV-Retriever (Moreira et al.,
        2024, arXiv:2407.15831), TopK-PercPos.
    """
    pages = retriever.encode_pages(
        (collection.page_image(index) for index in range(len(collection.page_ids))), on_item
    )
    queries = retriever.encode_queries((query.text for query in collection.queries), on_item)
    scores = score_all(queries, pages)
    texts = collection.text_of_query
    negatives: dict[str, list[MinedNegative]] = {}
    best: dict[str, float] = {}
    skipped: Counter[str] = Counter()
    num_found = 0
    for number, query in enumerate(collection.queries):
        relevant = sorted(collection.relevant_pages[texts[number]])
        if not relevant:
            skipped["query without a relevant page"] += 1
            continue
        row = scores[number]
        positive = max(relevant, key=lambda page: row[page].item())
        limit = settings.max_share * row[positive].item()
        best[query.id] = row[positive].item()
        found: list[MinedNegative] = []
        ranked = row.argsort(descending=True, stable=True)[: settings.top_k].tolist()
        num_found += any(page in relevant for page in ranked)
        for page in ranked:
            if page in relevant:
                skipped["relevant"] += 1
            elif row[page].item() > limit:
                skipped[TOO_HIGH] += 1
            elif len(found) < settings.per_query:
                if _likeness(pages[page], pages[positive]) >= settings.near_duplicate:
                    skipped["near-duplicate of the positive"] += 1
                else:
                    found.append(MinedNegative(collection.page_ids[page], row[page].item()))
        negatives[query.id] = found
        if not found:
            skipped["query left without a negative"] += 1
    return Mined(negatives, best, dict(sorted(skipped.items())), num_found)


def _likeness(left: Tensor, right: Tensor) -> float:
    """Mean over tokens of the best match on the other page, the lower of both ways."""
    with torch.inference_mode():
        forth = maxsim(left[None], right[None]).item() / len(left)
        back = maxsim(right[None], left[None]).item() / len(right)
    return min(forth, back)
