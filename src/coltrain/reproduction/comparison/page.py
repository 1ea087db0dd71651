"""The comparison as a page of HTML that asks for nothing from anywhere."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from coltrain.errors import RunError
from coltrain.reproduction.comparison import forest
from coltrain.reproduction.comparison.comparison import Comparison
from coltrain.reproduction.report.figures import change, count, score


def write_page(
    comparison: Comparison | None, path: Path, *, causes: Mapping[str, Any] | None = None
) -> None:
    """Write the page of a comparison.

    Args:
        comparison: Of the scores; None where they cannot be compared, and there are causes.
        path: The file; its folder has to be there.
        causes: What differs between the trainings, as `causes_to_json` gives it.

    Raises:
        RunError: `[cannot-write]`
    """
    try:
        path.write_text(html_page(comparison, causes), encoding="utf-8")
    except OSError as error:
        raise RunError(
            "cannot-write",
            "the page of the comparison cannot be written.",
            where=str(path),
            received=error.strerror or str(error),
            suggestion="name a file in a folder that is there and can be written",
        ) from error


def html_page(comparison: Comparison | None, causes: Mapping[str, Any] | None = None) -> str:
    """The page; every value is escaped, and no script runs."""
    assert comparison is not None or causes is not None
    if comparison is not None:
        left, right = comparison.left, comparison.right
    else:
        left, right = causes["a"]["label"], causes["b"]["label"]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            left=left,
            right=right,
            causes=causes,
            comparison=comparison,
            forest=None if comparison is None else forest.forest_of(comparison),
            width=forest.WIDTH,
            height=forest.HEIGHT,
            start=forest.LEFT,
            end=forest.RIGHT,
        )
    )


def p_value(p: float) -> str:
    """A p-value as papers print it: .031, < .001."""
    if p < 0.001:
        return "< .001"
    return "1" if p > 0.9995 else f"{p:.3f}".removeprefix("0")


def some(names: Sequence[str], most: int = 6) -> str:
    """Names in a row, cut short where there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "p": p_value,
        "score": score,
        "change": change,
        "count": count,
        "some": some,
    }
    return environment
