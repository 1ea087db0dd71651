"""How long samples and runs are, as far as it can be told without weights, tokenizer or data."""

import re

from transformers import AutoTokenizer

from coltrain.data.mixture import MixturePlan
from coltrain.data.sources import load_collection
from coltrain.errors import UsageError
from coltrain.model.inputs import IMAGE_TOKEN
from coltrain.model.locate import TINY, tiny_folder
from coltrain.planning.footprint import Sizes
from coltrain.recipe import Recipe, Source

# Tokens of a question's own text; with the prefix and the ten augmentation tokens about 30.
QUERY_TEXT_TOKENS = 18
_PIECES = re.compile(r"<\|[^|]+\|>|\w+|[^\w\s]|\n")

# Rows of the train and test splits, so that a plan needs no network: the card of
# vidore/colpali_train_set; the other two are made of the same pairs and taken to be as long.
KNOWN_ROWS = {
    "vidore/colpali_train_set": {"train": 118_195, "test": 500},
    "colpali_train_set_detailed": {"train": 118_195, "test": 500},
    "manu/colpali-data-ir": {"train": 118_195, "test": 500},
}


def sample_sizes(recipe: Recipe) -> Sizes:
    """The longest page that the budget allows, and a usual query.

    The tiny base's own tokenizer counts; for others a word, a sign and a special token count one
    each, which is what Qwen2's tokenizer makes of the registered templates.
    """
    template, budget = recipe.model.template, recipe.model.max_visual_tokens
    if recipe.model.base == TINY:
        tokenizer = AutoTokenizer.from_pretrained(tiny_folder())

        def count(text: str) -> int:
            return len(tokenizer(text, add_special_tokens=False)["input_ids"])
    else:

        def count(text: str) -> int:
            return len(_PIECES.findall(text))

    around = sum(count(part) for part in template.page_prompt.split(IMAGE_TOKEN))
    query = count(template.query_prefix) + count(template.query_suffix) + QUERY_TEXT_TOKENS
    page = budget + around
    return Sizes(budget, page, min(query, page))


def num_rows(source: Source, default_split: str) -> int:
    """Rows (or pages and queries, for an evaluation) of a source.

    Raises:
        UsageError: It is a hub data set that is not known here.
        DataError: A folder cannot be read.
    """
    split = source.split or default_split
    known = KNOWN_ROWS.get(source.path, {}).get(split)
    if known is not None:
        return known
    if source.is_builtin or source.is_folder or source.path == TINY:
        collection = load_collection(source, default_split)
        return len(collection.rows) if default_split == "train" else len(collection.page_ids)
    raise UsageError(
        "unknown-length",
        "the length of this data set is not known without a network.",
        where="data.train" if default_split == "train" else "eval.data",
        received=source.path,
        expected=f"{', '.join(KNOWN_ROWS)}, tiny:{default_split}, or a folder",
        suggestion="--rows N, or train.steps=N train.epochs=null",
    )


def num_steps(recipe: Recipe, rows: int | None) -> int:
    """Optimiser steps of the whole run.

    Args:
        recipe: With its global batch and length.
        rows: Training rows, where the user says how many; None asks the sources.
    """
    if recipe.train.steps is not None:
        return recipe.train.steps
    if rows is None:
        rows = sum(num_rows(source, "train") for source in recipe.data.train)
    plan = MixturePlan((rows,), recipe.batch.global_size, recipe.train.seed, recipe.batch.drop_last)
    return plan.num_steps(recipe.train.epochs)
