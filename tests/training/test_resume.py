"""A run that was cut off goes on to the same bits."""

import errno
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from small_pages import SmallPages

from coltrain.errors import RunError
from coltrain.recipe import load_recipe
from coltrain.training import checkpoint as checkpoint_module
from coltrain.training.checkpoint import checkpoints, newest_whole
from coltrain.training.events import EvaluationResult, EvaluationStarts, StepResult, Stopped
from coltrain.training.lock import run_lock
from coltrain.training.optimizers import build_optimizer
from coltrain.training.resume import resume

CPU = torch.device("cpu")
# Dropout is on in the recipe; two epochs of five batches, evaluations that do not fall together
# with checkpoints.
LONG = (
    "train.steps=8",
    "checkpoint.every=2",
    "eval.data=[small-test]",
    "eval.every=3",
    "optimizer.warmup_steps=2",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_data):
    """An uninterrupted run, for all tests of this file."""
    from coltrain.training import setup as setup_module
    from coltrain.training.loop import Training

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            setup_module, "load_collection", lambda source, split: small_data[source.path]
        )
        folder = tmp_path_factory.mktemp("runs") / "whole"
        overrides = ("data.train=[small-train]", "batch.global_size=8", "batch.chunk_size=4")
        training = Training(load_recipe("tiny", [*overrides, *LONG]), folder, CPU)
        assert sum(isinstance(event, StepResult) for event in training.events()) == 8
    return folder


def without_times(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "wait_seconds", "pages_per_second")
    return [{key: value for key, value in line.items() if key not in times} for line in lines]


def assert_same_run(folder, whole):
    """Every file of a run, down to its checkpoints, but for the times."""
    names = sorted(str(file.relative_to(whole)) for file in whole.rglob("*") if file.is_file())
    assert sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) == names
    for name in names:
        if name == "metrics.jsonl":
            assert without_times(folder) == without_times(whole)
        elif name == "run.json":
            ours, theirs = (json.loads((run / name).read_text()) for run in (folder, whole))
            times = {"started", "finished", "seconds"}
            assert {key for key in theirs if ours[key] != theirs[key]} <= times
            assert ours["state"] == "finished"
        else:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def cut_off(training, is_last):
    """Leave a run as a kill does: nothing is written after this event."""
    events = training.events()
    for event in events:
        if is_last(event):
            break
    training.run.record = lambda **facts: None  # a killed process records no end
    events.close()


