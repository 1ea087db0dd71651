"""README.md of an exported model: what it is, its template, its scores, how each library loads it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from coltrain.model.adapter import lora_layers
from coltrain.model.build import BuiltModel
from coltrain.model.export.colpali_engine import is_on_hub
from coltrain.model.export.exporting import Exported
from coltrain.model.export.files import name_of

_LIBRARIES = {
    "coltrain": "coltrain",
    "colpali-engine": "colpali",
    "transformers": "transformers",
    "sentence-transformers": "sentence-transformers",
}


@dataclass(frozen=True)
class Score:
    """A mean over queries and its interval, as fractions."""

    dataset: str
    num_queries: int
    num_pages: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Training:
    """What is known of how a model was trained.

    Attributes:
        recipe: Resolved, as YAML.
        step: Steps at the evaluation.
        measure: Which one the scores are of.
        scores: One a data set.
    """

    recipe: str
    step: int | None
    measure: str
    scores: Sequence[Score]


def write_model_card(
    exported: Exported, built: BuiltModel, title: str, training: Training | None, place: str
) -> None:
    """Write README.md into an exported folder.

    Args:
        exported: What was written.
        built: The model that it was written from.
        title: Heading.
        training: Of the run that trained it, where it came from one.
        place: Folder or hub name to load it from.
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["code"] = _code
    environment.filters["tojson"] = lambda text: json.dumps(text, ensure_ascii=False)
    file = resources.files("coltrain.model.export") / "model_card.md.jinja"
    template = built.preparer.template
    adapted = lora_layers(built.model)
    text = environment.from_string(file.read_text(encoding="utf-8")).render(
        exported=exported,
        library=_LIBRARIES[exported.target],
        title=title,
        base=built.base,
        base_on_hub=is_on_hub(built.base),
        base_revision=built.base_revision,
        weights_hash=built.weights_hash,
        projection_hash=built.projection_hash,
        rounded_to=name_of(built.rounded_to),
        dim=built.model.dim,
        lora=built.lora,
        num_adapted=len(adapted),
        adapter_dtype=exported.dtype,
        max_visual_tokens=built.preparer.max_visual_tokens,
        template=template,
        suffix_code=_suffix_code(template.query_suffix),
        load_dtype=exported.dtype if exported.merged else name_of(built.rounded_to),
        place=place,
        recipe=training.recipe.rstrip() if training else None,
        step=training.step if training else None,
        measure=training.measure if training else None,
        scores=training.scores if training else [],
    )
    (Path(exported.folder) / "README.md").write_text(text, encoding="utf-8")


def _code(text: str) -> str:
    """A string as it would be typed, in a code span of a table."""
    return "`" + json.dumps(text, ensure_ascii=False).replace("|", "\\|") + "`"


def _suffix_code(suffix: str) -> str:
    """Python for the text after a query; a token that is repeated, as a product."""
    token = suffix[: suffix.find("|>") + 2]
    times = suffix.count(token) if token else 0
    if times > 1 and token * times == suffix:
        return f"{json.dumps(token)} * {times}"
    return json.dumps(suffix, ensure_ascii=False)
