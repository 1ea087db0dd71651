"""docs/explanation/why-84.md says what the committed result of the seed study says."""

import json
import re
from pathlib import Path

import pytest

from coltrain.reproduction.study.design import cells
from coltrain.reproduction.study.reading import load_study

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "explanation" / "why-84.md").read_text(encoding="utf-8")
FILE = ROOT / "src/coltrain/reproduction/study/shipped/seed-study.json"
RESULT = json.loads(FILE.read_text(encoding="utf-8"))


def row(*cells):
    """A line of a Markdown table, as the document has it."""
    return "| " + " | ".join(cell.replace("_", r"\_") for cell in cells) + " |"


def shown(fraction, sign="+"):
    text = f"{100 * fraction:{sign}.1f}".replace("-", "−")
    return "±0.0" if text in ("+0.0", "−0.0") else text


def ends(found, sign="+"):
    star = r" \*" if found["flag"] else ""
    return rf"\[{shown(found['low'], sign)}, {shown(found['high'], sign)}\]{star}"


def test_the_result_is_of_the_study_that_ships():
    study = load_study("seed-study")
    assert RESULT["study"]["factors"] == study.model_dump(mode="json")["factors"]
    assert RESULT["ends"] == study.ends
    assert RESULT["study"]["overrides"] == study.overrides
    assert RESULT["failed"] == []
    assert RESULT["missing"] == 0
    assert RESULT["num_runs"] == len(cells(study)) * len(study.seed_numbers)
    assert len(RESULT["cells"]) == len(cells(study))


def test_every_factor_s_part_stands_in_the_document():
    for one in RESULT["shares"]:
        levels = " → ".join(RESULT["ends"][end][one["factor"]] for end in ("from", "to"))
        line = row(one["factor"], levels, shown(one["part"]["value"]), ends(one["part"]))
        assert line.removesuffix(" |") in PAGE, line
    gap = RESULT["gap"]
    assert row("gap", "", shown(gap["value"]), ends(gap)).removesuffix(" |") in PAGE


def test_every_effect_and_every_cell_stands_in_the_document():
    for one in RESULT["effects"]:
        line = row(
            one["factor"],
            f"{one['reference']} → {one['level']}",
            one["others"],
            shown(one["change"]["value"]),
            ends(one["change"]),
        )
        assert line.removesuffix(" |") in PAGE, line
    for one in RESULT["cells"]:
        mean = one["mean"]
        line = row(*one["levels"].values(), shown(mean["value"], ""), ends(mean, ""))
        assert line.removesuffix(" |") in PAGE, line


@pytest.mark.parametrize("kind", ["shares", "effects", "cells"])
def test_the_document_has_no_row_more(kind):
    table = PAGE.split(
        {"shares": "What each factor explains", "effects": "Effects on", "cells": "of each cell"}[
            kind
        ]
    )[1]
    rows = re.findall(
        r"^\| (?!---|factor|negatives \| length)", table.split("\n\n")[1], re.MULTILINE
    )
    extra = {"shares": 1 + (RESULT["method"] != "exact"), "effects": 0, "cells": 0}[kind]
    assert len(rows) == len(RESULT[kind]) + extra


def test_every_figure_in_its_sentences_is_one_of_the_result():
    """Points in prose (`7.9 points`) are parts, effects, spreads or means of the result."""
    prose = PAGE.split("<!-- figures: begin -->")[0] + PAGE.split("<!-- figures: end -->")[1]
    known = set()

    def collect(found):
        if isinstance(found, dict):
            for value in found.values():
                collect(value)
        elif isinstance(found, list):
            for value in found:
                collect(value)
        elif isinstance(found, float):
            known.add(f"{abs(100 * found):.1f}")

    collect({key: value for key, value in RESULT.items() if key != "study"})
    said = re.findall(r"(\d+\.\d) points", prose)
    assert said
    assert set(said) <= known
