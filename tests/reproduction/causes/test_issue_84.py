"""The report on issue 84's set-up, and the page that prints it."""

import json
from pathlib import Path

import pytest

from coltrain.reproduction.causes import find_causes, read_causes_side
from coltrain.reproduction.causes.known import EVIDENCE

ROOT = Path(__file__).parents[3]
COMMAND = ("compare", "examples/issue-84", "published:vidore/colqwen2-v0.1")


@pytest.fixture
def report(coltrain, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = coltrain(*COMMAND)
    assert found.code == 0, found.err
    return found.out


def test_the_negatives_are_said_first(report):
    assert report.splitlines()[0] == (
        "You asked for a batch of 32, but each query met 1 negative, not 31."
    )


def test_the_page_prints_what_the_command_prints(report):
    page = (ROOT / "docs" / "explanation" / "issue-84.md").read_text(encoding="utf-8")
    assert "coltrain " + " ".join(COMMAND) in page
    assert page.partition("```text\n")[2].partition("```")[0] == report


def test_every_difference_has_its_evidence(coltrain, monkeypatch):
    monkeypatch.chdir(ROOT)
    document = json.loads(coltrain(*COMMAND, "--json").out)
    assert [one["key"] for one in document["differences"]][:5] == [
        "batch.negatives",
        "loss.name",
        "data.train",
        "precision.compute",
        "optimizer.name",
    ]
    for one in document["differences"]:
        assert one["evidence"] in EVIDENCE
        assert one["effect"]
        assert one["where_a"]
        assert one["where_b"]
    assert document["same"]["optimizer.learning_rate"] == "5e-05"
    assert document["same"]["optimizer.warmup_steps"] == "500"
    assert document["same"]["batch.global_size"] == "32"


def test_what_nobody_said_is_left_unknown(monkeypatch):
    monkeypatch.chdir(ROOT)
    sides = [read_causes_side(name) for name in COMMAND[1:]]
    causes = find_causes(*sides)
    told = dict(causes.not_compared)
    assert {
        "launch.launcher",
        "eval.evaluator",
        "versions.transformers",
        "data.rows",
    } <= told.keys()
    assert not {"launch.launcher", "eval.evaluator"} & {one.key for one in causes.differences}


def test_the_plain_configuration_on_sixteen_processes_met_one_too(tmp_path, monkeypatch):
    """What a note of the case says, by the same reading."""
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "plain"
    folder.mkdir()
    for file in (ROOT / "examples" / "issue-84").iterdir():
        text = file.read_text(encoding="utf-8")
        text = text.replace("ColbertPairwiseNegativeCELoss", "ColbertPairwiseCELoss")
        text = text.replace("load_train_set_ir_negs", "load_train_set_detailed")
        (folder / file.name).write_text(text, encoding="utf-8")
    side = read_causes_side(str(folder))
    assert side.value("batch.negatives") == 1
    assert side.value("batch.candidates") == 2
