"""Values and close names as an error message shows them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

_LONGEST_VALUE = 120


def shown(value: Any) -> str:
    """A value as one would type it into a recipe, on one line and not too long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    return text


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate that looks most like a word, or None when nothing is close."""
    close = nearest_ones(word, candidates, cutoff)
    return close[0] if close else None


def nearest_ones(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """All candidates that look most like a word; of these, those that begin with it if any do."""
    word = word.casefold()
    matcher = difflib.SequenceMatcher(b=word)
    likeness = {}
    for candidate in candidates:
        matcher.set_seq1(candidate.casefold())
        likeness[candidate] = matcher.ratio(), candidate.casefold().startswith(word)
    best = max(likeness.values(), default=(0.0, False))
    return [name for name, value in likeness.items() if value == best and best[0] >= cutoff]


def listed(words: Iterable[str], last: str = "or") -> str:
    """Words joined as in a sentence: `a, b or c`."""
    *head, tail = [*words]
    return f"{', '.join(head)} {last} {tail}" if head else tail
