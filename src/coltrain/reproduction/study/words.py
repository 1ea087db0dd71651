"""What a study says in sentences, and what it cannot say."""

from __future__ import annotations

from coltrain.reproduction.report.figures import change, count, number_of, score
from coltrain.reproduction.study.findings import Effect, Findings
from coltrain.reproduction.study.tables import interval_of, percent, percent_interval, value_of


def headline(found: Findings) -> str:
    """The gap and what explains most of it."""
    if found.gap is None:
        return "The gap cannot be told: an end of it has no finished run."
    gap = f"{value_of(found.gap)} {interval_of(found.gap)}"
    if not found.gap.is_told:
        return f"No gap between the two ends was found: {gap}."
    first = found.shares[0]
    if first.part is None or first.share is None:
        return f"The gap is {gap}; its parts cannot be told."
    return (
        f"The gap is {gap}; {first.factor} explains {percent(first.share.mean)} of it "
        f"{percent_interval(first.share)}."
    )


def remarks(found: Findings) -> list[str]:
    """What has to be read with the tables: what cannot be told, and what it would take."""
    study, said = found.study, []
    num_seeds = len(study.seed_numbers)
    said += [_effect(one, study.margin) for one in found.effects if _is_open(one)]
    if found.gap is not None and not found.gap.is_told:
        said.append("the gap itself cannot be told from none, so no share of it is known")
    if found.spread.two_runs is not None:
        said.append(
            f"two single runs of one recipe that differ in the seed alone lie less than "
            f"{score(found.spread.two_runs)} points apart 95 times of 100 "
            f"(standard deviation {score(found.spread.sd)}, largest difference seen "
            f"{score(found.spread.largest)})"
        )
    if _has_star(found):
        said.append(
            "* rests on fewer than five seeds; with one, the interval counts the queries only"
        )
    if num_seeds < 5:
        said.append(
            f"{number_of(num_seeds, 'seed')}: "
            + (
                "intervals count the queries only, and nothing is known of chance in training"
                if num_seeds == 1
                else "intervals over so few are wide, and rest on their being normal"
            )
        )
    if found.method != "exact" and found.remainder is not None:
        said.append(
            f"the parts leave {change(found.remainder)} of the gap over: they are an approximation, "
            "and a full design would share it out exactly"
        )
    if found.failed:
        said.append(f"{number_of(len(found.failed), 'run')} failed and are left out")
    if found.shared is not None:
        said.append(
            f"{number_of(found.shared['runs'], 'run')} shared visual tokens: "
            f"{count(found.shared['pages_found'])} pages were found, "
            f"{count(found.shared['pages_computed'])} computed"
        )
    if found.missing:
        said.append(f"{number_of(found.missing, 'run')} have not ended and are left out")
    return said


def _has_star(found: Findings) -> bool:
    estimates = [found.gap, *(one.part for one in found.shares)]
    estimates += [one.change for one in (*found.effects, *found.interactions)]
    return any(one is not None and one.interval.flag for one in estimates)


def _is_open(one: Effect) -> bool:
    return one.change is not None and not one.change.is_told


def _effect(one: Effect, margin: float) -> str:
    text = (
        f"{one.factor}, {one.reference} → {one.level} ({one.others}): "
        f"{value_of(one.change)} {interval_of(one.change)} cannot be told from none"
    )
    if one.power is None:
        return text
    text += f"; an effect of {score(one.power.smallest)} would have been found 4 times in 5"
    if one.power.seeds_for_margin is None:
        least = score(one.power.smallest_with_any_seeds)
        return (
            f"{text}; no number of seeds would find {margin:g}: the {count(_queries(one))} "
            f"queries leave {least} open"
        )
    return f"{text}; to find {margin:g} so often takes {count(one.power.seeds_for_margin)} seeds"


def _queries(one: Effect) -> int:
    # The parts' degrees of freedom: one less than the queries, of a single data set.
    return round(one.change.parts.degrees) + 1


def failures(found: Findings) -> list[str]:
    """A line for each run that failed."""
    return [f"{cell}, seed {seed}: {' '.join(error.split())}" for cell, seed, error in found.failed]
