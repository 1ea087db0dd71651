"""How an evaluation went, as one page: scores, worst queries with heat maps, similarities, ties."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coltrain.data.collection import Collection
from coltrain.evaluation.evaluate import Evaluation
from coltrain.evaluation.explanation import Explanation, explain
from coltrain.evaluation.illustrations import illustrate, thumbnail
from coltrain.evaluation.noise import Floor
from coltrain.evaluation.results import Result
from coltrain.evaluation.ties import ties
from coltrain.model.retriever import Retriever
from coltrain.reproduction.evaluation_report.heat import maps
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.scales import Scale, nice_range, ticks

NUM_WORST = 6
NUM_WORDS = 6
NUM_BINS = 24
WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 34


@dataclass(frozen=True)
class Section:
    """One data set on the page."""

    result: Result
    floors: Sequence[Floor] | None
    worst: list[dict[str, Any]]
    num_missed: int
    histogram: dict[str, Any] | None
    ties: dict[str, Any]


def section_of(
    retriever: Retriever,
    collection: Collection,
    evaluation: Evaluation,
    floors: Sequence[Floor] | None = None,
) -> Section:
    """What the page shows of one data set; a dozen pages are decoded for it.

    Args:
        retriever: The model; it encodes again what the evaluation did not keep.
        collection: The data set.
        evaluation: Of it.
        floors: Its noise floor, where it was measured.
    """
    document = illustrate(evaluation, collection, 3 * NUM_WORST)
    missed = [one for one in document["gallery"] if one["rank"] > 1][:NUM_WORST]
    shown = missed or document["gallery"][: NUM_WORST // 3]
    queries = {query.id: place for place, query in enumerate(collection.queries)}
    pages = {page: place for place, page in enumerate(collection.page_ids)}
    worst = []
    for one in shown:
        names = dict.fromkeys((one["relevant"], one["winner"]))
        pictures = []
        for name in names:
            place = pages[name]
            found = explain(
                retriever,
                one["text"],
                collection.page_image(place),
                evaluation.queries[queries[one["id"]]],
                evaluation.pages[place] if len(evaluation.pages) else None,
            )
            role = "should have won" if name == one["relevant"] else "won"
            if one["rank"] == 1:
                role = "won, and answers"
            pictures.append(
                {
                    "role": role,
                    "page_id": name,
                    "score": found.score,
                    "image": document["pages"][name],
                    "maps": maps(found, NUM_WORDS),
                }
            )
        worst.append({**one, "pictures": pictures, "measures": _measures(evaluation, one["id"])})
    return Section(
        evaluation.result,
        floors,
        worst,
        sum(one["rank"] > 1 for one in document["queries"]),
        _histogram(document["queries"]),
        ties(collection, evaluation.scores),
    )


def evaluation_page(sections: Sequence[Section], document: dict[str, Any]) -> str:
    """The page, as one file: style and pictures inside, nothing asked from anywhere.

    Args:
        sections: One a data set.
        document: `model`, `encoder` and `scoring`, as in the JSON document.
    """
    return _page("evaluation.html.jinja", sections=sections, document=document)


def explanation_page(explanation: Explanation, image: Any, model: str, page: str) -> str:
    """One page and one query, every token of the query drawn.

    Args:
        explanation: Of both.
        image: The page.
        model: Name of the model.
        page: Name of the page.
    """
    return _page(
        "explanation.html.jinja",
        explanation=explanation,
        image=thumbnail(image),
        maps=maps(explanation),
        model=model,
        page=page,
    )


def _measures(evaluation: Evaluation, query: str) -> dict[str, float]:
    return evaluation.result.per_query[query]


def _histogram(queries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Score per query token of the best relevant page, and of the best other page."""
    groups = {
        "relevant": [one["relevant_score"] / one["num_tokens"] for one in queries],
        "other": [
            one["other_score"] / one["num_tokens"]
            for one in queries
            if one["other_score"] is not None
        ],
    }
    values = [value for group in groups.values() for value in group]
    if not values:
        return None
    low, high = nice_range(values, from_zero=False)
    edges = np.linspace(low, high, NUM_BINS + 1)
    counts = {name: np.histogram(group, edges)[0] for name, group in groups.items()}
    most = max(int(count.max()) for count in counts.values()) or 1
    x, y = (
        Scale(low, high, LEFT, WIDTH - RIGHT),
        Scale(0, most, HEIGHT - BOTTOM, TOP),
    )
    bars = {
        name: [
            {
                "x": x(edges[place]),
                "width": round(max(x(edges[place + 1]) - x(edges[place]) - 0.6, 0.4), 1),
                "y": y(number),
                "height": round(y(0) - y(number), 1),
            }
            for place, number in enumerate(count)
            if number
        ]
        for name, count in counts.items()
    }
    margins = [
        (one["relevant_score"] - one["other_score"]) / one["num_tokens"]
        for one in queries
        if one["other_score"] is not None
    ]
    return {
        "bars": bars,
        "ticks": [(x(tick), f"{tick:g}") for tick in ticks(low, high)],
        "levels": [(y(level), f"{level:g}") for level in ticks(0, most, 3)],
        "medians": {name: float(np.median(group)) for name, group in groups.items() if group},
        "margin": float(np.median(margins)) if margins else None,
        "num_queries": len(queries),
    }


def _page(template: str, **content: Any) -> str:
    environment = _environment()
    style = environment.loader.get_source(environment, "report/page.css")[0]
    style += environment.loader.get_source(environment, "evaluation_report/heat.css")[0]
    return environment.get_template(f"evaluation_report/{template}").render(
        style=Markup(style),
        figures=figures,
        geometry={"width": WIDTH, "height": HEIGHT, "left": LEFT, "bottom": BOTTOM},
        **content,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("coltrain.reproduction", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment


def visible(token: str) -> str:
    """A token's text, white space alone as it is written in a program."""
    return token if token.strip() else repr(token)[1:-1]
