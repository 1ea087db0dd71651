from collections import Counter

import pytest
from run_on_paper import facts_of, fingerprint, write_run

from coltrain.data.mixture import MixturePlan
from coltrain.recipe import load_recipe
from coltrain.reproduction.report.ledger import Presented, ledger_of
from coltrain.reproduction.report.reading import read_run
from coltrain.training.run_folder import write_json


def account(run):
    record = read_run(run)
    presented = Presented.of(record)
    ledger = ledger_of(record, presented)
    return presented, {row[0]: row[1:] for row in ledger.table.rows}, ledger


@pytest.mark.parametrize("drop_last", ["true", "false"])
def test_rows_met_and_repeated_are_those_of_the_plan(tmp_path, drop_last):
    overrides = ["train.steps=12", f"batch.drop_last={drop_last}", "batch.global_size=30"]
    recipe = load_recipe("tiny", [*overrides, "batch.chunk_size=10"])
    run = write_run(tmp_path / "run", recipe=recipe, num_rows=100)
    plan = MixturePlan((100,), 30, seed=recipe.train.seed, drop_last=drop_last == "true")
    met = Counter()
    pages, first_met = 0, Counter()
    for step in range(1, 13):
        epoch, rows = plan.batch_at(step)
        pages += len(rows)
        for row in rows.tolist():
            first_met[epoch] += row not in met
            met[row] += 1
    presented, table, ledger = account(run)
    assert presented.pages(12) == pages
    assert table["pages trained on"][0] == str(pages)
    assert table["rows met"] == (str(len(met)), f"at least once; {100 - len(met)} never")
    assert table["repeats"][0] == str(sum(number - 1 for number in met.values()))
    assert sum(number - 1 for number in met.values()) > 100
    assert [int(row[3]) for row in ledger.epochs.rows] == list(first_met.values())
    sizes = {len(plan.batch_at(step)[1]) for step in range(1, 13)}
    name = "queries a step" if len(sizes) == 1 else "queries a step, min / median / max"
    assert table[name][0] == ("30" if len(sizes) == 1 else "10 / 30 / 30")


def test_candidates_and_duplicates_are_those_of_the_steps(tmp_path):
    run = write_run(tmp_path / "run")
    _, table, _ = account(run)
    lowest_median_highest, meaning = table["candidates per query, min / median / max"]
    assert lowest_median_highest == "31.8 / 31.9 / 32"
    assert "among the whole global batch" in meaning
    number, meaning = table["masked duplicates"]
    assert number == "12"  # 1 + 2 + 0, four times
    assert meaning.endswith("in 8 steps, 2 at most")


def test_groups_are_named_where_queries_meet_only_their_group(tmp_path):
    recipe = load_recipe("tiny", ["train.steps=12", "batch.negatives=8"])
    _, table, _ = account(write_run(tmp_path / "run", recipe=recipe))
    assert "among groups of 8" in table["candidates per query, min / median / max"][1]


def test_weighted_sources_are_told_apart(tmp_path):
    sources = "[{path: a, weight: 3}, {path: b, weight: 1}]"
    recipe = load_recipe("tiny", ["train.steps=12", f"data.train={sources}"])
    run = write_run(tmp_path / "run", recipe=recipe, num_rows=200)
    plan = MixturePlan((40, 160), 32, recipe.train.seed, recipe.batch.drop_last, (3.0, 1.0))
    facts = facts_of(run)
    facts["data"]["train"] = [fingerprint("a", 40), fingerprint("b", 160)]
    facts["plan"]["batches_per_epoch"] = plan.batches_per_epoch
    write_json(run / "run.json", facts)
    met = Counter()
    for step in range(1, 13):
        met.update(plan.batch_at(step)[1].tolist())
    of_a = {row: number for row, number in met.items() if row < 40}
    _, table, ledger = account(run)
    trained = sum(of_a.values())
    assert ledger.sources.rows[0] == (
        "a",
        "40",
        f"{100 * trained / 384:.1f}%",
        str(trained),
        str(len(of_a)),
        str(trained - len(of_a)),
    )
    assert trained > 250
    assert table["repeats"][0] == str(sum(met.values()) - len(met))
    assert sum(int(row[3]) + int(row[4]) for row in ledger.epochs.rows) == 384


def test_rows_are_not_guessed_where_the_plan_is_another(tmp_path):
    run = write_run(tmp_path / "run")
    facts = facts_of(run)
    facts["plan"]["batches_per_epoch"] += 1
    write_json(run / "run.json", facts)
    presented, table, ledger = account(run)
    assert presented.plan is None
    assert presented.pages(12) == 12 * 32
    assert "rows met" not in table
    assert (ledger.epochs, ledger.sources) == (None, None)


def test_hard_negatives_are_told_where_a_step_takes_them(tmp_path):
    overrides = ["train.steps=12", "hard_negatives.shared=true", "hard_negatives.per_query=3"]
    recipe = load_recipe("tiny", overrides)
    _, table, _ = account(write_run(tmp_path / "run", recipe=recipe))
    assert table["hard negatives per query"] == (
        "3",
        "drawn from all that the data names, serving all queries",
    )
    _, table, _ = account(write_run(tmp_path / "without"))
    assert "hard negatives per query" not in table
