"""Names and texts of any language where the locale knows ASCII only."""

import json
import os
import subprocess
import sys

import pytest
from data_folders import write_corpus

NAME = "tïny 東京"


def in_ascii(folder, *arguments, **variables):
    """Run a command in a process whose locale has no letters but ASCII; its stdout as bytes."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "coltrain", *arguments],
        cwd=folder,
        env={**os.environ, **locale, "HF_DATASETS_CACHE": str(folder / "cache")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done.stdout


def test_a_recipe_is_shown_in_utf8_or_in_escapes_where_only_ascii_is_wanted(tmp_path):
    command = ("recipes", "show", "tiny", f"name={NAME}")
    assert f"name: {NAME} " in in_ascii(tmp_path, *command).decode("utf-8")
    escaped = in_ascii(tmp_path, *command, PYTHONIOENCODING="ascii").decode("ascii")
    assert r"name: t\xefny \u6771\u4eac " in escaped


@pytest.mark.reference
def test_a_run_with_names_of_any_language_is_trained_measured_and_reported(tmp_path):
    queries = {"query_id": [f"q{n}" for n in range(4)], "text": ["größe", "東京", "прогон", "red"]}
    write_corpus(tmp_path / "Däten 東京", range(4), queries=queries)
    data = "./Däten 東京"
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    overrides = (f"name={NAME}", "batch.global_size=4", "train.steps=1")
    sources = (f"data.train=['{data}']", f"eval.data=['{data}']")
    trained = in_ascii(
        tmp_path, "train", "tiny", *overrides, *sources, "--out", "läuf", "--json", **ascii_only
    )
    assert json.loads(trained.decode("ascii"))["run"] == "läuf"
    assert json.loads((tmp_path / "läuf" / "run.json").read_text("utf-8"))["recipe"]["name"] == NAME
    measured = json.loads(in_ascii(tmp_path, "eval", "läuf", "--on", data, "--json"))
    assert set(measured["results"][0]["per_query"]) == set(queries["query_id"])
    in_ascii(tmp_path, "report", "läuf", **ascii_only)
    assert NAME in (tmp_path / "läuf" / "report.html").read_text("utf-8")
    assert in_ascii(tmp_path, "resume", "läuf", "--json", **ascii_only)
