"""The study as one page of HTML that asks for nothing from anywhere."""

from __future__ import annotations

from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coltrain.reproduction.report.figures import number_of, score
from coltrain.reproduction.study import strips
from coltrain.reproduction.study.findings import Findings
from coltrain.reproduction.study.shapley import METHODS
from coltrain.reproduction.study.tables import as_latex, as_markdown, shares_table, tables
from coltrain.reproduction.study.words import failures, headline, remarks


def html_page(found: Findings) -> str:
    """The page; every value is escaped, and no script runs."""
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            found=found,
            study=found.study,
            headline=headline(found),
            remarks=remarks(found),
            failures=failures(found),
            method=METHODS[found.method],
            pictures=[
                (
                    "What explains the gap",
                    f"Each factor's part of the gap: {METHODS[found.method]}.",
                    strips.gap_picture(found),
                ),
                (
                    "What each level changes",
                    "Beside the level at the start of the gap, with 95 % intervals over seeds and "
                    "queries; the shaded band is what does not matter.",
                    strips.effects_picture(found),
                ),
                (
                    "What factors do together",
                    "Between the two ends, beyond what each does alone.",
                    strips.interactions_picture(found),
                ),
                ("The levels", "Mean of each level.", strips.levels_picture(found)),
                (
                    "The cells",
                    "Mean of each combination that was trained; dots are single seeds.",
                    strips.cells_picture(found),
                ),
            ],
            tables=tables(found),
            markdown=as_markdown([shares_table(found)]),
            latex=as_latex(shares_table(found)),
            style=Markup(
                (resources.files("coltrain.reproduction.report") / "page.css").read_text("utf-8")
                + (resources.files("coltrain.reproduction.study") / "study.css").read_text("utf-8")
            ),
            width=strips.WIDTH,
            height=strips.HEIGHT,
            start=strips.LEFT,
            end=strips.RIGHT,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("coltrain.reproduction.study", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": score}
    environment.globals |= {"number_of": number_of}
    return environment
