"""`coltrain doctor`, and the doctor before and after `coltrain train`."""

import json

import pytest
from data_folders import write_corpus
from foreign_trainings import engine_yaml, write

SHORT = (
    "batch.global_size=4",
    "batch.chunk_size=2",
    "train.steps=2",
    "eval.data=[]",
    "eval.every=null",
)


def test_a_sound_recipe_leaves_with_0(coltrain):
    finished = coltrain("doctor", "colqwen2-v1.0")
    assert finished.code == 0
    assert "0 of 33 known traps found" in finished.out


def test_a_trap_leaves_with_1_and_is_said_with_its_way_out(coltrain):
    finished = coltrain("doctor", "colqwen2-v0.1", "batch.negatives=2")
    assert finished.code == 1
    assert "negatives-not-shared" in finished.out
    assert "each query meets 1 negatives of a batch of 32" in finished.out
    words = " ".join(finished.out.split())
    assert "1. negatives-not-shared (trap 6, error)" in words
    assert "way out coltrain train" in words
    assert max(map(len, finished.out.splitlines())) <= 110  # names are not broken


def test_json_holds_every_trap_the_failures_first(coltrain, tmp_path):
    write(tmp_path, train__yaml=engine_yaml(dtype="torch.float16"))
    finished = coltrain("doctor", "train.yaml", "--set", "launch.world_size=16", "--json")
    assert finished.code == 1
    findings = json.loads(finished.out)["findings"]
    assert len(findings) == 33
    keys = {"id", "trap", "status", "severity", "title", "evidence", "cost", "way_out"}
    assert all(keys <= set(one) for one in findings)
    statuses = [one["status"] for one in findings]
    assert statuses == sorted(statuses, key=["fail", "unknown", "pass"].index)
    assert [one["trap"] for one in findings[:2]] == [6, 15]
    assert set(findings[0]["evidence"]) == {"found", "expected", "where"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["doctor", "nowhere/at/all"], "[no-such-target]"),
        (["doctor", "tiny", "--set", "ranks=4"], "[unknown-fact]"),
        (["doctor", "tinny"], "[unknown-recipe]"),
        (["train", "tiny", "--accept", "mistakes", "--out", "r"], "[unknown-trap]"),
    ],
)
def test_what_is_typed_wrongly_leaves_with_2(coltrain, arguments, word):
    finished = coltrain(*arguments)
    assert finished.code == 2
    assert word in finished.err


def test_an_error_stops_a_training_before_anything_is_written(coltrain, tmp_path):
    finished = coltrain("train", "tiny", "batch.negatives=4", "--out", "run")
    assert finished.code == 2
    assert "RunError [trap-found]" in finished.err
    assert "--accept negatives-not-shared" in finished.err
    assert not (tmp_path / "run").exists()


def test_a_trap_that_is_accepted_is_recorded(coltrain, tmp_path):
    write_corpus(tmp_path / "data" / "train", range(12))
    finished = coltrain(
        *("train", "tiny", "data.train=[./data/train]", *SHORT, "batch.negatives=2"),
        *("--accept", "negatives-not-shared", "--out", "run"),
    )
    assert finished.code == 0, finished.err
    assert "accepted negatives-not-shared" in finished.err
    doctor = json.loads((tmp_path / "run" / "run.json").read_text())["doctor"]
    assert [(one["id"], one["accepted"]) for one in doctor["before"]] == [
        ("negatives-not-shared", True)
    ]
    assert "negatives-not-shared" in [one["id"] for one in doctor["after"]]
