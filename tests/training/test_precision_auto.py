"""`precision.keep_float32: auto` and `precision.compute: auto` in a run, and on the command line."""

import json

import pytest
import torch
from scaled_base import scaled_base

from coltrain.recipe import load_recipe, result_hash
from coltrain.training.events import Notice, StepResult
from coltrain.training.precision import choice
from coltrain.training.precision.choice import compute_on, settled
from coltrain.training.resume import resume

CPU = torch.device("cpu")
DOWN = "language_model.layers.1.mlp.down_proj"


@pytest.mark.slow
def test_a_planted_overflow_is_kept_in_float32_and_trains_as_float32_does(start, tmp_path):
    base = scaled_base(tmp_path / "base", {f"{DOWN}.weight": 1e5})
    common = (f"model.base={base}", "train.steps=4", "optimizer.learning_rate=2e-4")
    half = start(*common, "precision.compute=float16", "precision.keep_float32=auto")
    events = list(half.events())
    ours = [event.loss for event in events if isinstance(event, StepResult)]
    full = [e.loss for e in start(*common).events() if isinstance(e, StepResult)]
    assert len(ours) == 4
    assert ours == pytest.approx(full, rel=0.02)
    assert ours != full
    [notice] = [event.text for event in events if isinstance(event, Notice)]
    assert f"kept in float32 (0.5 x 65,504 on): {DOWN}: output up to " in notice
    facts = json.loads((half.run.path / "run.json").read_text())
    assert facts["warnings"] == [notice]
    precision = facts["precision"]
    assert precision["keep_float32"] == [DOWN]
    assert precision["overflow"]["overflow_in_float16"] == f"{DOWN}.base_layer"
    assert precision["skipped_steps"] == 0
    card = json.loads((half.run.model / "coltrain.json").read_text())
    assert DOWN in card["float32_modules"]


@pytest.mark.slow
def test_resuming_takes_the_recorded_policy_and_looks_for_none(start, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    more = ("precision.compute=float16", "precision.keep_float32=auto", "checkpoint.every=1")
    training = start(*more, folder=folder)
    for event in training.events():
        if isinstance(event, StepResult) and event.step == 2:
            break
    training.run.record(
        precision=training.run.facts["precision"] | {"keep_float32": ["visual.merger"]}
    )
    again = resume(folder, CPU).training
    assert again.setup.keep_float32 == ("visual.merger",)
    assert "visual.merger" in again.setup.built.model.kept_in_float32
    assert again.setup.overflow is None


def test_auto_takes_what_the_device_has(monkeypatch):
    capability = {"v100": (7, 0), "t4": (7, 5), "a100": (8, 0)}
    cuda = torch.device("cuda")
    for card, expected in {"v100": "float16", "t4": "float16", "a100": "bfloat16"}.items():
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device, card=card: capability[card]
        )
        assert compute_on(cuda) == expected
    assert compute_on(CPU) == "float32"


def test_a_run_records_and_hashes_what_auto_became(monkeypatch):
    recipe = load_recipe("tiny", ["precision.compute=auto", "precision.keep_float32=[visual]"])
    assert settled(recipe, CPU).precision.compute == "float32"
    assert result_hash(settled(load_recipe("tiny", ["precision.compute=auto"]), CPU)) == (
        result_hash(load_recipe("tiny"))
    )
    monkeypatch.setattr(choice, "compute_on", lambda device: "float16")
    found = settled(recipe, CPU)
    assert found.precision.compute == "float16"
    assert found.precision.keep_float32 == ("visual",)
    plain = load_recipe("tiny", ["precision.compute=bfloat16"])
    assert settled(plain, CPU) is plain


@pytest.mark.slow
def test_the_command_names_what_overflows_and_writes_the_policy(coltrain, tmp_path):
    base = scaled_base(tmp_path / "base", {f"{DOWN}.weight": 1e5})
    code, out, _ = coltrain("precision", str(base), "--pages", "3", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["looked_at"] == {
        "data": "tiny:test",
        "pages": 3,
        "queries": 3,
        "observed_in": "float32",
    }
    assert found["limit"] == 65504
    assert found["near"][DOWN]["output"] > 65504
    assert found["near"]["language_model.norm"]["input"] > 65504  # the residual stream
    assert list(found["keep_float32"]) == [DOWN]
    assert found["overflow_in_float16"] == DOWN
    assert found["policy"] == {"precision": {"compute": "float16", "keep_float32": [DOWN]}}
    drift = found["drift"]
    assert "first in module" in drift["float16"]["error"]
    assert drift["float16"]["nDCG@5"] is None
    assert 0.999 < drift["float16 with the policy"]["least_cosine"] < 1
    assert drift["bfloat16"]["mean_cosine"] < drift["float16 with the policy"]["mean_cosine"]
    code, out, _ = coltrain("precision", str(base), "--pages", "2", "--no-drift")
    assert code == 0
    assert f"in float16 the first that is not finite is {DOWN}\n" in out
    assert out.endswith(f"precision:\n  compute: float16\n  keep_float32:\n    - {DOWN}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--margin", "0"], "UsageError [not-a-margin]"),
        (["--observe-in", "float16"], "UsageError [unknown-dtype]"),
        (["--on", ""], "UsageError [not-a-source]"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(coltrain, arguments, words):
    code, out, error = coltrain("precision", "tiny", *arguments)
    assert (code, out) == (2, "")
    assert error.startswith(words)
