"""What the evaluations looked like: score distributions, and queries with their pages."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from coltrain.reproduction.report import figures
from coltrain.reproduction.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, Tick
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.scales import Scale, nice_range, ticks
from coltrain.reproduction.report.table import Table

_NUM_BINS = 36
_LONGEST_QUERY = 400  # characters
_CROWD = 0.02  # share of all queries from which a page that wins wrongly is named

Document = dict[str, Any]
"""What `coltrain.evaluation.illustrations` makes of one evaluation of one data set."""


@dataclass(frozen=True)
class Histogram:
    """Two distributions on one drawing: the relevant page's score and the best other page's."""

    identity: str
    title: str
    description: str
    relevant: str
    other: str
    relevant_median: float
    other_median: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    height: int = HEIGHT - 20


@dataclass(frozen=True)
class Distributions:
    """Both distributions of a data set, at the start and at the end."""

    data_set: str
    histograms: tuple[Histogram, ...]
    table: Table


@dataclass(frozen=True)
class Picture:
    """A thumbnail of a page."""

    page_id: str
    source: str
    width: int
    height: int
    score: str


@dataclass(frozen=True)
class Shown:
    """A query of the gallery.

    Attributes:
        text: The query, shortened where it is very long.
        query_id: As in the data.
        is_hit: Whether a relevant page came first.
        rank: Of the best relevant page.
        rank_before: Before training, where that is another moment and known.
        relevant: The page that should have come first.
        winner: The page that came first in its stead; None for a hit.
    """

    text: str
    query_id: str
    is_hit: bool
    rank: str
    rank_before: str | None
    relevant: Picture
    winner: Picture | None


@dataclass(frozen=True)
class Gallery:
    """Queries of one data set.

    Attributes:
        data_set: Which.
        when: At which evaluation.
        account: How many there are of each kind, in words.
        crowd: Pages that come first suspiciously often, in words; empty where none does.
        misses: Queries whose relevant page did not come first.
        hits: Queries whose relevant page did.
    """

    data_set: str
    when: str
    account: str
    crowd: str
    misses: tuple[Shown, ...]
    hits: tuple[Shown, ...]


def distributions_of(record: RunRecord) -> tuple[Distributions, ...]:
    """Score distributions of each data set that was illustrated."""
    names = list(dict.fromkeys([*record.pictures_before, *record.pictures_after]))
    drawn = []
    for place, name in enumerate(names):
        moments = [
            (when, [query for query in document["queries"] if query["other_score"] is not None])
            for when, document in (
                ("before training", record.pictures_before.get(name)),
                ("after training", record.pictures_after.get(name)),
            )
            if document is not None
        ]
        moments = [(when, queries) for when, queries in moments if queries]
        if moments:
            drawn.append(_distributions(name, f"scores-{place}", moments))
    return tuple(drawn)


def galleries_of(record: RunRecord) -> tuple[Gallery, ...]:
    """The last gallery of each data set."""
    is_after = bool(record.pictures_after)
    documents = record.pictures_after or record.pictures_before
    when = "after training" if is_after else "before training"
    galleries = []
    for name, document in documents.items():
        earlier = record.pictures_before.get(name, {}) if is_after else {}
        rank_before = {query["id"]: query["rank"] for query in earlier.get("queries", [])}
        shown = [_shown(one, document["pages"], rank_before) for one in document["gallery"]]
        num_queries = len(document["queries"])
        num_hits = sum(query["rank"] == 1 for query in document["queries"])
        galleries.append(
            Gallery(
                data_set=name,
                when=when,
                account=f"{figures.count(num_hits)} of {figures.count(num_queries)} queries find "
                f"a relevant page first, among {figures.count(document['num_pages'])} pages",
                crowd=_crowd(document["queries"]),
                misses=tuple(one for one in shown if not one.is_hit),
                hits=tuple(one for one in shown if one.is_hit),
            )
        )
    return tuple(galleries)


Moment = tuple[str, list[dict[str, Any]]]


def _distributions(name: str, identity: str, moments: Sequence[Moment]) -> Distributions:
    values = {when: _per_token(queries) for when, queries in moments}
    everything = [value for pair in values.values() for side in pair for value in side]
    low, high = nice_range(everything, from_zero=False, about=8)
    heights = {when: [_shares(side, low, high) for side in pair] for when, pair in values.items()}
    x = Scale(low, high, LEFT, RIGHT)
    histograms, rows = [], []
    for number, (when, queries) in enumerate(moments):
        relevant, other = values[when]
        top = max(share for side in heights[when] for share in side)
        y = Scale(0, nice_range([0, top], from_zero=True)[1], BOTTOM, TOP)
        middles = median(relevant), median(other)
        margin = median(mine - best for mine, best in zip(relevant, other, strict=True))
        wins = sum(mine > best for mine, best in zip(relevant, other, strict=True)) / len(queries)
        rows.append(
            (
                when,
                *(f"{value:.4f}".replace("-", figures.MINUS) for value in (*middles, margin)),
                f"{100 * wins:.1f}%",
            )
        )
        histograms.append(
            Histogram(
                identity=f"{identity}-{number}",
                title=when.capitalize(),
                description=f"Scores per query token of {len(queries):,} queries, {when}: the "
                f"relevant page has a median of {middles[0]:.4f}, the best other page "
                f"{middles[1]:.4f}; the relevant page scores higher for {100 * wins:.1f}%.",
                relevant=_outline(heights[when][0], low, high, x, y),
                other=_outline(heights[when][1], low, high, x, y),
                relevant_median=x(middles[0]),
                other_median=x(middles[1]),
                x_ticks=tuple(Tick(x(at), f"{at:g}") for at in ticks(low, high, 5)),
                y_ticks=tuple(Tick(y(at), f"{100 * at:g}%") for at in ticks(0, y.high, 4)),
            )
        )
    table = Table(
        headings=("", "relevant page", "best other page", "margin", "relevant page higher"),
        rows=tuple(rows),
        caption=f"Scores per query token on {name}, medians over queries",
    )
    return Distributions(name, tuple(histograms), table)


def _per_token(queries: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Scores of the relevant and of the best other page, over the query's length."""
    return (
        [query["relevant_score"] / max(1, query["num_tokens"]) for query in queries],
        [query["other_score"] / max(1, query["num_tokens"]) for query in queries],
    )


