"""`compare`: whether a difference of two evaluations means anything."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption

if TYPE_CHECKING:
    from coltrain.reproduction.comparison import Comparison
    from coltrain.reproduction.comparison.acceptance import Check
    from coltrain.reproduction.comparison.comparison import Row


def compare(
    evaluation: Annotated[
        str, typer.Argument(help="A run, a folder of `eval --out`, or a file of results.")
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
    html: Annotated[Path | None, typer.Option(help="Also write a page with a forest plot.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an evaluation with another or with published scores: how far, and is it chance?"""
    from coltrain.reproduction.comparison import (
        acceptance,
        comparison_to_json,
        read_side,
        write_page,
    )
    from coltrain.reproduction.comparison import compare as compare_sides
    from coltrain.reproduction.comparison.acceptance import acceptance_to_json

    left, right = read_side(evaluation), read_side(other)
    if accept:
        checks = acceptance(left, right)
        if as_json:
            console.print_json(acceptance_to_json(checks))
        else:
            _print_checks(checks)
        raise typer.Exit(0 if all(check.is_passed for check in checks) else 1)
    comparison = compare_sides(left, right, measure=measure, margin=margin)
    if html is not None:
        write_page(comparison, html)
        console.stderr().print(f"page: {html}", soft_wrap=True)
    if as_json:
        console.print_json(comparison_to_json(comparison))
    else:
        _print_comparison(comparison)


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
