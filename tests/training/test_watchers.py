"""Watchers against stand-ins of the three packages, and against the packages where installed."""

import json
import os
import sqlite3
import subprocess
import sys
import types

import pytest

from coltrain.errors import RunError
from coltrain.evaluation.results import Result
from coltrain.training.events import (
    EvaluationResult,
    EvaluationStarts,
    Notice,
    StepResult,
    Stopped,
    event_line,
)
from coltrain.training.run_folder import RunFolder
from coltrain.training.watchers import (
    evaluation_figures,
    refuse_missing,
    run_id,
    step_figures,
    watched,
)

STEP = StepResult(1, 2, 0, 1.5, 1e-3, 0.5, 32.0, 3, 12.34567, 2.54321)
RESULT = Result("outline/test", 20, 24, {"nDCG@5": 0.25, "Recall@1": 0.5}, {"q1": {"nDCG@5": 1.0}})
EVALUATION = EvaluationResult(0, RESULT, 3.25, 1.23456)
EVENTS = [EvaluationStarts(0, 44), EVALUATION, STEP, Notice("the loss stands still")]


class Recorder(types.ModuleType):
    """A module, or what it makes, that writes down every call."""

    def __init__(self, name, calls, **attributes):
        super().__init__(name)
        self.__dict__.update(attributes, calls=calls)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **keywords):
            self.calls.append((name, arguments, keywords))
            return Recorder(name, self.calls, url="https://example.org/run", offline=False)

        return call


@pytest.fixture
def calls(monkeypatch):
    """What the stand-ins of the three packages were asked, in order."""
    calls = []
    wandb = Recorder("wandb", calls)
    watched_run = Recorder(
        "run", calls, url="https://example.org/run", offline=False, summary={}, dir="/x/files"
    )
    wandb.init = lambda **keywords: calls.append(("init", (), keywords)) or watched_run
    wandb.run = watched_run
    trackio = Recorder("trackio", calls, AlertLevel=types.SimpleNamespace(INFO="info"))
    board = Recorder("torch.utils.tensorboard", calls)
    for module in (wandb, trackio, board):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("PROJECT", "NAME", "RUN_ID", "DIR", "MODE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    return calls


@pytest.fixture
def run(tmp_path):
    facts = {
        "state": "running",
        "started": "2026-11-23T00:00:00+00:00",
        "full_hash": "0123456789abcdef",
        "result_hash": "fedcba9876543210",
        "recipe": {"name": "tiny"},
        "recipe_yaml": "name: tiny\n",
    }
    folder = RunFolder(tmp_path / "näher dran")
    folder.create(facts, replace=False)
    return folder


def as_they_come(events, run, state="finished"):
    try:
        yield from events
        run.record(state=state)
    except GeneratorExit:
        run.record(state="stopped")
        raise


def follow(names, run, events=EVENTS, first_step=1):
    return list(watched(as_they_come(events, run), names, run, first_step))


def named(calls, name):
    return [(arguments, keywords) for called, arguments, keywords in calls if called == name]


def test_a_run_without_watchers_passes_its_events_on_and_imports_nothing(run, calls):
    assert follow([], run) == EVENTS
    assert calls == []


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_every_step_and_evaluation_is_logged_under_its_step(run, calls, name):
    follow([name], run)
    assert named(calls, "log") == [
        ((evaluation_figures(EVALUATION),), {"step": 0}),
        ((step_figures(STEP),), {"step": 1}),
    ]


def test_the_figures_have_names_that_group_them():
    assert step_figures(STEP) == {
        "train/epoch": 0,
        "train/loss": 1.5,
        "train/learning_rate": 1e-3,
        "train/wait_seconds": 0.0,
        "train/grad_norm": 0.5,
        "train/candidates_per_query": 32.0,
        "train/masked_duplicates": 3,
        "train/pages_per_second": 12.34567,
        "train/seconds": 2.54321,
    }
    assert evaluation_figures(EVALUATION) == {
        "outline/test/nDCG@5": 0.25,
        "outline/test/Recall@1": 0.5,
        "outline/test/loss": 3.25,
        "outline/test/seconds": 1.23456,
    }


def test_an_evaluation_without_a_loss_logs_none():
    without = EvaluationResult(0, RESULT, None, 1.0)
    assert "outline/test/loss" not in evaluation_figures(without)


def test_tensorboard_gets_scalars_and_hides_what_is_taken_again(run, calls):
    notices = [event for event in follow(["tensorboard"], run, first_step=41) if event != EVENTS[3]]
    (arguments, keywords) = named(calls, "SummaryWriter")[0]
    folder = run.path / "watch" / "tensorboard"
    assert (arguments, keywords) == ((str(folder),), {"purge_step": 41})
    assert ("train/loss", 1.5, 1) in [arguments for arguments, _ in named(calls, "add_scalar")]
    assert ("outline/test/nDCG@5", 0.25, 0) in [
        arguments for arguments, _ in named(calls, "add_scalar")
    ]
    texts = {arguments[0]: arguments[1] for arguments, _ in named(calls, "add_text")}
    assert texts == {
        "recipe": "```yaml\nname: tiny\n```",
        "notice": "the loss stands still",
        "state": "finished",
    }
    assert notices[0] == Notice(f"tensorboard: tensorboard --logdir {folder}")
    assert calls[-1][0] == "close"


def test_weights_and_biases_goes_on_with_the_run_that_is_resumed(run, calls):
    follow(["wandb"], run)
    follow(["wandb"], run, first_step=2)
    first, second = (keywords for _, keywords in named(calls, "init"))
    assert first["id"] == second["id"] == run_id(run.path, run.facts)
    assert first["resume"] == "allow"
    assert first["project"] == "coltrain"
    assert first["name"] == "näher dran"
    assert first["config"] == {"name": "tiny", "result_hash": "fedcba9876543210"}
    assert first["dir"] == str(run.path / "watch")


def test_another_run_has_another_id(run):
    other = {**run.facts, "started": "2026-11-23T00:00:01+00:00"}
    assert run_id(run.path, other) != run_id(run.path, run.facts)


def test_weights_and_biases_follows_its_own_environment(run, calls, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "pages")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    follow(["wandb"], run)
    ((_, keywords),) = named(calls, "init")
    assert keywords["project"] == "pages"
    assert keywords["dir"] == str(tmp_path)
    assert "mode" not in keywords  # WANDB_MODE decides


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("interrupted", 0), ("stopped", 1)])
def test_watchers_hear_how_the_run_ended(run, calls, state, code):
    list(watched(as_they_come(EVENTS, run, state), ["wandb"], run, 1))
    assert named(calls, "finish") == [((), {"exit_code": code})]
    assert sys.modules["wandb"].run.summary == {
        "notices": ["the loss stands still"],
        "state": state,
    }


