"""`coltrain export`: what it prints, what it refuses, what it finds in a run."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from coltrain.cli import main
from coltrain.evaluation.results import Result, write_results
from coltrain.model.folder import save_model
from coltrain.recipe import full_hash, result_hash, to_yaml
from coltrain.training.run_folder import write_json

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tiny_built, tiny_recipe, tmp_path) -> Path:
    """A finished run with an adapter that is not zero."""
    from coltrain.model.adapter import lora_layers

    for layer in lora_layers(tiny_built.model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    folder = tmp_path / "run"
    save_model(tiny_built, folder / "model")
    facts = {
        "state": "finished",
        "result_hash": result_hash(tiny_recipe),
        "full_hash": full_hash(tiny_recipe),
        "recipe_yaml": to_yaml(tiny_recipe),
        "plan": {"num_steps": 60},
    }
    write_json(folder / "run.json", facts)
    per_query = {f"q{number}": {"nDCG@5": float(number % 4 > 0)} for number in range(100)}
    result = Result("pages", 100, 240, {"nDCG@5": 0.75}, per_query)
    write_results(folder / "evaluation" / "final.json", [result], step=60)
    return folder


def export(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["coltrain", "export", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as left:
        code = left.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_says_what_was_written(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = [run, "--to", "transformers", "--out", out, "--dtype", "bfloat16", "--json"]
    code, printed, _ = export(monkeypatch, capsys, *words)
    assert code == 0
    document = json.loads(printed)
    assert document["target"] == "transformers"
    assert document["merged"] is True
    assert document["dtype"] == "bfloat16"
    assert document["template"] == "engine-0.3.12"
    assert document["pushed"] is None
    assert document["native"]["extra_query_tokens"] == 1
    assert 0 < document["largest_difference"] < 0.02
    assert len(document["notes"]) >= 2


def test_a_run_s_card_has_its_scores_with_intervals_and_its_recipe(
    run, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    code, printed, _ = export(monkeypatch, capsys, run, "--to", "coltrain", "--out", out)
    assert code == 0
    assert "largest difference" in printed
    card = (out / "README.md").read_text()
    assert "| pages | 100 | 240 | 75.0 [" in card
    low, high = card.split("75.0 [")[1].split("]")[0].split(", ")
    assert 60 < float(low) < 75 < float(high) < 90
    assert "learning_rate:" in card
    # The model's folder of a run is as good as the run.
    shutil.rmtree(out)
    export(monkeypatch, capsys, run / "model", "--to", "coltrain", "--out", out)
    assert "| pages | 100 | 240 | 75.0 [" in (out / "README.md").read_text()


@pytest.mark.parametrize("saved", [True, False])
def test_a_run_that_has_not_finished_says_how_to_finish_it(
    saved, run, tmp_path, monkeypatch, capsys
):
    facts = json.loads((run / "run.json").read_text()) | {"state": "interrupted"}
    write_json(run / "run.json", facts)
    shutil.rmtree(run / "model")
    if saved:
        for step in (20, 40):
            (run / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    code, _, said = export(monkeypatch, capsys, run, "--to", "coltrain", "--out", tmp_path / "out")
    assert code == 2
    assert "run-not-finished" in said
    assert ("newest checkpoint step-000040" if saved else "no checkpoint") in said
    assert f"coltrain resume {run}" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--to", "sentence_transformers", "--out", "{out}"], "sentence-transformers"),
        (["--to", "coltrain"], "missing-out"),
        (["--to", "coltrain", "--out", "{out}", "--dtype", "float8"], "unknown-dtype"),
        (["--to", "coltrain", "--out", "{out}", "--push", "me/model"], "no-hub-token"),
        (["--to", "coltrain", "--out", "{out}", "--base", "{out}/none"], "model-not-found"),
        (["--to", "coltrain", "--out", "{run}"], "out-not-empty"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    words, expected, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    out = tmp_path / "out"
    code, printed, said = export(
        monkeypatch, capsys, run, *[word.format(out=out, run=run) for word in words]
    )
    assert code == 2
    assert expected in said
    assert "Traceback" not in said
    assert printed == ""
    assert not out.exists()
    assert (run / "model" / "adapter_config.json").is_file()
