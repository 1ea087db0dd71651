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
_AUGMENTATION = "<|endoftext|>" * 10

REGISTERED: dict[str, dict[str, str]] = {
    # colpali-engine 0.3.1 to 0.3.3, as it trained ColQwen2-v0.1: the collator appends
    # `tokenizer.pad_token * 10` (visual_retriever_collator.py:37 at v0.3.1).
    "engine-0.3.3": {
        "query_prefix": "Query: ",
        "query_suffix": _AUGMENTATION,
        "page_prompt": _PAGE + "\n",
    },
    # The same versions, as `process_queries` encoded by default: the letters <pad>, which are no
    # token of Qwen2-VL's, ten times.
    "engine-0.3.3-inference": {
        "query_prefix": "Query: ",
        "query_suffix": "<pad>" * 10,
        "page_prompt": _PAGE + "\n",
    },
    # colpali-engine 0.3.4 (2024-11-07) to 0.3.12 (2025-07-16): ColQwen2-v1.0 and the 2.5 models.
    "engine-0.3.12": {
        "query_prefix": "Query: ",
        "query_suffix": _AUGMENTATION,
        "page_prompt": _PAGE + "<|endoftext|>",
    },
    # colpali-engine 0.3.13 (2025-10-27) and later: the prefix is gone, also for models trained
    # with it (`query_prefix = ""` in utils/processing_utils.py).
    "engine-0.3.13": {
        "query_prefix": "",
        "query_suffix": _AUGMENTATION,
        "page_prompt": _PAGE + "<|endoftext|>",
    },
    # transformers' own ColQwen2Processor, 5.15.0 and later (read up to 5.23.0): a line break after
    # the augmentation tokens. Until 5.14.1 there was none.
    "transformers-native": {
        "query_prefix": "Query: ",
        "query_suffix": _AUGMENTATION + "\n",
        "page_prompt": _PAGE + "<|endoftext|>",
    },
    # mteb 2.0.1 to 2.12.15 put prefix and augmentation around a query and handed it to
    # `process_queries`, which does so too.
    "mteb-2.12.15+engine-0.3.12": {
        "query_prefix": "Query: Query: ",
        "query_suffix": _AUGMENTATION * 2,
        "page_prompt": _PAGE + "<|endoftext|>",
    },
    "mteb-2.12.15+engine-0.3.13": {
        "query_prefix": "",
        "query_suffix": _AUGMENTATION * 2,
        "page_prompt": _PAGE + "<|endoftext|>",
    },
}
"""One name for each text. The first and the last version of an era are those of the projects' tags."""

ALIASES = {
    # As they were called before there was a name for each era.
    "colqwen2-engine-0.3.1": "engine-0.3.3",
    "colqwen2-engine-0.3.4": "engine-0.3.12",
    "colqwen2-engine-0.3.13": "engine-0.3.13",
    # transformers 4.53.3 to 5.14.1.
    "transformers-native-5.14": "engine-0.3.12",
    # mteb 1.38.33 to 1.39.7, and 2.12.16 to 2.19.1: what the engine beside it has.
    "mteb-1.39.7+engine-0.3.12": "engine-0.3.12",
    "mteb-1.39.7+engine-0.3.13": "engine-0.3.13",
    "mteb-2.19.1+engine-0.3.12": "engine-0.3.12",
    "mteb-2.19.1+engine-0.3.13": "engine-0.3.13",
    # mteb 2.19.2 and later (read up to 2.20.0) gives the prefix back, whatever the engine.
    "mteb-2.20.0+engine-0.3.12": "engine-0.3.12",
    "mteb-2.20.0+engine-0.3.13": "engine-0.3.12",
}
"""Further names of the same texts; a template that is asked for by one has the registered name."""

FIRST_NAMES = {name: alias for alias, name in ALIASES.items() if alias.startswith("colqwen2-")}
"""What a registered template was called first: a recipe's hashes outlive a new name."""


class Template(BaseModel):
    """What the model reads besides the query's text and the page's pixels.

    A query is read as `query_prefix + text + query_suffix`, with nothing else around it; a page as
    `page_prompt`, in which `<|image_pad|>` becomes one token for each visual token. Every token of
    both is embedded and scored.

    In a recipe it is a registered name, or a mapping with a name of your own and all three strings.

    Source:
        colpali-engine, `models/qwen2/colqwen2/processing_colqwen2.py`, `utils/processing_utils.py`
        and `collators/visual_retriever_collator.py` at its tags v0.3.1 to v0.3.14 and in 0.3.18;
        transformers, `models/colqwen2/processing_colqwen2.py` in 4.53.3 to 5.23.0; mteb,
        `models/model_implementations/colpali_models.py` at its tags 1.38.33 to 2.20.0.
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

    @property
    def strings(self) -> tuple[str, str, str]:
        """The text without its name: equal for templates that read everything alike."""
        return self.query_prefix, self.query_suffix, self.page_prompt

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        mapping = {"name": value} if isinstance(value, str) else value
        if not isinstance(mapping, dict) or not isinstance(mapping.get("name"), str):
            return value
        name = ALIASES.get(mapping["name"], mapping["name"])
        if name not in REGISTERED and set(mapping) == {"name"}:
            raise PydanticCustomError(
                "unknown-template",
                "there is no template of this name.",
                {
                    "received": shown(name),
                    "expected": f"{listed(REGISTERED)}, or a mapping with a name of your own "
                    "and the strings query_prefix, query_suffix and page_prompt",
                    "suggestion": name_of_versions(name),
                },
            )
        return {**REGISTERED.get(name, {}), **mapping, "name": name}

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
    """A registered template, by its name or an alias.

    Raises:
        RecipeError: There is none of this name.
    """
    if name not in REGISTERED and name not in ALIASES:
        raise RecipeError(
            "unknown-template",
            "there is no template of this name.",
            received=name or "an empty name",
            expected=listed(REGISTERED),
            suggestion=name_of_versions(name) or nearest(name, [*REGISTERED, *ALIASES]),
        )
    return Template.model_validate(name)


def name_of_versions(text: str) -> str | None:
    """The template of any version: what `engine-0.3.7` had, what `mteb-2.1.4+engine-0.3.13` sent.

    For suggestions, and to name the text of a published score from the versions that stand with it.
    Without a version of mteb, colpali-engine's own; None where the text names no version of
    colpali-engine that had ColQwen2 (0.3.1 and later), or one of mteb that had none (before
    1.38.33) or cannot be installed beside it.
    """
    engine = re.search(r"engine-0\.3\.(\d+)\b", text)
    if engine is None or int(engine[1]) < 1:
        return None
    patch = int(engine[1])
    era = "engine-0.3.3" if patch <= 3 else "engine-0.3.12" if patch <= 12 else "engine-0.3.13"
    mteb = re.search(r"mteb-(\d+)\.(\d+)\.(\d+)", text)
    if mteb is None:
        return era
    version = tuple(map(int, mteb.groups()))
    if version < (1, 38, 33) or patch <= 3:  # mteb had no ColQwen2 yet, or takes none so old
        return None
    if version >= (2, 19, 2):
        return "engine-0.3.12"
    if (2, 0, 1) <= version <= (2, 12, 15):
        return f"mteb-2.12.15+{era}"
    return era
