"""A data set, and what two of them share, as pages of pictures."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coltrain.data.collection import Collection
from coltrain.errors import DataError
from coltrain.evaluation.illustrations import thumbnail

NUM_SAMPLES = 24
NUM_GROUPS = 12
NUM_PAIRS = 40
_PAGES_OF_GROUP = 6


def write_survey(path: Path, collection: Collection, survey: Mapping[str, Any]) -> None:
    """Write what `coltrain data show` found, with sample pages and pages that occur twice."""
    texts: dict[int, str] = {}
    for row in collection.rows:
        texts.setdefault(row.page, collection.queries[row.query].text)
    stride = max(1, len(collection.page_ids) // NUM_SAMPLES)
    places = list(range(0, len(collection.page_ids), stride))[:NUM_SAMPLES]
    place_of = {page_id: place for place, page_id in enumerate(collection.page_ids)}
    duplicates = survey["duplicate_pages"]
    _write(
        path,
        "survey.html.jinja",
        survey=survey,
        counts=counts_shown(survey),
        samples=[_picture(collection, place, texts.get(place)) for place in places],
        groups=[
            [
                _picture(collection, place_of[page_id], texts.get(place_of[page_id]))
                for page_id in group[:_PAGES_OF_GROUP]
            ]
            for group in duplicates["same_picture"][:NUM_GROUPS]
        ],
    )


def counts_shown(survey: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of a survey in words, as tables show them."""
    pages, queries = survey["duplicate_pages"], survey["duplicate_queries"]
    extra = {
        kind: sum(len(group) - 1 for group in pages[kind])
        for kind in ("same_pixels", "same_picture")
    }
    numbers = {
        "rows": survey["rows"],
        "pages": survey["pages"],
        "queries": survey["queries"],
        "empty queries, left out": survey["empty_queries"],
        "pages with the pixels of an earlier one": extra["same_pixels"],
        "pages that look like an earlier one, these included": extra["same_picture"],
        "pages that show nothing": pages["blank"],
        "pages that cannot be decoded": len(pages["broken"]),
        "queries with the text of an earlier one": sum(
            len(group) - 1 for group in queries["same_text"]
        ),
        "the same without case and white space": sum(
            len(group) - 1 for group in queries["same_words"]
        ),
        "rows whose query has an earlier row": queries["rows_with_earlier_query"],
        "visual tokens of all pages": survey["sizes"]["sum_of_visual_tokens"],
    }
    return [(name, f"{number:,}") for name, number in numbers.items()]


def write_leakage(
    path: Path, train: Collection, evaluation: Collection, document: Mapping[str, Any]
) -> None:
    """Write what `coltrain data check` found: each shared page beside the other, and queries."""
    sides = {
        "train": (train, {page_id: place for place, page_id in enumerate(train.page_ids)}),
        "eval": (evaluation, {page_id: place for place, page_id in enumerate(evaluation.page_ids)}),
    }
    # What is least alike is what a person has to look at.
    pairs = sorted(document["pages"], key=lambda pair: pair["likeness"])[:NUM_PAIRS]
    shown = [
        {
            "kind": pair["kind"],
            "likeness": pair["likeness"],
            **{
                side: _picture(collection, places[pair[side]])
                for side, (collection, places) in sides.items()
            },
        }
        for pair in pairs
    ]
    _write(path, "leakage.html.jinja", document=document, shown=shown)


def _picture(collection: Collection, place: int, text: str | None = None) -> dict[str, Any]:
    try:
        image = thumbnail(collection.page_image(place))
    except DataError as error:  # the survey has listed it as broken
        image, text = None, f"cannot be decoded: {error.code}"
    return {"id": collection.page_ids[place], "text": text, "image": image}


def _write(path: Path, template: str, **content: Any) -> None:
    environment = Environment(
        loader=PackageLoader("coltrain.reproduction.data_pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (resources.files(__name__) / "page.css").read_text(encoding="utf-8")
    text = environment.get_template(template).render(css=Markup(css), **content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
