"""`compare`: what differs between two trainings, and whether the difference of their scores means anything."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption
from coltrain.errors import ColtrainError

if TYPE_CHECKING:
    from coltrain.reproduction.causes import Causes
    from coltrain.reproduction.comparison import Comparison
    from coltrain.reproduction.comparison.acceptance import Check
    from coltrain.reproduction.comparison.comparison import Row


def compare(
    evaluation: Annotated[
        str,
        typer.Argument(
            help="A run, a recipe, a model's folder, a configuration or folder of colpali-engine or "
            "sentence-transformers; a folder of `eval --out`, or a file of results."
        ),
    ],
    other: Annotated[str, typer.Argument(metavar="WITH", help="Another one, or published:MODEL.")],
    measure: Annotated[
        str | None,
        typer.Option(help="Such as nDCG@5; default: the main measure of the benchmark."),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Points within which a difference does not matter.")
    ] = 1.0,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Only check that a published model gets its published scores: v1 mean within 0.3, "
            "each task within 1. Exit code 1 where not.",
        ),
    ] = False,
    study: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a study, whose figures stand beside the differences that it measured; "
            "may be given again."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with a forest plot.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two trainings: what differs, by what it is known to do; how far the scores are apart."""
    from coltrain.reproduction.comparison import acceptance, read_side
    from coltrain.reproduction.comparison.acceptance import acceptance_to_json

    if accept:
        checks = acceptance(read_side(evaluation), read_side(other))
        if as_json:
            console.print_json(acceptance_to_json(checks))
        else:
            _print_checks(checks)
        raise typer.Exit(0 if all(check.is_passed for check in checks) else 1)
    causes, wrong = _causes(evaluation, other, study or [])
    comparison, without = _scores(evaluation, other, measure, margin)
    if comparison is None and causes is None:
        raise wrong or without
    if without is not None and without.code not in _WITHOUT_SCORES:
        raise without
    if html is not None:
        from coltrain.reproduction.causes import causes_to_json
        from coltrain.reproduction.comparison import write_page

        write_page(comparison, html, causes=causes and causes_to_json(causes))
        console.stderr().print(f"page: {html}", soft_wrap=True)
    if as_json:
        console.print_json(_document(causes, comparison))
        return
    if causes is not None:
        from coltrain.reproduction.causes import causes_text

        console.print_text(causes_text(causes))
    if comparison is not None:
        _print_comparison(comparison)
    elif without is not None:
        console.print_text(f"scores were not compared: {without.message}")


_WITHOUT_SCORES = ("no-evaluation", "not-results", "no-common-task", "no-published-scores")
"""Errors that say that there are no scores, and nothing of the differences between trainings."""


def _causes(
    one: str, other: str, studies: list[Path]
) -> "tuple[Causes | None, ColtrainError | None]":
    """The differences; or None, and why a side is no training where both should be one.

    Raises:
        UsageError: A study's folder holds no results.
    """
    from coltrain.reproduction.causes import (
        find_causes,
        read_causes_side,
        shipped_effects,
        study_effects,
    )

    effects = [effect for folder in studies for effect in study_effects(folder)]
    effects += shipped_effects()
    sides, wrong = [], None
    for name in (one, other):
        try:
            sides.append(read_causes_side(name))
        except ColtrainError as error:
            wrong = wrong or error
    if None in sides:  # an evaluation, of which only the scores can be compared
        return None, None
    if wrong is not None:
        return None, wrong
    return find_causes(*sides, effects), None


def _scores(
    one: str, other: str, measure: str | None, margin: float
) -> "tuple[Comparison | None, ColtrainError | None]":
    """The scores compared; or None, and why not."""
    from coltrain.reproduction.comparison import compare as compare_sides
    from coltrain.reproduction.comparison import read_side

    try:
        left, right = read_side(one), read_side(other)
        return compare_sides(left, right, measure=measure, margin=margin), None
    except ColtrainError as error:
        return None, error


def _document(causes: "Causes | None", comparison: "Comparison | None") -> dict:
    """Both in one document: the scores as they always stood at its top, and under `scores` too."""
    from coltrain.reproduction.causes import causes_to_json
    from coltrain.reproduction.comparison import comparison_to_json

    scores = None if comparison is None else comparison_to_json(comparison)
    found = {"differences": []} if causes is None else causes_to_json(causes)
    return {**(scores or {}), **found, "scores": scores}


def _print_comparison(comparison: "Comparison") -> None:
    from coltrain.reproduction.comparison.page import some

    console.print_text(f"this  {comparison.left}\nwith  {comparison.right}")
    console.print_table(
        f"{comparison.measure} x 100, {comparison.pairing}",
        ["task", "queries", "this", "with", "difference", "95 % interval", "p (Holm)", "verdict"],
        [*map(_row, comparison.tasks), *map(_row, comparison.means)],
    )
    for remark in comparison.remarks:
        console.print_text(f"- {remark}")
    for names, side in ((comparison.only_left, "this"), (comparison.only_right, "the other")):
        if names:
            console.print_text(f"- only in {side}: {some(names)}")


def _row(row: "Row") -> list[str]:
    from coltrain.reproduction.comparison.page import p_value

    found = row.difference
    flag = " *" if found.interval.flag else ""
    return [
        row.name,
        f"{found.num_queries:,}",
        f"{100 * row.left:.1f}",
        f"{100 * row.right:.1f}",
        f"{100 * found.value:+.1f}",
        f"{100 * found.interval.low:+.1f} … {100 * found.interval.high:+.1f}{flag}",
        p_value(row.p_adjusted),
        row.words,
    ]


def _print_checks(checks: "list[Check]") -> None:
    console.print_table(
        "nDCG@5 x 100 beside the published one",
        ["task", "ours", "published", "difference", "limit", ""],
        [
            [
                check.name,
                "not there" if check.ours is None else f"{100 * check.ours:.2f}",
                f"{100 * check.published:.2f}",
                "–" if check.points is None else f"{check.points:+.2f}",
                f"{check.limit:g}",
                "PASS" if check.is_passed else "FAIL",
            ]
            for check in checks
        ],
    )
    is_passed = all(check.is_passed for check in checks)
    console.print_text("PASS: accepted" if is_passed else "FAIL: not accepted")
