"""Write docs/reference/recipe.md: every key of a recipe, from the schema that checks them.

python scripts/make_recipe_reference.py
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coltrain.recipe import Recipe, Source, Template
from coltrain.recipe.identity import affects_result
from coltrain.recipe.keys import expectation
from coltrain.recipe.schema import Section
from coltrain.recipe.template import ALIASES, REGISTERED
from coltrain.recipe.wording import listed, shown

TARGET = Path(__file__).parents[1] / "docs/reference/recipe.md"
HEAD = """\
# Every key of a recipe

A recipe is YAML. `coltrain recipes show NAME` prints one with the source of each value; any key is
changed on the command line by `key.path=value`, the value as YAML. A key without a default must be
given. A key that does not move the result may change when a run is resumed.

*Written by `python scripts/make_recipe_reference.py` from `src/coltrain/recipe/schema.py`.*
"""
COLUMNS = ("key", "takes", "default", "meaning", "moves the result")


def reference() -> str:
    """The page."""
    sections = {
        name: field.annotation
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    whole = {name: field for name, field in Recipe.model_fields.items() if name not in sections}
    parts = [HEAD, "## The recipe as a whole\n\n" + _table(whole)]
    for name, section in sections.items():
        parts.append(f"## {name}\n\n{_docstring(section)}" + _table(section.model_fields, name))
    parts.append(f"## A source\n\n{_docstring(Source)}" + _table(Source.model_fields, of="data"))
    names = listed((f"`{name}`" for name in REGISTERED), "and")
    parts.append(
        f"## A template\n\n{_docstring(Template)}Known by name: {names}. Other names of the same: "
        + listed((f"`{alias}` is `{name}`" for alias, name in ALIASES.items()), "and")
        + ".\n\n"
        + _table(Template.model_fields, of="model.template")
    )
    return "\n".join(parts)


def _table(fields: Mapping[str, FieldInfo], section: str = "", of: str = "") -> str:
    """One row for each key.

    Args:
        fields: By name.
        section: What stands before the names.
        of: The section that says whether they move the result, where it does not stand there.
    """
    rows = [COLUMNS, ("---",) * len(COLUMNS), *_rows(fields, section, of)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _rows(fields: Mapping[str, FieldInfo], section: str, of: str) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        path = f"{section}.{name}" if section else name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _rows(field.annotation.model_fields, path, of)
            continue
        default = "" if field.is_required() else f"`{shown(field.get_default())}`"
        takes = expectation(field.annotation, tuple(field.metadata))
        meaning = " ".join((field.description or "").split())
        moves = "yes" if affects_result(f"{of}.{name}" if of else path) else "no"
        yield (f"`{path}`", takes, default, meaning, moves)


def _docstring(model: type[BaseModel]) -> str:
    """What a class says of itself, without its example."""
    text = (model.__doc__ or "").partition("Example:")[0]
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs if paragraph)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    print(TARGET)
