"""Why a page has its score: for each query token, which patch of the page it matched."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from coltrain.evaluation.encoding import refuse_not_finite
from coltrain.model.inputs import Preparer
from coltrain.model.retriever import Retriever


@dataclass(frozen=True)
class Match:
    """One query token on one page.

    Attributes:
        token: Its text.
        token_id: Its number.
        is_word: Whether it is of the query as typed, and not of the template around it.
        row: Of the best patch, from the top.
        column: Of the best patch, from the left.
        similarity: With the best patch, a cosine.
        won_by: The page's text token that was a better match than any patch; None where a patch
            won. The template's words on the page side are tokens too.
        contribution: What the token adds to the score: its best match over all of the page.
    """

    token: str
    token_id: int
    is_word: bool
    row: int
    column: int
    similarity: float
    won_by: str | None
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """A score, taken apart.

    Attributes:
        query: As typed.
        score: The sum of the contributions.
        rows: Of patches on the page; a patch is what one visual token covers, 28 pixels square of
            the page as the model sees it.
        columns: Of patches on the page.
        matches: One a query token, in order.
        similarities: Cosines of each query token with each patch.
    """

    query: str
    score: float
    rows: int
    columns: int
    matches: list[Match]
    similarities: Float[Tensor, "query_tokens rows columns"]

    def won(self) -> Float[Tensor, "rows columns"]:
        """What each patch brings to the score: the contributions of the tokens that it won."""
        shares = torch.zeros(self.rows, self.columns)
        for match in self.matches:
            if match.won_by is None:
                shares[match.row, match.column] += match.contribution
        return shares

    def to_json(self) -> dict[str, Any]:
        """`query`, `score`, `rows`, `columns` and `tokens`, each with its match and its map."""
        return {
            "query": self.query,
            "score": self.score,
            "rows": self.rows,
            "columns": self.columns,
            "tokens": [
                {
                    "token": match.token,
                    "token_id": match.token_id,
                    "is_word": match.is_word,
                    "row": match.row,
                    "column": match.column,
                    "similarity": match.similarity,
                    "won_by": match.won_by,
                    "contribution": match.contribution,
                    "similarities": self.similarities[place].tolist(),
                }
                for place, match in enumerate(self.matches)
            ],
        }


def explain(
    retriever: Retriever,
    text: str,
    image: Image.Image,
    query: Tensor | None = None,
    page: Tensor | None = None,
) -> Explanation:
    """Take the score of a page for a query apart.

    Args:
        retriever: The model.
        text: The query, as typed.
        image: The page.
        query: The query's embedding where it is known, tokens x dim.
        page: The page's, likewise.

    Raises:
        ModelError: `[not-finite-embedding]`.
    """
    if query is None:
        [query] = retriever.encode_queries([text])
        again = partial(retriever.encode_queries, [text])
        refuse_not_finite(query, f"query {text!r}", retriever, again)
    if page is None:
        [page] = retriever.encode_pages([image])
        again = partial(retriever.encode_pages, [image])
        refuse_not_finite(page, "the page", retriever, again)
    preparer = retriever.built.preparer
    prepared = preparer.prepare_page(image)
    rows = prepared.grid_height // preparer.merge_size
    columns = prepared.grid_width // preparer.merge_size
    page_ids = preparer.page_ids(rows * columns)
    first = page_ids.index(preparer.image_token_id)
    with torch.inference_mode():
        products = query.float() @ page.float().T
        best = products.max(dim=1)
        patches = products[:, first : first + rows * columns]
        best_patch = patches.max(dim=1)
    ids = preparer.query_ids(text)
    words = _words(preparer, text, len(ids))
    matches = []
    for place, token_id in enumerate(ids):
        winner = int(best.indices[place])
        is_patch = first <= winner < first + rows * columns
        matches.append(
            Match(
                token=preparer.tokenizer.decode([token_id]),
                token_id=token_id,
                is_word=place in words,
                row=int(best_patch.indices[place]) // columns,
                column=int(best_patch.indices[place]) % columns,
                similarity=float(best_patch.values[place]),
                won_by=None if is_patch else preparer.tokenizer.decode([page_ids[winner]]),
                contribution=float(best.values[place]),
            )
        )
    score = float(best.values.double().sum().float())
    maps = patches.clone().view(len(ids), rows, columns)
    return Explanation(text, score, rows, columns, matches, maps)


def _words(preparer: Preparer, text: str, num_tokens: int) -> range:
    """Places of the tokens that are the query's own.

    Those that differ from the template around an empty query, from both ends: a token that spans
    the seam counts as the query's.
    """
    ids, empty = preparer.query_ids(text), preparer.query_ids("")
    before = 0
    while before < min(len(ids), len(empty)) and ids[before] == empty[before]:
        before += 1
    after = 0
    while after < min(len(ids), len(empty)) - before and ids[-1 - after] == empty[-1 - after]:
        after += 1
    return range(before, num_tokens - after)
