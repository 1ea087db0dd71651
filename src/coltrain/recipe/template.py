"""The strings around a query and a page, by name.

The reference implementation changed its prompt twice without changing the name of anything, and a
model scores lower under another prompt than its own. So a template is a name *and* its strings,
and a recipe in which the two disagree is refused.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from coltrain.errors import RecipeError
from coltrain.recipe.wording import listed, nearest, shown

_PAGE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>"
_SUFFIX = "<|endoftext|>" * 10

REGISTERED: dict[str, dict[str, str]] = {
    # colpali-engine 0.3.1 to 0.3.3: ColQwen2-v0.1 was trained with it.
    "colqwen2-engine-0.3.1": {
        "query_prefix": "Query: ",
        "query_suffix": _SUFFIX,
        "page_prompt": _PAGE + "\n",
    },
    # colpali-engine 0.3.4 to 0.3.12: ColQwen2-v1.0 and the 2.5 models.
    "colqwen2-engine-0.3.4": {
        "query_prefix": "Query: ",
        "query_suffix": _SUFFIX,
        "page_prompt": _PAGE + "<|endoftext|>",
    },
    # colpali-engine 0.3.13 and later: the prefix is gone, also for models trained with it.
    "colqwen2-engine-0.3.13": {
        "query_prefix": "",
        "query_suffix": _SUFFIX,
        "page_prompt": _PAGE + "<|endoftext|>",
    },
}


class Template(BaseModel):
    """What the model reads besides the query's text and the page's pixels.

    A query is read as `query_prefix + text + query_suffix`, with nothing else around it; a page as
    `page_prompt`, in which `<|image_pad|>` becomes one token for each visual token. Every token of
    both is embedded and scored.

    In a recipe it is a registered name, or a mapping with a name of your own and all three strings.

    Source:
        colpali-engine, `processing_colqwen2.py` at the tags in the registered names.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    name: str
    """Registered name, or a name of your own."""
    query_prefix: str
    """Read before the query's text."""
    query_suffix: str
    """Read after the query's text; its tokens are scored like the query's own."""
    page_prompt: str
    """Read for a page; `<|image_pad|>` stands for the page's visual tokens."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        mapping = {"name": value} if isinstance(value, str) else value
        if not isinstance(mapping, dict) or not isinstance(mapping.get("name"), str):
            return value
        name = mapping["name"]
        if name not in REGISTERED and set(mapping) == {"name"}:
            raise PydanticCustomError(
                "unknown-template",
                "there is no template of this name.",
                {
                    "received": shown(name),
                    "expected": f"{listed(REGISTERED)}, or a mapping with a name of your own "
                    "and the strings query_prefix, query_suffix and page_prompt",
                    "suggestion": _of_engine_version(name),
                },
            )
        return {**REGISTERED.get(name, {}), **mapping}

    @model_validator(mode="after")
    def _has_the_strings_of_its_name(self) -> Template:
        for key, expected in REGISTERED.get(self.name, {}).items():
            received = getattr(self, key)
            if received != expected:
                raise PydanticCustomError(
                    "template-drift",
                    "a template has a registered name, but other strings.",
                    {
                        "received": f"{key} = {shown(received)} in {self.name}",
                        "expected": shown(expected),
                        "suggestion": "a name of your own, or leave the strings out",
                    },
                )
        return self


def template_named(name: str) -> Template:
    """A registered template.

    Raises:
        RecipeError: There is none of this name.
    """
    if name not in REGISTERED:
        raise RecipeError(
            "unknown-template",
            "there is no template of this name.",
            received=name or "an empty name",
            expected=listed(REGISTERED),
            suggestion=_of_engine_version(name) or nearest(name, REGISTERED),
        )
    return Template.model_validate(name)


def _of_engine_version(name: str) -> str | None:
    """The template that a version of colpali-engine had, for a name such as colqwen2-engine-0.3.7."""
    version = re.search(r"0\.3\.(\d+)", name)
    if version is None:
        return None
    for name in reversed(REGISTERED):
        if int(version[1]) >= int(name.rpartition(".")[2]):
            return name
    return None
