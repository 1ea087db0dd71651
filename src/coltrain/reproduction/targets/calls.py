"""What a configuration builds, as data: calls with their arguments, names, and what is not known."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from coltrain.reproduction.targets.facts import UNKNOWN

OPEN = "**"
"""Key of `Call.kwargs` that stands for keyword arguments from a mapping that is not known."""


@dataclass(frozen=True)
class Ref:
    """A name that stands for itself: `torch.bfloat16`, a function that is handed over."""

    name: str

    @property
    def last(self) -> str:
        """`bfloat16` of `torch.bfloat16`."""
        return self.name.rpartition(".")[2]


@dataclass
class Call:
    """A call that was written down and never made.

    Attributes:
        name: Dotted name of what is called, as far as imports tell it.
        args: Positional arguments.
        kwargs: Keyword arguments, and attributes that were set on the result later.
        where: File and line, or file and key.
        on: The call whose result it is a method of.
        is_unsure: Whether it stands in a branch that may not be taken.
    """

    name: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    where: str = ""
    on: Any = None
    later: dict[str, Any] = field(default_factory=dict)
    is_unsure: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it takes arguments that are not known by name: `**kwargs` from elsewhere."""
        return OPEN in self.kwargs

    @property
    def last(self) -> str:
        """`from_pretrained` of `ColQwen2.from_pretrained`."""
        return self.name.rpartition(".")[2]

    @property
    def owner(self) -> str:
        """`ColQwen2` of `colpali_engine.models.ColQwen2.from_pretrained`."""
        return self.name.rpartition(".")[0].rpartition(".")[2]

    def argument(self, name: str, position: int | None = None, default: Any = UNKNOWN) -> Any:
        """An argument by name, or by its place."""
        for kwargs in (self.later, self.kwargs):
            if name in kwargs:
                return kwargs[name]
        if position is not None and position < len(self.args):
            return self.args[position]
        return default

    def has(self, name: str) -> bool:
        """Whether an argument was given by name, or set later."""
        return name in self.kwargs or name in self.later


def nested(value: Any, seen: set[int] | None = None) -> Iterator[Call]:
    """A value's calls, the inner ones first."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    if isinstance(value, Call):
        seen.add(id(value))
        yield from nested([value.on, value.args, value.kwargs, value.later], seen)
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from nested(one, seen)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from nested(one, seen)


def unique(calls: Iterable[Call]) -> list[Call]:
    """Each call once, in order."""
    seen: dict[int, Call] = {}
    for call in calls:
        seen.setdefault(id(call), call)
    return list(seen.values())
