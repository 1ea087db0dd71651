"""Where queries and pages come from, as a recipe names it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from coltrain.recipe.wording import shown

BUILTIN_PREFIX = "tiny:"


class Source(BaseModel):
    """One data set: a hub name, a folder, or pages that the package draws itself.

    In a recipe it is a string (`vidore/colpali_train_set`, `name@revision`, `./folder`,
    `tiny:train`) or a mapping, where a split or a layout has to be said. Folders stay as typed:
    they are looked up from where the command runs.

    Example:
        >>> Source.model_validate("vidore/colpali_train_set@main").revision
        'main'
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    path: str = Field(min_length=1)
    """Hub name, folder, or `tiny:train`, `tiny:dev`, `tiny:test`."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set; null is its newest state, which can change."""
    split: str | None = None
    """Which split; null is `train` under data.train and `test` under eval.data."""
    layout: Literal["auto", "rows", "corpus", "negatives", "mix"] = "auto"
    """How it is stored: rows of query and image; corpus, queries and qrels; corpus and training
    rows that name its pages; a mix by name."""
    corpus: str | None = Field(default=None, min_length=1)
    """Data set of the pages that training rows name, where it is another one."""
    filter: str | None = Field(default=None, min_length=1)
    """Column of the training rows; only rows where it is true are used (`gold_in_top_100`)."""
    config: str | None = Field(default=None, min_length=1)
    """Configuration of a data set whose README declares several of rows."""
    language: str | None = Field(default=None, min_length=1)
    """Language of the queries, of a corpus with several: tables such as `english-queries`, or the
    column `language` of the queries."""
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Share of the training rows, relative to the other sources; null is the number of its rows."""

    @property
    def is_builtin(self) -> bool:
        """True for pages that the package draws itself."""
        return self.path.startswith(BUILTIN_PREFIX)

    @property
    def is_folder(self) -> bool:
        """True where the path can only be a folder: it starts with `.`, `/` or `~`."""
        return _is_folder(self.path)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"path": value}
        if not isinstance(value, dict):
            raise PydanticCustomError("source", "not a source.", {"expected": EXPECTED})
        path = value.get("path")
        if isinstance(path, str) and "@" in path and not _is_folder(path):
            name, _, revision = path.rpartition("@")
            if not name or not revision:
                raise PydanticCustomError(
                    "source", "not a source.", {"expected": "name@revision, or a name alone"}
                )
            if value.get("revision") is not None:
                raise PydanticCustomError(
                    "source",
                    "not a source.",
                    {"expected": f"one revision, not {shown(revision)} and `revision` as well"},
                )
            value = {**value, "path": name, "revision": revision}
        return value

    @model_validator(mode="after")
    def _has_one_layout(self) -> Source:
        if self.corpus is not None and self.layout not in ("auto", "negatives"):
            raise PydanticCustomError(
                "source",
                "not a source.",
                {
                    "received": f"corpus {self.corpus} with layout {self.layout}",
                    "expected": "`corpus` with the layout negatives, or without a layout",
                },
            )
        return self

    @model_serializer
    def _as_short_as_possible(self) -> str | dict[str, str | float | None]:
        usual = {"revision": self.revision, "split": self.split, "layout": self.layout}
        # Rarely said: left out where they are not, so that recipes stay short.
        rare = {
            "corpus": self.corpus,
            "filter": self.filter,
            "config": self.config,
            "language": self.language,
            "weight": self.weight,
        }
        rare = {key: value for key, value in rare.items() if value is not None}
        if not rare and usual == {"revision": None, "split": None, "layout": "auto"}:
            return self.path
        return {"path": self.path, **usual, **rare}


EXPECTED = (
    "a source: a hub name, a folder such as ./pages, tiny:train, "
    "or a mapping with path, and revision, split, layout, corpus, filter, config, language or weight"
)


def _is_folder(path: str) -> bool:
    return path.startswith((".", "/", "~"))
