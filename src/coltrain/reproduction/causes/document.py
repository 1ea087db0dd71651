"""Causes as JSON and as text."""

import textwrap
from collections.abc import Iterator
from typing import Any

from coltrain.reproduction.causes.differences import Causes, Difference
from coltrain.reproduction.causes.side import Side

_WIDTH = 100


def causes_to_json(causes: Causes) -> dict[str, Any]:
    """The causes as a document, without the scores."""
    return {
        "a": _side_to_json(causes.a),
        "b": _side_to_json(causes.b),
        "headline": causes.headline,
        "differences": [_to_json(one) for one in causes.differences],
        "not_compared": [{"what": key, "why": why} for key, why in causes.not_compared],
        "same": dict(causes.same),
        "cause_remarks": list(causes.remarks),
    }


def _side_to_json(side: Side) -> dict[str, Any]:
    return {
        "label": side.label,
        "kind": side.kind,
        "means": [vars(mean) for mean in side.means],
        "not_read": side.not_read,
    }


def _to_json(one: Difference) -> dict[str, Any]:
    return {
        "what": one.what,
        "a": one.a,
        "b": one.b,
        "effect": one.known.effect,
        "evidence": one.known.evidence,
        "source": one.known.source,
        "weight": one.known.weight,
        "key": one.key,
        "where_a": one.where_a,
        "where_b": one.where_b,
        "details": list(one.details),
        "measured": [effect.to_json() for effect in one.measured],
    }


def causes_text(causes: Causes) -> str:
    """The causes as text of at most 100 columns, as a terminal and a document show it."""
    return "\n".join(_lines(causes)) + "\n"


def _lines(causes: Causes) -> Iterator[str]:
    yield from _wrapped(causes.headline)
    yield ""
    for letter, side in (("A", causes.a), ("B", causes.b)):
        yield f"{letter}  {side.label} ({side.kind})"
        for mean in side.means:
            yield from _wrapped(
                f"{mean.benchmark} {mean.measure} {100 * mean.value:.1f} ({mean.source})", "   "
            )
    yield from _apart(causes)
    yield ""
    if causes.differences:
        yield "What differs, the most damaging first, as far as anything is known:"
    for number, one in enumerate(causes.differences, 1):
        yield ""
        yield from _of_one(number, one)
    if causes.same:
        yield ""
        same = "; ".join(f"{key} {value}" for key, value in causes.same)
        yield from _wrapped(f"The same on both sides: {same}.")
    if causes.not_compared:
        yield ""
        yield "Not compared:"
        for key, why in causes.not_compared:
            yield from _wrapped(f"- {key}: {why}", "", "  ")
    if causes.remarks:
        yield ""
        for remark in causes.remarks:
            yield from _wrapped(f"- {remark}", "", "  ")


def _of_one(number: int, one: Difference) -> Iterator[str]:
    head = f"{number:>2}. "
    yield from _wrapped(one.what, head, "    ")
    yield from _wrapped(f"A  {one.a}", "    ", "       ")
    yield from _wrapped(f"B  {one.b}", "    ", "       ")
    for line in one.details:
        yield from _wrapped(line, "    ", "       ")
    yield from _wrapped(one.known.effect, "    ")
    source = f": {one.known.source}" if one.known.source else ""
    yield from _wrapped(f"[{one.known.evidence}{source}]", "    ")


def _apart(causes: Causes) -> Iterator[str]:
    """How far the stated means are apart, where both sides state one of the same measure."""
    pairs = [
        (mine, other)
        for mine in causes.a.means
        for other in causes.b.means
        if (mine.benchmark, mine.measure) == (other.benchmark, other.measure)
    ]
    for mine, other in pairs:
        yield (
            f"A − B  {100 * (mine.value - other.value):+.1f} points of {mine.measure} on "
            f"{mine.benchmark} ({100 * mine.value:.1f} and {100 * other.value:.1f})"
        )
    if pairs:
        yield from _wrapped(
            "Stated means, without the queries behind them: no interval is known, and no share of the "
            "distance that each difference has.",
            "       ",
        )


def _wrapped(text: str, first: str = "", later: str | None = None) -> list[str]:
    later = first if later is None else later
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
