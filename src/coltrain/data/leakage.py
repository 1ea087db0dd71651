"""What two data sets share: pages that look the same, and queries that ask the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coltrain.data.collection import Collection, Query, comparable
from coltrain.data.likeness import Looks, alike_pages

SAME_PIXELS = "same-pixels"
SAME_PICTURE = "same-picture"
SAME_TEXT = "same-text"
SAME_WORDS = "same-words"
SAME_LETTERS = "same-letters"


@dataclass(frozen=True)
class SharedPage:
    """A page that occurs in both.

    Attributes:
        train: Page id there.
        eval: Page id there.
        kind: `same-pixels`, or `same-picture` where encoding or size differ.
        likeness: See `coltrain.data.likeness`; 1 for the same pixels.
    """

    train: str
    eval: str
    kind: str
    likeness: float


@dataclass(frozen=True)
class SharedQuery:
    """A query that occurs in both.

    Attributes:
        train: Query id there.
        eval: Query id there.
        kind: `same-text`; `same-words` where case or white space differ; `same-letters` where
            punctuation differs as well.
        train_text: As typed.
        eval_text: As typed.
    """

    train: str
    eval: str
    kind: str
    train_text: str
    eval_text: str


@dataclass(frozen=True)
class Leakage:
    """What two data sets share.

    Attributes:
        pages: In the order of the evaluation set.
        queries: In the order of the evaluation set.
    """

    pages: list[SharedPage]
    queries: list[SharedQuery]

    @property
    def num_eval_pages(self) -> int:
        """Pages of the evaluation set that the training set has too."""
        return len({page.eval for page in self.pages})

    @property
    def num_eval_queries(self) -> int:
        """Queries of the evaluation set that the training set has too."""
        return len({query.eval for query in self.queries})


def letters(text: str) -> str:
    """A query's letters and digits alone, in one case and one form of Unicode."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(sign for sign in plain if sign.isalnum())


def shared_queries(train: list[Query], evaluation: list[Query]) -> list[SharedQuery]:
    """Queries of two sets that ask the same, each pair once with its closest kind.

    A query without letters or digits, such as one in signs alone, is compared as typed.
    """
    found: dict[tuple[str, str], SharedQuery] = {}
    for kind, form in (
        (SAME_TEXT, lambda text: text),
        (SAME_WORDS, comparable),
        (SAME_LETTERS, letters),
    ):
        asked: dict[str, list[Query]] = {}
        for query in train:
            asked.setdefault(form(query.text), []).append(query)
        asked.pop("", None)
        for query in evaluation:
            for other in asked.get(form(query.text), ()):
                pair = (other.id, query.id)
                found.setdefault(pair, SharedQuery(*pair, kind, other.text, query.text))
    order = {query.id: place for place, query in enumerate(evaluation)}
    return sorted(found.values(), key=lambda shared: order[shared.eval])


def find_leakage(
    train: Collection,
    train_looks: Looks,
    evaluation: Collection,
    eval_looks: Looks,
    on_rows: Callable[[int], None] | None = None,
) -> Leakage:
    """Pages and queries that occur in both sets.

    Args:
        train: The training set.
        train_looks: Its pages, by `look_at`.
        evaluation: The evaluation set.
        eval_looks: Its pages.
        on_rows: Called with the number of evaluation pages that were compared.
    """
    pages = [
        SharedPage(
            train.page_ids[pair.right],
            evaluation.page_ids[pair.left],
            SAME_PIXELS if pair.is_exact else SAME_PICTURE,
            pair.likeness,
        )
        for pair in alike_pages(eval_looks, train_looks, on_rows)
    ]
    return Leakage(pages, shared_queries(train.queries, evaluation.queries))


def as_document(leakage: Leakage) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "pages": [
            {
                "train": page.train,
                "eval": page.eval,
                "kind": page.kind,
                "likeness": round(page.likeness, 4),
            }
            for page in leakage.pages
        ],
        "queries": [
            {
                "train": query.train,
                "eval": query.eval,
                "kind": query.kind,
                "train_text": query.train_text,
                "eval_text": query.eval_text,
            }
            for query in leakage.queries
        ],
    }
