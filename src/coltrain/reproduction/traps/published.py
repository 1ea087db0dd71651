"""Which published recipe a training is after, and the values that recipe has."""

import re
from functools import cache

from coltrain.recipe import Recipe, load_recipe
from coltrain.reproduction.targets import Target

PUBLISHED = ("colqwen2-v0.1", "colqwen2-v1.0")
_TELLING = (
    "train.epochs",
    "optimizer.learning_rate",
    "optimizer.warmup_steps",
    "batch.global_size",
    "batch.per_device",
)
_PUBLISHED_DATA = re.compile(
    r"colpali_train_set|load_train_set|colpali-data-ir|colpali-queries|docmatix|_negs"
)
_COURSE = ("train.epochs", "optimizer.learning_rate", "optimizer.warmup_steps")
_PER_DEVICE = {"colqwen2-v0.1": 4, "colqwen2-v1.0": 64}


@cache
def recipe_of(name: str) -> Recipe:
    """A shipped recipe."""
    return load_recipe(name)


def published_value(name: str, key: str) -> object:
    """A published recipe's value, by a recipe's key."""
    section, _, field = key.partition(".")
    return getattr(getattr(recipe_of(name), section), field)


def claimed(target: Target) -> str | None:
    """The published recipe whose name a recipe of ours bears; None for a recipe of its own."""
    if target.recipe is None:
        return None
    name = target.recipe.name
    exact = next((one for one in PUBLISHED if name == one), None)
    if exact or name in OWN_NAMES:
        return exact
    return next((one for one in PUBLISHED if one in name), None)


OWN_NAMES = (
    "tiny",
    "colqwen2-hard-negatives",
    "colqwen2-v100",
    "colqwen2-v100-paged-adamw-8bit",
)
"""Shipped recipes that say themselves that they are not a published one."""


def is_colqwen2(target: Target) -> bool:
    """Whether what is trained is a ColQwen2 on the real base, as far as names tell."""
    base = str(target.facts.value("model.base", "")).lower()
    # Of a folder the class says nothing: the tiny model has the same.
    kind = "" if target.kind == "model" else str(target.facts.value("model.class", "")).lower()
    if any(other in base + kind for other in ("2.5", "2_5", "25", "pali-", "colpali", "smol")):
        return False
    return "colqwen2" in base or "qwen2-vl-2b" in base or ("colqwen2" in kind and base != "tiny")


_OTHER_BASES = re.compile(r"pali|gemma|idefics|smol|bert|siglip|internvl|llama|qwen3|splade|minilm")


def other_model(target: Target) -> str | None:
    """The model of a foreign training that is no ColQwen2, so that its recipe is not ours to judge."""
    if target.kind in ("recipe", "run", "model"):
        return None
    kind = str(target.facts.value("model.class", ""))
    if kind.startswith(("Col", "Bi")):
        return None if "qwen2" in kind.lower() else kind
    base = str(target.facts.value("model.base", ""))
    if target.kind in ("sentence-transformers", "pylate"):
        return None if "qwen" in base.lower() else base or "a model that is not known"
    return base if _OTHER_BASES.search(base.lower()) else None


def goes_on_from_trained(target: Target) -> bool:
    """Whether what a training starts from is a retriever already, not a base."""
    start = target.facts.value("model.start_from")
    base = str(target.facts.value("model.base", ""))
    return bool(start) or bool(re.search(r"col(qwen|pali)\S*-v\d", base.lower()))


def goes_its_own_way(target: Target) -> bool:
    """Whether a training is after no published number, so that none of its values has to be that one's.

    It learns from rows of its own. A recipe of ours has a name to claim more with, and may have the
    published rows beside its own; a foreign training has none, and is after a published one where it
    goes by that one's loss and course all the same.
    """
    facts = target.facts
    names = [str(one) for one in facts.value("data.train") or []]
    published = [one for one in names if _PUBLISHED_DATA.search(one)]
    if len(published) == len(names) or claimed(target) is not None:
        return False
    if target.recipe is not None:
        return True
    if published:
        return False
    if goes_on_from_trained(target):
        return True
    if facts.value("loss.name", "pairwise") != "pairwise":
        return True
    return not any(
        all(facts.value(key) == published_value(one, key) for key in _COURSE) for one in PUBLISHED
    )


def nearest(target: Target) -> str | None:
    """The published recipe that a training means, or comes nearest to; None where it is another.

    Trainings of other models, of the tiny base, and on rows of their own are their own.
    """
    name = claimed(target)
    if name is not None or not is_colqwen2(target) or goes_its_own_way(target):
        return name
    facts = target.facts
    scores = {}
    for one in PUBLISHED:
        score = 0
        for key in _TELLING:
            value = facts.value(key)
            wanted = _PER_DEVICE[one] if key == "batch.per_device" else published_value(one, key)
            score += value is not None and value == wanted
        scores[one] = score
    best = max(scores, key=lambda one: scores[one])
    return best if scores[best] > min(scores.values()) or scores[best] >= 1 else None
