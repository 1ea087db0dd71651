"""What was asked for, what was run, and every deviation with its reason."""

from collections.abc import Iterator
from dataclasses import dataclass

from coltrain.errors import ColtrainError
from coltrain.evaluation.published.scores import model_named
from coltrain.recipe import Difference, Recipe, difference, load_recipe, shipped_names
from coltrain.recipe.dialect import write_value
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table

_NO_REASON = "no reason is stated"


@dataclass(frozen=True)
class Asked:
    """What was asked for and what came of it.

    Attributes:
        description: What may be said of the run in a sentence: the recipe's own where it is true.
        published: The published model that the recipe is one of, or starts from the same base as.
        sentence: What was asked for, in words.
        from_published: Every key that can move the result and is not the published recipe's, with the
            reason that the recipe states; None where there is none, or no published recipe.
        of_the_run: What happened otherwise than the recipe says.
    """

    description: str
    published: str | None
    sentence: str
    from_published: Table | None
    of_the_run: Table | None


def asked_of(record: RunRecord, recipe: Recipe | None) -> Asked:
    """Compare a run with its recipe, and its recipe with the published one.

    Args:
        record: The run.
        recipe: As it was recorded; None where this version cannot read it.
    """
    published = published_recipe(recipe)
    found: list[Difference] = []
    if recipe is not None and published is not None:
        found = [one for one in difference(load_recipe(published), recipe) if one.affects_result]
    rows = [
        (one.path, write_value(one.left), write_value(one.right), reason(recipe, one.path))
        for one in found
        if recipe is not None
    ]
    happened = list(_happened(record))
    return Asked(
        description=description_of(record, recipe),
        published=published,
        sentence=_sentence(recipe, published, len(rows)),
        from_published=Table(
            ("key", f"published, {published}", "asked for here", "reason"),
            tuple(rows),
            f"What was asked for otherwise than in {published}",
            text_columns=(0, 1, 2, 3),
        )
        if rows
        else None,
        of_the_run=Table(
            ("what", "expected", "here", "reason"),
            tuple(happened),
            "What was run otherwise than asked for, or than the published method has it",
            text_columns=(0, 1, 2, 3),
        )
        if happened
        else None,
    )


def published_recipe(recipe: Recipe | None) -> str | None:
    """The shipped recipe of a published model on the same base that differs in the fewest keys."""
    if recipe is None:
        return None
    candidates = [
        (name, difference(load_recipe(name), recipe))
        for name in shipped_names()
        if _is_of_a_model(name) and load_recipe(name).model.base == recipe.model.base
    ]
    if not candidates:
        return None
    return min(candidates, key=lambda pair: sum(one.affects_result for one in pair[1]))[0]


def _is_of_a_model(name: str) -> bool:
    try:
        return model_named(name).rpartition("/")[2] == name
    except ColtrainError:
        return False


def reason(recipe: Recipe, path: str) -> str:
    """Why a key has its value, as the recipe says; of a section where it says no more."""
    while path:
        if path in recipe.sources:
            return recipe.sources[path]
        path = path.rpartition(".")[0]
    return _NO_REASON


def description_of(record: RunRecord, recipe: Recipe | None) -> str:
    """The recipe's description where it is true of what was run; else what the run varies.

    A shipped description speaks of the shipped data and settings, and stays in a recipe that is
    overridden.
    """
    text = str(record.fact("recipe.description", ""))
    if recipe is None:
        return text
    for name in shipped_names():
        shipped = load_recipe(name)
        if not text or shipped.description != text:
            continue
        changed = [one for one in difference(shipped, recipe) if one.affects_result]
        if not changed:
            return text
        words = "; ".join(f"{one.path} = {write_value(one.right)}" for one in changed[:4])
        more = f", and {len(changed) - 4} more" if len(changed) > 4 else ""
        return f"A variation of {name}: {words}{more}."
    return text


def _sentence(recipe: Recipe | None, published: str | None, num_differences: int) -> str:
    if recipe is None:
        return "This version of coltrain cannot read the recipe."
    length = (
        figures.number_of(recipe.train.steps, "step")
        if recipe.train.steps is not None
        else figures.number_of(recipe.train.epochs or 0, "epoch")
    )
    data = ", ".join(source.path for source in recipe.data.train)
    text = (
        f"Asked for, recipe {recipe.name}: base {recipe.model.base}, trained on {data} for {length} in batches of "
        f"{figures.count(recipe.batch.global_size)}."
    )
    if published is None:
        return f"{text} No published model starts from this base, so there is none to deviate from."
    if not num_differences:
        return f"{text} Nothing that can move the result differs from {published}."
    return (
        f"{text} {figures.number_of(num_differences, 'key')} that can move the result differ "
        + (f"from {published}.")
    )


def _happened(record: RunRecord) -> Iterator[tuple[str, str, str, str]]:
    """What of a run its recipe alone would not tell."""
    for one in record.fact("deviations", []):
        key, _, value = str(one.get("what", "")).partition(" = ")
        yield key, "as the published method has it", value or "otherwise", str(one.get("why", ""))
    planned = record.num_steps
    if planned is not None and record.step < planned:
        yield (
            "steps",
            figures.count(planned),
            figures.count(record.step),
            str(record.fact("stopped_by") or record.state),
        )
    asked, met = record.fact("recipe.batch.global_size"), record.fact("candidates_per_query.median")
    group = record.fact("recipe.batch.negatives")
    expected = group if isinstance(group, int) else asked
    if isinstance(met, int | float) and isinstance(expected, int) and met < expected - 0.5:
        yield (
            "pages that a query is compared with, median of steps",
            figures.count(expected),
            figures.count(round(met, 1)),
            "pages that answer the query too are no negatives",
        )
    for role in ("train", "eval"):
        for source in record.fact(f"data.{role}", []):
            lost = sum((source.get("left_out") or {}).values())
            if lost:
                kinds = "; ".join(
                    f"{kind}: {number}" for kind, number in source["left_out"].items()
                )
                yield (
                    f"{role} data, {source.get('name', '–')}",
                    "all rows and pages",
                    f"{figures.count(lost)} left out",
                    kinds,
                )
    skipped = record.fact("precision.skipped_steps")
    if skipped:
        yield (
            "steps that updated the weights",
            figures.count(record.step),
            figures.count(record.step - skipped),
            _why_skipped(record, skipped),
        )


def _why_skipped(record: RunRecord, num_skipped: int) -> str:
    """Whether gradients overflowed, or what comes before them did."""
    at_loss = sum(bool(line.get("at_loss")) for line in record.skipped)
    at_gradient = len(record.skipped) - at_loss
    if len(record.skipped) != num_skipped:
        return (
            "float16: metrics.jsonl does not say of each whether its loss or a gradient overflowed"
        )
    if not at_loss:
        return "a gradient overflowed float16, and the scale was halved"
    before = "the loss was not finite: something overflowed float16 on the way to it, and the scale stayed"
    if not at_gradient:
        return before
    return (
        f"in {at_loss} {before}; in {at_gradient} a gradient overflowed, and the scale was halved"
    )
