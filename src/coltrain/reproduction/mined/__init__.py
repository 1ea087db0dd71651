"""Samples of mined negatives as one page of pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from coltrain.data.collection import Collection
from coltrain.evaluation.illustrations import thumbnail
from coltrain.evaluation.mining import Mined, MiningSettings

NUM_SHOWN = 12
NEGATIVES_SHOWN = 3


def write_samples(
    folder: Path, collection: Collection, mined: Mined, settings: MiningSettings, model: str
) -> Path:
    """Write samples.html: queries spread over the data, the positive page and its negatives."""
    page_index = {page_id: index for index, page_id in enumerate(collection.page_ids)}
    with_negatives = [query for query in collection.queries if mined.negatives.get(query.id)]
    stride = max(1, len(with_negatives) // NUM_SHOWN)
    samples: list[dict[str, Any]] = []
    for query in with_negatives[::stride][:NUM_SHOWN]:
        relevant = collection.relevant_pages[
            collection.text_of_query[collection.queries.index(query)]
        ]
        shown = [_shown(collection, min(relevant), "answers", mined.scores[query.id])]
        shown += [
            _shown(collection, page_index[negative.page_id], "hard negative", negative.score)
            for negative in mined.negatives[query.id][:NEGATIVES_SHOWN]
        ]
        samples.append({"query": query.text, "id": query.id, "pages": shown})
    page = (
        _environment()
        .get_template("samples.html.jinja")
        .render(
            name=collection.name,
            model=model,
            settings=settings,
            samples=samples,
            skipped=mined.skipped,
            numbers=_numbers([len(found) for found in mined.negatives.values()]),
        )
    )
    path = folder / "samples.html"
    path.write_text(page, encoding="utf-8")
    return path


def _shown(collection: Collection, index: int, role: str, score: float) -> dict[str, Any]:
    return {
        "role": role,
        "page_id": collection.page_ids[index],
        "score": score,
        "image": thumbnail(collection.page_image(index)),
    }


def _numbers(counts: Sequence[int]) -> dict[str, float]:
    return {
        "queries": len(counts),
        "negatives": sum(counts),
        "mean": sum(counts) / max(1, len(counts)),
    }


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("coltrain.reproduction.mined", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
