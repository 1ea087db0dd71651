"""What a study found as tables, and the tables as Markdown and LaTeX for a paper."""

from __future__ import annotations

from collections.abc import Iterable

from coltrain.evaluation.statistics import Interval
from coltrain.reproduction.report.figures import MINUS, change, count, score
from coltrain.reproduction.report.page import markdown
from coltrain.reproduction.report.table import Table
from coltrain.reproduction.study.contrasts import Estimate
from coltrain.reproduction.study.findings import Effect, Findings
from coltrain.reproduction.study.shapley import METHODS

NOT_KNOWN = "–"


def tables(found: Findings) -> list[Table]:
    """Every table of a study; the one for a paper first."""
    made = [shares_table(found), effects_table(found), levels_table(found)]
    if found.interactions:
        made.append(interactions_table(found))
    return [*made, cells_table(found)]


def shares_table(found: Findings) -> Table:
    """The gap and what each factor explains of it."""
    study, rows = found.study, []
    for one in found.shares:
        first, last = study.ends["from"][one.factor], study.ends["to"][one.factor]
        rows.append(
            (
                one.factor,
                f"{first} → {last}",
                value_of(one.part),
                interval_of(one.part),
                percent(one.share.mean if one.share else None),
                percent_interval(one.share),
                percent(one.of_explained),
            )
        )
    rows.append(("gap", "", value_of(found.gap), interval_of(found.gap), "", "", ""))
    if found.method != "exact" and found.remainder is not None:
        rows.append(("left over", "", change(found.remainder), "", "", "", ""))
    return Table(
        headings=("factor", "levels", "part", "95 %", "share", "95 % of it", "of all parts"),
        rows=tuple(rows),
        caption=f"What each factor explains of the gap in {study.evaluation.measure} × 100 "
        f"({METHODS[found.method]})",
        text_columns=(0, 1),
    )


def effects_table(found: Findings) -> Table:
    """What each level changes, and what could have been seen."""
    return Table(
        headings=("factor", "change", "others", "effect", "95 %", "could be found", "seeds needed"),
        rows=tuple(_effect_row(one) for one in found.effects),
        caption=f"Effects on {found.study.evaluation.measure} × 100; the least effect found 4 times "
        f"in 5 with these seeds, and the seeds needed for ± {found.study.margin:g}",
        text_columns=(0, 1, 2),
    )


def levels_table(found: Findings) -> Table:
    """Mean of each level."""
    return Table(
        headings=("factor", "level", "others", "mean", "95 %", "seeds"),
        rows=tuple(
            (
                one.factor,
                one.level,
                one.others,
                score(one.mean.value if one.mean else None),
                interval_of(one.mean, signed=False),
                count(len(one.mean.seeds)) if one.mean else NOT_KNOWN,
            )
            for one in found.levels
        ),
        caption=f"{found.study.evaluation.measure} × 100 of each level",
        text_columns=(0, 1, 2),
    )


def interactions_table(found: Findings) -> Table:
    """What factors do together."""
    return Table(
        headings=("factors", "together beyond each alone", "95 %"),
        rows=tuple(
            (
                " × ".join(one.factors) + (" × all others" if len(one.factors) == 1 else ""),
                value_of(one.change),
                interval_of(one.change),
            )
            for one in found.interactions
        ),
        caption=f"Interactions in {found.study.evaluation.measure} × 100, between the two ends",
    )


def cells_table(found: Findings) -> Table:
    """Mean of each cell."""
    names = tuple(found.study.factors)
    return Table(
        headings=(*names, "mean", "95 %", "seeds"),
        rows=tuple(
            (
                *(cell.level(name) for name in names),
                score(mean.value if mean else None),
                interval_of(mean, signed=False),
                count(len(mean.seeds)) if mean else "0",
            )
            for cell, mean in found.cells
        ),
        caption=f"{found.study.evaluation.measure} × 100 of each cell",
        text_columns=tuple(range(len(names))),
    )


def _effect_row(one: Effect) -> tuple[str, ...]:
    smallest, needed = NOT_KNOWN, NOT_KNOWN
    if one.power is not None:
        smallest = score(one.power.smallest)
        needed = "more queries"
        if one.power.seeds_for_margin is not None:
            needed = count(one.power.seeds_for_margin)
    return (
        one.factor,
        f"{one.reference} → {one.level}",
        one.others,
        value_of(one.change),
        interval_of(one.change),
        smallest,
        needed,
    )


def value_of(found: Estimate | None) -> str:
    """A difference × 100 with its sign."""
    return change(found.value if found else None)


def interval_of(found: Estimate | None, *, signed: bool = True) -> str:
    """`[−1.2, +0.4]`, × 100; with a star where too few seeds stand behind it."""
    if found is None:
        return NOT_KNOWN
    write = change if signed else score
    star = " *" if found.interval.flag else ""
    return f"[{write(found.interval.low)}, {write(found.interval.high)}]{star}"


def percent(share: float | None) -> str:
    """A share as 83 %."""
    return NOT_KNOWN if share is None else f"{_whole(share)} %"


def percent_interval(found: Interval | None) -> str:
    """`[71, 95]`, in per cent."""
    if found is None:
        return "cannot be told"
    return f"[{_whole(found.low)}, {_whole(found.high)}]"


def _whole(share: float) -> str:
    """Per cent without a sign before 0."""
    return f"{round(100 * share)}".replace("-", MINUS)


def as_markdown(made: Iterable[Table]) -> str:
    """Tables in Markdown, each under its caption."""
    parts = []
    for table in made:
        rule = ["---" if at in table.text_columns else "---:" for at in range(len(table.headings))]
        lines = [table.headings, rule, *table.rows]
        cells = [
            "| " + " | ".join(cell if line is rule else markdown(cell) for cell in line) + " |"
            for line in lines
        ]
        parts.append("\n".join([f"{markdown(table.caption)}.", "", *cells]))
    return "\n\n".join(parts) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "→": r"$\to$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
}


def as_latex(table: Table) -> str:
    """A table in LaTeX, for the package booktabs."""
    columns = "".join("l" if at in table.text_columns else "r" for at in range(len(table.headings)))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(table.caption)}.}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(latex, table.headings)) + r" \\",
        r"\midrule",
        *(" & ".join(map(latex, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    """Text that LaTeX sets as it is. A cell may begin with `[`, which `\\\\` would take for a length."""
    text = "".join(_LATEX.get(letter, letter) for letter in text)
    return "{" + text + "}" if text.startswith("[") else text
