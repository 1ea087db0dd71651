"""What a study says of planted gaps, as figures, tables, words and a page."""

import numpy as np
import pytest
from report_reader import read_page
from study_on_paper import all_cells, scores_of

from coltrain.reproduction.study.contrasts import estimate, together
from coltrain.reproduction.study.design import cells
from coltrain.reproduction.study.document import as_document
from coltrain.reproduction.study.findings import findings
from coltrain.reproduction.study.page import html_page
from coltrain.reproduction.study.power import power_of, smallest_effect
from coltrain.reproduction.study.reading import study_from_yaml
from coltrain.reproduction.study.tables import as_latex, as_markdown, latex, shares_table, tables
from coltrain.reproduction.study.words import headline, remarks

FOUR = """
name: planted
base: tiny
factors:
  a & b: {key: train.steps, levels: [60, 30]}
  "<b>": {key: batch.negatives, levels: [global, 2]}
  c_d: {key: precision.compute, levels: [float32, bfloat16]}
  d: {key: optimizer.name, levels: [adamw, adamw_8bit]}
design: DESIGN
seeds: 5
"""


def planted(design, effects, number=0, **settings):
    study = study_from_yaml(FOUR.replace("DESIGN", design), "planted.yaml")

    def true(cell):
        changed = [name for name, level in cell.levels if level == study.ends["to"][name]]
        return 0.7 + sum(effects[name] for name in changed)

    given = {"num_seeds": 5, "num_queries": 120, "generator": np.random.default_rng(number)}
    return findings(study, scores_of(cells(study), true, **{**given, **settings}))


FACTORS = ("a & b", "<b>", "c_d", "d")


@pytest.mark.parametrize("design", ["full", "one-at-a-time"])
@pytest.mark.parametrize("matters", [(0, 1), (1, 3), (2, 0)])
def test_of_four_factors_the_two_that_matter_come_first(design, matters):
    effects = dict.fromkeys(FACTORS, 0.0)
    effects |= {FACTORS[matters[0]]: -0.12, FACTORS[matters[1]]: -0.07}
    found = planted(design, effects, number=sum(matters))
    assert [one.factor for one in found.shares[:2]] == [FACTORS[place] for place in matters]
    assert sum(one.of_explained for one in found.shares[:2]) >= 0.7
    first = found.shares[0]
    assert first.share.low < 12 / 19 < first.share.high
    assert sum(one.of_explained for one in found.shares) == pytest.approx(1)


def test_exact_parts_sum_to_the_gap_and_others_say_what_they_leave():
    effects = dict(zip(FACTORS, (-0.1, -0.05, 0.0, 0.0), strict=True))
    exact = planted("full", effects)
    assert exact.remainder == pytest.approx(0, abs=1e-12)
    rough = planted("one-at-a-time", effects)
    parts = sum(one.part.value for one in rough.shares)
    assert rough.remainder == pytest.approx(rough.gap.value - parts)
    assert abs(rough.remainder) > 1e-4
    assert any("leave" in remark and "of the gap over" in remark for remark in remarks(rough))


def test_an_effect_that_cannot_be_told_says_what_it_would_take():
    effects = dict(zip(FACTORS, (-0.1, -0.05, 0.0, 0.0), strict=True))
    found = planted("full", effects)
    told = {one.factor: one.change.is_told for one in found.effects}
    assert told["a & b"]
    open_ = next(one for one in found.effects if not one.change.is_told)
    [remark] = [line for line in remarks(found) if line.startswith(open_.factor)]
    assert "cannot be told from none; an effect of" in remark
    assert "seeds" in remark


def test_more_seeds_find_smaller_effects_down_to_what_the_queries_leave():
    effects = dict(zip(FACTORS, (-0.1, -0.05, 0.0, 0.0), strict=True))
    found = planted("full", effects, of_cell_and_seed=0.05)
    parts = found.effects[2].change.parts
    sizes = [smallest_effect(parts, number) for number in (5, 10, 20, 40, 1000)]
    assert sizes == sorted(sizes, reverse=True)
    power = power_of(parts, sizes[2] + 1e-9)
    assert power.seeds_for_margin == 20
    assert power_of(parts, 0.9 * sizes[-1]).seeds_for_margin is None


@pytest.mark.slow
def test_power_holds_on_simulated_effects():
    # An effect as large as `smallest` is found 4 times in 5: 200 draws, four standard errors.
    old, new = all_cells(1)
    change = together((1.0, {new: 1.0}), (-1.0, {old: 1.0}))

    def drawn(effect, number):
        return estimate(
            scores_of(
                [old, new],
                lambda cell: 0.7 + effect * (cell == new),
                num_seeds=5,
                num_queries=60,
                generator=np.random.default_rng(number),
            ),
            change,
        )

    smallest = np.median([power_of(drawn(0.0, n).parts, 0.01).smallest for n in range(100)])
    found = np.mean([drawn(-smallest, 1000 + number).is_told for number in range(200)])
    assert 0.69 <= found <= 0.91


def test_the_page_is_whole_and_shows_every_estimate(tmp_path):
    effects = dict(zip(FACTORS, (-0.1, -0.05, 0.0, 0.0), strict=True))
    found = planted("one-at-a-time", effects)
    text = html_page(found)
    (tmp_path / "report.html").write_text(text)
    assert "http" not in text.replace("http-equiv", "")
    assert "&lt;b&gt;" in text
    assert "<script" not in text
    page = read_page(tmp_path / "report.html")
    drawn = [one for one in page.all("svg") if one.get("role") == "img"]
    assert len(drawn) == 5 + len(found.effects) + len(found.levels) + len(found.cells) + len(
        found.interactions
    )
    assert headline(found) in page.text
    for remark in remarks(found):
        assert remark in page.text


def test_tables_can_go_into_a_paper():
    effects = dict(zip(FACTORS, (-0.1, -0.05, 0.0, 0.0), strict=True))
    found = planted("full", effects)
    tex = as_latex(shares_table(found))
    assert r"a \& b & 60 $\to$ 30 &" in tex
    assert tex.count(r" \\") == 1 + len(FACTORS) + 1
    assert "{[" in tex  # a row that began with [ would be read as a length after \\
    assert latex("100 % of c_d") == r"100 \% of c\_d"
    text = as_markdown(tables(found))
    assert r"c\_d" in text
    assert "&lt;b&gt;" in text


def test_what_is_missing_is_left_out_and_said():
    study = study_from_yaml(FOUR.replace("DESIGN", "full"), "planted.yaml")
    scores = scores_of(
        cells(study)[2:],
        lambda cell: 0.7,
        num_seeds=2,
        num_queries=30,
        generator=np.random.default_rng(0),
    )
    found = findings(study, scores, failed=[("an end", 0, "no luck")], missing=3)
    assert found.gap is None
    assert headline(found) == "The gap cannot be told: an end of it has no finished run."
    document = as_document(found)
    assert document["gap"] is None
    assert document["cells"][0] == {
        "levels": dict(cells(study)[0].levels),
        "mean": None,
        "by_seed": [],
    }
    assert {"1 run failed and are left out", "3 runs have not ended and are left out"} <= set(
        remarks(found)
    )
    assert "no luck" in html_page(found)