def test_a_loop_that_is_left_early_ends_the_run_first(run, calls):
    events = watched(as_they_come(EVENTS, run), ["wandb"], run, 1)
    next(events)
    events.close()
    assert run.facts["state"] == "stopped"
    assert named(calls, "finish") == [((), {"exit_code": 1})]


def test_an_error_of_the_run_reaches_who_iterates_and_the_watchers_are_told(run, calls):
    def failing():
        yield STEP
        run.record(state="stopped")
        raise RunError("cannot-write", "the disk is full.")

    with pytest.raises(RunError, match="the disk is full"):
        list(watched(failing(), ["trackio"], run, 1))
    assert named(calls, "finish") == [((), {})]


def test_a_watcher_that_cannot_start_is_left_out_with_a_word(run, calls, monkeypatch):
    def refuse(**keywords):
        raise ValueError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    events = follow(["wandb", "trackio"], run)
    assert events[0] == Notice(
        "wandb does not watch any longer: No API key configured.; metrics.jsonl has every number"
    )
    assert [event for event in events if event in EVENTS] == EVENTS
    assert len(named(calls, "log")) == 2  # trackio's


def test_a_watcher_that_fails_on_the_way_is_left_out_once(run, calls, monkeypatch):
    def fail(*arguments, **keywords):
        raise ConnectionError

    monkeypatch.setattr(sys.modules["wandb"].run, "log", fail, raising=False)
    words = [event.text for event in follow(["wandb"], run) if isinstance(event, Notice)]
    assert words == [
        "wandb: https://example.org/run",
        "wandb does not watch any longer: ConnectionError; metrics.jsonl has every number",
        "the loss stands still",
    ]


def test_a_watcher_that_is_named_twice_watches_once(run, calls):
    follow(["trackio", "trackio"], run)
    assert len(named(calls, "init")) == 1


def test_trackio_prints_nothing_where_results_go(run, calls, monkeypatch, capsys):
    trackio = sys.modules["trackio"]
    for name in ("init", "finish"):
        really = getattr(trackio, name)

        def greet(*arguments, really=really, **keywords):
            print("* Trackio project initialized")
            return really(*arguments, **keywords)

        monkeypatch.setattr(trackio, name, greet, raising=False)
    follow(["trackio"], run)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")],
)
def test_a_watcher_that_is_not_installed_is_refused_before_anything_is_loaded(
    start, tmp_path, monkeypatch, name, module
):
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what cannot be imported
    with pytest.raises(RunError) as caught:
        start(f"logging.watchers=[{name}]")
    assert str(caught.value) == (
        f"RunError [missing-extra]: watching with {name} needs a package that is not installed.\n"
        "  where     logging.watchers\n"
        f"  received  {name}\n"
        f"  try       pip install 'coltrain[{name}]', or logging.watchers=[]"
    )
    assert list(tmp_path.iterdir()) == []


