"""A disk that is really full: a file system of a few MB where one may be mounted, and a limit on
the size of a file where not."""

import errno
import json
import os
import resource
import signal
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from coltrain.errors import RunError
from coltrain.training.checkpoint import newest_whole
from coltrain.training.disk import system_errors
from coltrain.training.events import StepResult
from coltrain.training.resume import resume

CPU = torch.device("cpu")
KEPT = ("train.steps=8", "checkpoint.every=2", "checkpoint.keep=9")
FULL = r"\[cannot-write\]: the run's folder can no longer be written; its last checkpoint is whole"


@pytest.fixture
def small_file_system(tmp_path):
    """A folder that holds 5 MB, two or three checkpoints; and a function that makes room."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(*options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, check=False
        )

    try:
        if mount("-o", "size=5m").returncode:
            pytest.skip("no right to mount a file system here")
    except FileNotFoundError:
        pytest.skip("no mount command here")
    yield folder, lambda: mount("-o", "remount,size=40m")
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_run_on_a_full_file_system_stops_and_goes_on_when_there_is_room(start, small_file_system):
    folder, make_room = small_file_system
    training = start(*KEPT, folder=folder / "run")
    with pytest.raises(RunError, match=FULL) as caught:
        list(training.events())
    assert caught.value.received == "No space left on device"
    checkpoint, broken = newest_whole(training.run.checkpoints)
    assert broken == []
    assert not list(training.run.checkpoints.glob(".*"))
    make_room()
    found = resume(folder / "run", CPU)
    assert found.words == [f"going on after step {checkpoint.progress.step}"]
    steps = [event.step for event in found.training.events() if isinstance(event, StepResult)]
    assert steps == list(range(checkpoint.progress.step + 1, 9))
    assert json.loads((folder / "run" / "run.json").read_text())["state"] == "finished"


@pytest.fixture
def no_large_files():
    """A function after which no file can grow over so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def stopped_by_a_signal(training, at_step, before):
    for event in training.events():
        if isinstance(event, StepResult) and event.step == at_step:
            before()
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_full_disk_at_a_signal_s_checkpoint_is_one_clear_error(start, no_large_files):
    training = start(*KEPT)
    with pytest.raises(RunError, match=FULL):
        stopped_by_a_signal(training, 3, lambda: no_large_files(100_000))
    checkpoint, broken = newest_whole(training.run.checkpoints)
    assert (checkpoint.progress.step, broken) == (2, [])
    assert json.loads((training.run.path / "run.json").read_text())["state"] == "stopped"


@pytest.mark.slow
def test_a_full_disk_while_the_model_is_saved_is_one_clear_error(start, no_large_files):
    training = start("train.steps=1")

    def go():
        for event in training.events():
            if isinstance(event, StepResult):
                no_large_files(100_000)

    with pytest.raises(RunError, match=FULL):
        go()


@pytest.mark.parametrize("library", ["safetensors", "tokenizers"])
def test_what_libraries_in_rust_make_of_a_full_disk_is_an_os_error(
    library, tiny_retriever, no_large_files, tmp_path
):
    def write():
        if library == "safetensors":
            save_file({"large": torch.zeros(100_000)}, tmp_path / "large.safetensors")
        else:
            tokenizer = tiny_retriever.built.preparer.tokenizer.backend_tokenizer
            tokenizer.save(str(tmp_path / "tokenizer.json"))

    no_large_files(1000)
    with pytest.raises(Exception, match=r"os error \d+|code: \d+") as theirs:
        write()
    assert not isinstance(theirs.value, OSError)  # or there is nothing to translate
    with pytest.raises(OSError, match="File too large") as ours, system_errors():
        write()
    assert ours.value.errno == errno.EFBIG
