"""What a study says: a base recipe, factors with levels, a design, seeds, what is measured.

Strict and frozen, as a recipe is. The text below each key is its documentation.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from coltrain.evaluation.measures import DEFAULT_MEASURES
from coltrain.recipe.keys import all_paths, nearest_path
from coltrain.recipe.schema import Section
from coltrain.recipe.wording import listed, nearest, shown

End = Literal["from", "to"]
Settings = dict[str, Any]
"""Keys of a recipe with the values that they are set to together."""

_LENGTHS = {"train.steps", "train.epochs"}
NOT_A_FACTOR = {
    "train.seed": "seeds: the study repeats each cell with every seed",
    "eval": "evaluation: all cells are measured on the same data",
    "name": "name: the study's own",
    "description": "description: the study's own",
    "sources": "nothing: the study's file says where values come from",
}
"""Keys of a recipe that no level sets, and what says the same in a study."""


def _texts_as_keys(value: Any) -> Any:
    # YAML reads a level called 32 or false as what it looks like; here it is a name.
    if isinstance(value, dict):
        return {key if isinstance(key, str) else shown(key): inner for key, inner in value.items()}
    return value


def _all_texts(value: Any) -> Any:
    value = _texts_as_keys(value)
    if isinstance(value, dict):
        return {
            key: shown(inner) if isinstance(inner, int | float) else inner
            for key, inner in value.items()
        }
    return value


def _levels(value: Any) -> Any:
    """`{key: optimizer.name, levels: [adamw, adamw_8bit]}` says levels of one key more shortly."""
    value = _texts_as_keys(value)
    if isinstance(value, dict) and set(value) == {"key", "levels"}:
        key, levels = value["key"], value["levels"]
        if isinstance(key, str) and isinstance(levels, list):
            names = [level if isinstance(level, str) else shown(level) for level in levels]
            return {name: {key: level} for name, level in zip(names, levels, strict=True)}
    return value


Named = Annotated[dict[str, str], BeforeValidator(_all_texts)]
Levels = Annotated[dict[str, Settings], BeforeValidator(_levels), Field(min_length=2)]


class Part(Section):
    """A part of a study's file, as strict as one of a recipe."""

    model_config = ConfigDict(populate_by_name=True)  # `from` is no name in Python


class Evaluation(Part):
    """What every cell is measured on, at the end of its run."""

    data: list[Any] | None = None
    """Data sets, as in a recipe's `eval.data`; null leaves those of the base recipe."""
    measure: str = "nDCG@5"
    """The measure that is compared."""

    @field_validator("measure")
    @classmethod
    def _is_measured(cls, measure: str) -> str:
        if measure not in DEFAULT_MEASURES:
            near = nearest(measure, DEFAULT_MEASURES)
            raise PydanticCustomError(
                "study",
                "a run does not measure this.",
                {"expected": listed(DEFAULT_MEASURES), "suggestion": near or ""},
            )
        return measure