def _shares(values: Sequence[float], low: float, high: float) -> list[float]:
    """How much of the values lies in each bin."""
    counts = [0] * _NUM_BINS
    for value in values:
        counts[min(_NUM_BINS - 1, int((value - low) / (high - low) * _NUM_BINS))] += 1
    return [count / len(values) for count in counts]


def _outline(shares: Sequence[float], low: float, high: float, x: Scale, y: Scale) -> str:
    """The bars' common outline."""
    filled = [place for place, share in enumerate(shares) if share]
    first, last = filled[0], filled[-1] + 1
    edges = [x(low + (high - low) * place / _NUM_BINS) for place in range(_NUM_BINS + 1)]
    path = f"M{edges[first]:g} {y(0):g}"
    for place in range(first, last):
        path += f"V{y(shares[place]):g}H{edges[place + 1]:g}"
    return f"{path}V{y(0):g}Z"


def _crowd(queries: Sequence[dict[str, Any]]) -> str:
    """Hubs: pages near to everything, which win queries that are not theirs."""
    wrongly = Counter(query["winner"] for query in queries if query["rank"] > 1)
    hubs = [
        f"{page} ({figures.count(number)} queries)"
        for page, number in wrongly.most_common(3)
        if number >= max(3, _CROWD * len(queries))
    ]
    if not hubs:
        return ""
    return f"Pages that come first for many queries they do not answer: {', '.join(hubs)}."


def _shown(one: Document, pages: dict[str, Document], rank_before: dict[str, int]) -> Shown:
    is_hit = one["rank"] == 1
    text = " ".join(one["text"].split())
    earlier = rank_before.get(one["id"])
    return Shown(
        text=text if len(text) <= _LONGEST_QUERY else text[: _LONGEST_QUERY - 1] + "…",
        query_id=one["id"],
        is_hit=is_hit,
        rank=figures.count(one["rank"]),
        rank_before=None if earlier is None else figures.count(earlier),
        relevant=_picture(one, "relevant", pages),
        winner=None if is_hit else _picture(one, "winner", pages),
    )


def _picture(one: Document, role: str, pages: dict[str, Document]) -> Picture:
    page = pages[one[role]]
    return Picture(
        page_id=one[role],
        source=f"data:image/jpeg;base64,{page['jpeg']}",
        width=int(page["width"]),
        height=int(page["height"]),
        score=f"{one[f'{role}_score'] / max(1, one['num_tokens']):.4f}",
    )