def go_on(folder, *overrides):
    found = resume(folder, CPU, overrides)
    return found.words, list(found.training.events())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last", "word"),
    [
        (lambda event: isinstance(event, StepResult) and event.step == 1, "starting from step 0"),
        (lambda event: isinstance(event, StepResult) and event.step == 4, "going on after step 3"),
        (
            lambda event: isinstance(event, EvaluationStarts) and event.step == 6,
            "going on after step 4",
        ),
        (
            lambda event: isinstance(event, EvaluationResult) and event.step == 8,
            "going on after step 6",
        ),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(start, whole, last, word):
    training = start(*LONG)
    cut_off(training, last)
    words, _ = go_on(training.run.path)
    assert word in words[-1]
    assert_same_run(training.run.path, whole)


@pytest.mark.slow
def test_another_chunk_and_workers_may_go_on_to_rounding(start, whole):
    training = start(*LONG)
    cut_off(training, lambda event: isinstance(event, StepResult) and event.step == 5)
    go_on(training.run.path, "batch.chunk_size=3", "data.num_workers=1")
    ours = load_file(training.run.path / "model" / "adapter_model.safetensors")
    theirs = load_file(whole / "model" / "adapter_model.safetensors")
    for name, tensor in theirs.items():
        # Adam divides by the root of a square: rounding in a gradient near zero is not small.
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_and_the_run_goes_on(start, whole, name):
    training = start(*LONG)
    seen = []
    for event in training.events():
        seen.append(event)
        if isinstance(event, StepResult) and event.step == 5:
            os.kill(os.getpid(), name)
    assert isinstance(seen[-1], Stopped)
    assert (seen[-1].step, seen[-1].signal_name) == (5, name.name)
    facts = json.loads((training.run.path / "run.json").read_text())
    assert (facts["state"], facts["stopped_by"]) == ("interrupted", name.name)
    words, _ = go_on(training.run.path)
    assert words == ["going on after step 5"]
    assert_same_run(training.run.path, whole)


@pytest.mark.slow
def test_a_signal_during_an_evaluation_does_it_again_later(start, whole):
    training = start(*LONG)
    for event in training.events():
        if isinstance(event, EvaluationStarts) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
    assert not (training.run.path / "evaluation" / "step-000003.json").exists()
    assert newest_whole(training.run.checkpoints)[0].progress.is_evaluated is False
    go_on(training.run.path)
    assert_same_run(training.run.path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["trained.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_cut_off_half_way_is_not_believed(start, whole, file):
    training = start(*LONG)
    cut_off(training, lambda event: isinstance(event, StepResult) and event.step == 7)
    newest = checkpoints(training.run.checkpoints)[-1]
    content = (newest / file).read_bytes()
    (newest / file).write_bytes(content[: len(content) // 2])
    words, _ = go_on(training.run.path)
    assert "step-000006" in words[0]
    assert "is not whole and is not used" in words[0]
    assert "going on after step 4" in words[-1] or "going on after step 3" in words[-1]
    assert_same_run(training.run.path, whole)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(start, monkeypatch):
    training = start(*LONG, "eval.data=[]")
    really = checkpoint_module.save_file

    def save(tensors, file):
        if "step-000004" in str(file) and file.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        really(tensors, file)

    monkeypatch.setattr(checkpoint_module, "save_file", save)
    with pytest.raises(RunError) as caught:
        list(training.events())
    assert str(caught.value) == (
        "RunError [cannot-write]: the run's folder can no longer be written; its last checkpoint "
        "is whole.\n"
        f"  where     {training.run.path}\n"
        "  received  No space left on device\n"
        f"  try       make room, then coltrain resume {training.run.path}"
    )
    assert [path.name for path in training.run.checkpoints.iterdir()] == ["step-000002"]
    assert newest_whole(training.run.checkpoints)[0].progress.step == 2


@pytest.mark.slow
def test_what_would_change_the_result_is_refused(whole):
    facts = json.loads((whole / "run.json").read_text())
    (whole / "run.json").write_text(json.dumps(facts | {"state": "stopped"}))
    try:
        with pytest.raises(RunError, match=r"\[other-result\]") as caught:
            resume(whole, CPU, ["optimizer.learning_rate=1e-3", "batch.chunk_size=2"])
    finally:
        (whole / "run.json").write_text(json.dumps(facts))
    assert caught.value.received == "optimizer.learning_rate = 0.001"
    assert caught.value.expected == "optimizer.learning_rate = 0.002"


@pytest.mark.slow
def test_a_finished_run_says_so(whole):
    found = resume(whole, CPU)
    assert found.training is None
    assert found.words == [f"the run is finished: {whole}"]


@pytest.mark.slow
def test_a_run_that_is_going_on_is_not_touched_by_resume(start):
    training = start("train.steps=3", "checkpoint.every=1")
    run = training.run.path
    events = training.events()
    for event in events:
        if isinstance(event, StepResult) and event.step == 2:
            break
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(RunError, match=r"\[run-is-locked\]"):
        resume(run, CPU)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert [event.step for event in events if isinstance(event, StepResult)] == [3]


@pytest.mark.slow
def test_data_that_changed_under_a_run_is_refused_with_what_changed(start, use_small_data):
    training = start("train.steps=3", "checkpoint.every=1")
    cut_off(training, lambda event: isinstance(event, StepResult) and event.step == 2)
    before = {file: file.read_bytes() for file in training.run.path.rglob("*") if file.is_file()}
    data = use_small_data["small-train"]
    shorter = replace(data, rows=data.rows[:-1])
    asked = [replace(query, text=f"{query.text}?") for query in data.queries]
    repainted = replace(data, images=SmallPages([*range(39), 1000]))
    for other, change in (
        (repainted, "page files: other ones under the same ids"),
        (shorter, "rows: 39, and 40 before"),
        (replace(data, queries=asked), "queries: 40 as before, but other ones"),
    ):
        use_small_data["small-train"] = other
        with pytest.raises(RunError, match=r"\[data-changed\]: the data is no longer") as caught:
            resume(training.run.path, CPU)
        assert caught.value.where == "train data, small-train"
        assert caught.value.received == change
    after = {file: file.read_bytes() for file in training.run.path.rglob("*") if file.is_file()}
    assert after == before
    # A run of an earlier version has the hash alone.
    [recorded] = [file for file in before if file.name == "data_check.json"]
    checks = json.loads(recorded.read_text())
    for one in checks["train"]:
        del one["contents"]
    recorded.write_text(json.dumps(checks))
    with pytest.raises(RunError, match=r"\[data-changed\]") as caught:
        resume(training.run.path, CPU)
    assert caught.value.received.startswith("hash ")
    recorded.write_bytes(before[recorded])
    use_small_data["small-train"] = data
    assert resume(training.run.path, CPU).words == ["going on after step 1"]


@pytest.mark.slow
def test_checkpoints_that_are_all_broken_make_room_for_whole_ones(start, whole):
    training = start(*LONG)
    cut_off(training, lambda event: isinstance(event, StepResult) and event.step == 7)
    for path in checkpoints(training.run.checkpoints):
        (path / "state.json").write_text("{")
    words, _ = go_on(training.run.path)
    assert words[-1] == "no checkpoint: starting from step 0"
    assert len(words) >= 3  # of steps 4 and 6 at least
    assert_same_run(training.run.path, whole)


@pytest.mark.slow
def test_a_checkpoint_that_counts_lines_which_are_lost_is_not_believed(start, whole):
    training = start(*LONG)
    cut_off(training, lambda event: isinstance(event, StepResult) and event.step == 7)
    metrics = training.run.path / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join(lines[:7]))  # of the 8 up to step 6 and its evaluation
    words, _ = go_on(training.run.path)
    assert "metrics.jsonl has 7 of the" in words[0]
    assert_same_run(training.run.path, whole)


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(RunError, match=r"\[not-a-run\]: this folder is not a run of coltrain"):
        resume(tmp_path, CPU)


@pytest.mark.slow
def test_the_newest_and_the_best_checkpoints_are_kept(whole):
    kept = [path.name for path in checkpoints(whole / "checkpoints")]
    scores = {
        line["step"]: line["nDCG@5"]
        for line in without_times(whole)
        if line["kind"] == "evaluation" and line["step"] > 0
    }
    best = max(scores, key=lambda step: (scores[step], -step))
    assert kept[-1] == "step-000008"
    assert f"step-{best:06d}" in kept
    assert len(kept) <= 3


def test_a_living_process_holds_its_run_and_a_dead_one_does_not(tmp_path):
    with (
        run_lock(tmp_path) as word,
        pytest.raises(RunError, match=r"\[run-is-locked\]: another process trains") as caught,
        run_lock(tmp_path),
    ):
        pass
    assert word is None
    assert f'"pid": {os.getpid()}' in caught.value.received
    (tmp_path / "run.lock").write_text('{"pid": 999999, "host": "gone"}')
    with run_lock(tmp_path) as word:
        assert word == 'a lock of a dead process was ignored: {"pid": 999999, "host": "gone"}'
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.reference
@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_8bit"])
@pytest.mark.filterwarnings("ignore")  # on a CPU nothing is paged, which bitsandbytes says
def test_an_optimiser_goes_on_to_the_same_bits_from_its_checkpoint(name, tmp_path):
    settings = load_recipe("tiny", [f"optimizer.name={name}"]).optimizer

    def fresh():
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 8192).reshape(64, 128))
        return weight, build_optimizer([weight], settings)

    def descend(weight, optimizer, steps):
        for step in steps:
            weight.grad = torch.sin(weight.detach() * (step + 1))
            optimizer.step()

    whole_weight, whole_optimizer = fresh()
    descend(whole_weight, whole_optimizer, range(6))
    weight, optimizer = fresh()
    descend(weight, optimizer, range(3))
    progress = checkpoint_module.Progress(step=3, is_evaluated=True, num_lines=3)
    path = checkpoint_module.save_checkpoint(tmp_path, progress, {"w": weight}, optimizer)
    saved = checkpoint_module.read_checkpoint(path)
    again, restored = fresh()
    with torch.no_grad():
        again.copy_(saved.parameters["w"])
    restored.load_state_dict(saved.optimizer)
    descend(again, restored, range(3, 6))
    assert saved.progress == progress
    assert torch.equal(again, whole_weight)