class Study(Part):
    """An experiment: what varies, how it is combined, how often it is repeated.

    Read one with `load_study`, which reports mistakes as a `UsageError`.
    """

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")]
    """Name of the study, and of its folder."""
    description: str = ""
    """One sentence for people."""
    base: Annotated[str, Field(min_length=1)]
    """Recipe that every cell starts from: a shipped name, or a file."""
    overrides: Settings = Field(default={})
    """Keys of the recipe that are set in every cell."""
    factors: Annotated[dict[str, Levels], Field(min_length=1)]
    """What varies: for each factor its levels, and for each level the keys that it sets."""
    start: Named = Field(default={}, alias="from")
    """One end of the gap: a level of each factor. A factor that is left out has its first."""
    end: Named = Field(default={}, alias="to")
    """The other end. A factor that is left out has its last."""
    design: Literal["full", "one-at-a-time"]
    """All combinations of levels; or the ends, and each factor alone changed at them."""
    around: Literal["from", "to", "both"] = "both"
    """At which ends factors change alone; read with `design: one-at-a-time` only."""
    seeds: Annotated[int, Field(ge=1, le=1000)] | list[Annotated[int, Field(ge=0, lt=2**63)]]
    """How many, from 0; or which."""
    evaluation: Evaluation = Evaluation()
    """What is measured."""
    share_features: bool = False
    """Whether the runs share visual tokens in the study's folder, where a recipe names no cache itself."""
    margin: Annotated[float, Field(gt=0)] = 1.0
    """Points below which a difference does not matter: what the number of seeds is judged by."""

    @property
    def ends(self) -> dict[End, dict[str, str]]:
        """Both ends, a level of each factor spelled out."""
        first = {factor: next(iter(levels)) for factor, levels in self.factors.items()}
        last = {factor: list(levels)[-1] for factor, levels in self.factors.items()}
        return {
            "from": {name: self.start.get(name, first[name]) for name in self.factors},
            "to": {name: self.end.get(name, last[name]) for name in self.factors},
        }

    @property
    def seed_numbers(self) -> list[int]:
        """The seeds, in the order of the file."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @model_validator(mode="after")
    def _hangs_together(self) -> Study:
        self._check_keys()
        self._check_ends()
        seeds = self.seed_numbers
        if not seeds or len(set(seeds)) < len(seeds):
            raise _mistake("seeds", shown(self.seeds), "a number of seeds, or different seeds")
        if self.design == "full" and "around" in self.model_fields_set:
            raise _mistake(
                "around", self.around, "nothing: a full design has every combination already"
            )
        return self

    def _check_keys(self) -> None:
        places = [("overrides", "overrides", self.overrides)]
        for factor, levels in self.factors.items():
            for level, settings in levels.items():
                places.append((f"factor {factor}", f"factors.{factor}.{level}", settings))
        holders: dict[str, str] = {}
        for owner, place, settings in places:
            for key in settings:
                instead = NOT_A_FACTOR.get(key) or NOT_A_FACTOR.get(key.partition(".")[0])
                if instead is not None:
                    raise _mistake(place, key, f"not this key here, but {instead}")
                if key not in all_paths():
                    raise _mistake(
                        place, key, "a key of a recipe, such as train.steps", nearest_path(key)
                    )
                if settings is not self.overrides:  # a level may change what all cells have
                    _refuse_second_holder(holders, key, owner, place)

    def _check_ends(self) -> None:
        for name, chosen in (("from", self.start), ("to", self.end)):
            for factor, level in chosen.items():
                known = self.factors.get(factor)
                if known is None:
                    near = nearest(factor, self.factors)
                    raise _mistake(name, factor, f"a factor: {listed(self.factors)}", near)
                if level not in known:
                    near = nearest(level, known)
                    raise _mistake(f"{name}.{factor}", level, f"one of {listed(known)}", near)
        same = [name for name, level in self.ends["from"].items() if self.ends["to"][name] == level]
        if same:
            raise _mistake(
                "from and to",
                ", ".join(f"{name} = {self.ends['from'][name]} at both" for name in same),
                "two ends that differ in every factor",
                f"leave {listed(same, 'and')} to overrides, where it does not vary",
            )


def _refuse_second_holder(holders: dict[str, str], key: str, owner: str, place: str) -> None:
    """Two factors that set one key would overwrite each other; so would a key and its section."""
    for other, holder in holders.items():
        is_same = key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")
        if holder != owner and (is_same or {key, other} == _LENGTHS):
            raise _mistake(
                place,
                f"{key}, which {holder} sets too" if key == other else f"{key} beside {other}",
                "each key in one factor only",
                f"one factor whose levels set what {holder} and {owner} set now",
            )
    holders.setdefault(key, owner)


def _mistake(
    place: str, received: str, expected: str, suggestion: str | None = None
) -> PydanticCustomError:
    return PydanticCustomError(
        "study",
        "the study cannot be used as it is.",
        {
            "place": place,
            "received": received,
            "expected": expected,
            "suggestion": suggestion or "",
        },
    )