def test_installed_watchers_are_not_refused(calls):
    refuse_missing(["tensorboard", "wandb", "trackio"])


@pytest.mark.slow
def test_a_run_is_watched_from_its_first_event_to_its_last(start, calls):
    training = start("train.steps=2", "eval.data=[small-test]")
    plain = list(watched(training.events(), ["wandb"], training.run, 1))
    steps = [event for event in plain if isinstance(event, StepResult)]
    assert len(steps) == 2
    logged = [keywords["step"] for _, keywords in named(calls, "log")]
    assert logged == [0, 1, 2, 2]
    assert named(calls, "finish") == [((), {"exit_code": 0})]


@pytest.mark.slow
def test_lines_for_machines_have_the_names_of_the_metrics_file(start):
    training = start("train.steps=2", "eval.data=[small-test]")
    lines = [event_line(event) for event in training.events()]
    kept = [line for line in lines if line["kind"] in ("step", "evaluation")]
    for line in kept:
        line.pop("num_steps", None)
    recorded = training.run.lines()
    assert len(recorded) == 4
    for line, written in zip(kept, recorded, strict=True):
        assert {**written, "num_steps": None} == {**line, "num_steps": None}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (EvaluationStarts(0, 44), '{"kind": "evaluation-starts", "step": 0, "num_items": 44}'),
        (Notice("näher"), '{"kind": "notice", "text": "n\\u00e4her"}'),
        (
            Stopped(3, 9, "SIGTERM"),
            '{"kind": "stopped", "step": 3, "num_steps": 9, "signal": "SIGTERM"}',
        ),
    ],
)
def test_every_event_is_one_line(event, line):
    assert json.dumps(event_line(event)) == line


REAL = """
import sys, warnings
from coltrain.evaluation.results import Result
from coltrain.training.events import *
from coltrain.training.run_folder import RunFolder
from coltrain.training.watchers import watched
from pathlib import Path
run = RunFolder(Path(sys.argv[2]))
facts = {"state": "finished", "started": "now", "full_hash": "a", "result_hash": "b",
         "recipe": {"lora": {"r": 32}}, "recipe_yaml": "lora:\\n  r: 32\\n"}
run.create(facts, replace=False)
events = (StepResult(n, 3, 0, 1 / n, 1e-3, 0.5, 32.0, 3, 12.5, 2.5) for n in (1, 2, 3))
for event in watched(events, [sys.argv[1]], run, 1):
    if isinstance(event, Notice):
        print(event.text, file=sys.stderr)
"""


@pytest.fixture
def really(tmp_path):
    """Three steps of a run under the real package; returns what it printed, out and err."""

    def follow_really(name, **environment):
        done = subprocess.run(
            [sys.executable, "-c", REAL, name, str(tmp_path / "run")],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        return done.stderr

    return follow_really


@pytest.mark.slow
@pytest.mark.reference
def test_tensorboard_reads_what_was_written(really, tmp_path):
    assert "tensorboard --logdir" in really("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "run" / "watch" / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in read.Scalars("train/loss")]
    assert losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert "state/text_summary" in read.Tags()["tensors"]


@pytest.mark.slow
@pytest.mark.reference
def test_weights_and_biases_writes_offline_into_the_run(really, tmp_path):
    words = really("wandb", WANDB_MODE="offline")
    (folder,) = (tmp_path / "run" / "watch" / "wandb").glob("offline-run-*")
    assert f"wandb sync {folder}" in words
    (file,) = folder.glob("*.wandb")
    assert file.read_bytes().count(b"train/loss") >= 3


@pytest.mark.slow
@pytest.mark.reference
def test_weights_and_biases_without_a_login_asks_nothing_and_is_left_out(really, tmp_path):
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_MODE": "online"}
    words = really("wandb", **home, WANDB_API_KEY="")
    assert "wandb does not watch any longer: No API key configured" in words


@pytest.mark.slow
@pytest.mark.reference
def test_trackio_keeps_every_step(really, tmp_path):
    assert "trackio show --project coltrain" in really("trackio", TRACKIO_DIR=str(tmp_path))
    with sqlite3.connect(tmp_path / "coltrain.db") as store:
        assert [row[0] for row in store.execute("SELECT step FROM metrics")] == [1, 2, 3]


@pytest.mark.slow
def test_a_recipe_s_watchers_watch(start, calls):
    training = start("train.steps=2", "eval.data=[small-test]", "logging.watchers=[wandb]")
    events = list(training.events())
    assert events[0] == Notice("wandb: https://example.org/run")
    assert [keywords["step"] for _, keywords in named(calls, "log")] == [0, 1, 2, 2]
