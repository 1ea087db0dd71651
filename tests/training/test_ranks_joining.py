"""What torchrun says, what ranks compute on, and who may not join."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from data_folders import png, write_corpus
from torch.distributed import HashStore

from coltrain.errors import RecipeError, RunError, TrainingError
from coltrain.training.ranks import SINGLE
from coltrain.training.ranks.gone import Leaving, Missing, error_of
from coltrain.training.ranks.joining import Place, device_of, joined, place_of, refuse_uneven
from coltrain.training.ranks.pulse import Pulse

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_a_process_that_torchrun_did_not_start_is_one_by_itself():
    assert place_of({"PATH": "/bin"}) is None
    assert place_of({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None
    with joined(None, torch.device("cpu")) as ranks:
        assert ranks is SINGLE


def test_the_place_is_what_torchrun_says():
    place = place_of(TORCHRUN)
    assert place == Place(3, 4, 1, 2, "node0", 29500, is_host=False)


def test_rank_0_opens_the_place_where_torchrun_does_not():
    environment = {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}
    assert not place_of(environment).is_host
    del environment["TORCHELASTIC_USE_AGENT_STORE"]
    assert place_of(environment).is_host
    assert not place_of({**environment, "RANK": "1"}).is_host


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RANK": None}, ["no RANK", "nothing"]),
        ({"WORLD_SIZE": None}, ["no WORLD_SIZE"]),
        ({"MASTER_ADDR": None}, ["no MASTER_ADDR"]),
        ({"MASTER_PORT": ""}, ["no MASTER_PORT", "''"]),
        ({"RANK": "one"}, ["RANK in the environment", "'one'", "a number from 0 to 3"]),
        ({"RANK": "4"}, ["'4'", "from 0 to 3"]),
        ({"RANK": "-1"}, ["'-1'"]),
        ({"WORLD_SIZE": "0"}, ["'0'", "a number from 1"]),
        ({"WORLD_SIZE": "4.0"}, ["'4.0'"]),
        ({"MASTER_PORT": "0"}, ["'0'", "from 1 to 65535"]),
        ({"MASTER_PORT": "99999"}, ["'99999'"]),
        ({"LOCAL_RANK": "x"}, ["LOCAL_RANK", "'x'"]),
    ],
)
def test_a_missing_or_garbled_variable_is_named(changes, words):
    environment = {**TORCHRUN, **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    with pytest.raises(RunError) as caught:
        place_of(environment)
    for word in ["[ranks-environment]", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
def test_ranks_that_divide_the_batch_share_it(size):
    refuse_uneven(32, size)


def test_ranks_that_do_not_divide_the_batch_hear_which_numbers_do():
    with pytest.raises(RecipeError) as caught:
        refuse_uneven(250, 4)
    text = str(caught.value)
    assert "[batch-not-divisible]" in text
    assert "global_size = 250 on 4 ranks (62.5 queries each)" in text
    assert "1, 2, 5, 10, 25, 50, 125, 250 ranks, or a multiple of 4" in text
    assert "batch.global_size=248 or batch.global_size=252" in text
    with pytest.raises(RecipeError, match=r"batch\.global_size=64, which"):
        refuse_uneven(32, 64)


def test_a_rank_takes_the_gpu_of_its_number():
    place = Place(5, 8, local_rank=1, local_size=4)
    assert device_of(place, None, 4) == torch.device("cuda", 1)
    assert device_of(place, "cuda", 4) == torch.device("cuda", 1)
    assert device_of(place, "cpu", 4) == torch.device("cpu")
    assert device_of(place, None, 0) == torch.device("cpu")


def test_more_ranks_than_gpus_are_refused():
    with pytest.raises(RunError) as caught:
        device_of(Place(1, 4, 1, 4), None, 2)
    assert "[more-ranks-than-gpus]" in str(caught.value)
    assert "4 ranks, 2 GPUs" in str(caught.value)
    assert "--nproc-per-node 2" in str(caught.value)
    with pytest.raises(RunError, match=r"\[device-of-ranks\]"):
        device_of(Place(1, 4, 1, 4), "cuda:1", 4)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_at_the_meeting_place_is_said_in_time():
    place = Place(1, 2, address="127.0.0.1", port=free_port())
    started = time.monotonic()
    with pytest.raises(RunError) as caught, joined(place, torch.device("cpu"), 2.0):
        pass
    assert "[ranks-unreachable]" in str(caught.value)
    assert f"127.0.0.1:{place.port}, 2 s" in str(caught.value)
    assert time.monotonic() - started < 30


def test_ranks_that_do_not_come_are_named():
    place = Place(0, 3, address="127.0.0.1", port=free_port(), is_host=True)
    with pytest.raises(RunError) as caught, joined(place, torch.device("cpu"), 1.0):
        pass
    assert "[ranks-incomplete]" in str(caught.value)
    assert "no word of rank 1, 2 in 5 s" in str(caught.value)


PLACES = ("rank 0, here", "rank 1, there", "rank 2, there")


@pytest.fixture
def pulse(monkeypatch):
    """Rank 0's, with two others that a test lets speak."""
    monkeypatch.setattr("coltrain.training.ranks.pulse.LATE_SECONDS", 0.3)
    pulse = Pulse(HashStore(), 0, PLACES)
    for rank in (1, 2):
        pulse._store.set(f"beat/{rank}", "0")
    yield pulse
    pulse.leave()


def speak(pulse, rank, count):
    pulse._store.set(f"beat/{rank}", str(count))


def test_a_rank_that_falls_silent_is_missing(pulse):
    count = 0
    found = None
    until = time.monotonic() + 5
    while found is None and time.monotonic() < until:
        count += 1
        speak(pulse, 1, count)  # rank 2 says nothing
        found = pulse.missing(0.2)
    assert found == Missing(2, None)
    assert pulse.living() == [0, 1]
    error = error_of(found, PLACES)
    assert isinstance(error, TrainingError)
    assert error.exit_code == 1
    assert "rank 2 is gone" in str(error)
    assert "rank 2, there" in str(error)


def test_a_rank_that_left_with_a_word_of_its_own_is_to_blame(pulse):
    def leave(rank, text, exit_code, is_own):
        word = {"text": text, "exit_code": exit_code, "is_own": is_own}
        pulse._store.set(f"word/{rank}", json.dumps(word))

    leave(1, "rank 2 cannot go on", 2, False)
    leave(2, "DataError: no such page", 2, True)
    found = pulse.missing(1.0)
    assert found == Missing(2, Leaving("DataError: no such page", 2, True))
    error = error_of(found, PLACES)
    assert isinstance(error, RunError)
    assert "no such page" in str(error)


def test_where_all_seem_well_the_network_is_to_blame(pulse):
    assert pulse.missing(0.1) is None
    assert "all ranks seem alive" in str(error_of(None))
    assert "MASTER_ADDR" in str(error_of(Missing(None, None)))


# From here on real processes, as torchrun starts them.

SMALL = [
    "train.steps=12",
    "batch.global_size=4",
    "batch.chunk_size=1",
    "eval.data=[]",
    "eval.every=null",
]


def start_rank(rank, size, port, *arguments, folder=None):
    environment = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "coltrain", *map(str, arguments)],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(out, *differing, common=()):
    """Two ranks with the same command, or the second with other words in it."""
    port = free_port()
    extra = [(), differing]
    return [
        start_rank(rank, 2, port, "train", "tiny", *SMALL, *common, *extra[rank], "--out", out)
        for rank in range(2)
    ]


def ends(processes, seconds=300):
    found = []
    for process in processes:
        out, err = process.communicate(timeout=seconds)
        found.append((process.returncode, out, err))
    return found


def steps_of(run: Path):
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count('"kind": "step"') if metrics.is_file() else 0


def wait_for_steps(run, number, processes):
    until = time.monotonic() + 300
    while steps_of(run) < number:
        assert time.monotonic() < until
        assert all(process.poll() is None for process in processes), ends(processes)
        time.sleep(0.05)


@pytest.mark.reference
def test_ranks_with_different_recipes_all_end_with_both_hashes(tmp_path):
    for code, _, err in ends(start_two(tmp_path / "run", "optimizer.learning_rate=1e-3")):
        assert code == 2, err
        assert "[ranks-differ]" in err
        assert "rank 0: " in err
        assert "rank 1: " in err
        assert "optimizer.learning_rate = " in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.reference
def test_a_rank_that_resumes_while_the_other_trains_is_refused(tmp_path):
    """Their exchanges are not the same: gloo aborted the process, with a message of its own."""
    port = free_port()
    train = ("train", "tiny", *SMALL, "--out", tmp_path / "run")
    commands = (train, ("resume", tmp_path / "run"))
    for code, _, err in ends([start_rank(n, 2, port, *one) for n, one in enumerate(commands)]):
        assert code == 2, err
        assert "[ranks-differ]: the ranks were started with different command." in err
        assert "rank 0: train" in err
        assert "rank 1: resume" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.reference
@pytest.mark.parametrize(
    ("changed", "part"),
    [
        (
            {"corpus": {"doc_id": ["p1", "p2", "p3"], "image": [png(1), png(2), png(9)]}},
            "page files of train data",
        ),
        ({"queries": {"query_id": ["q1", "q2", "q3"], "text": ["a", "b", "c"]}}, "train data"),
    ],
)
def test_ranks_with_different_data_all_end_with_both_hashes(tmp_path, changed, part):
    # One recipe, whose folder holds something else where the other rank stands.
    folders = [tmp_path / "a", tmp_path / "b"]
    write_corpus(folders[0] / "set" / "data", range(1, 4))
    write_corpus(folders[1] / "set" / "data", range(1, 4), **changed)
    port = free_port()
    recipe = [
        "tiny",
        *SMALL,
        "batch.global_size=2",
        "data.train=[set/data]",
        "--out",
        tmp_path / "run",
    ]
    started = [
        start_rank(rank, 2, port, "train", *recipe, folder=folder)
        for rank, folder in enumerate(folders)
    ]
    for code, _, err in ends(started):
        assert code == 2, err
        assert "[ranks-differ]" in err
        assert f"data ({part}" in err
        assert "rank 0: " in err
        assert "rank 1: " in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.reference
def test_ranks_that_do_not_divide_the_batch_end_before_anything_is_loaded(tmp_path):
    started = time.process_time()
    (code, _, err), _ = ends(start_two(tmp_path / "run", common=["batch.global_size=5"]))
    assert code == 2
    assert "[batch-not-divisible]" in err
    assert time.process_time() - started < 60
    assert not (tmp_path / "run").exists()


@pytest.mark.reference
def test_a_rank_that_is_killed_in_a_step_is_named_and_the_run_goes_on_with_one(tmp_path):
    run = tmp_path / "run"
    processes = start_two(run)
    wait_for_steps(run, 2, processes)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (code, _, err), _ = ends(processes)
    assert time.monotonic() - killed < 60
    assert code == 1
    assert "[rank-lost]: rank 1 is gone" in err
    assert "Traceback" not in err
    facts = json.loads((run / "run.json").read_text())
    assert facts["state"] == "stopped"
    assert "rank 1 is gone" in facts["stopped_by"]
    taken = steps_of(run)
    assert f"kept up to step {taken}" in facts["stopped_by"]
    assert facts["ranks"][0]["size"] == 2
    alone = subprocess.run(
        [sys.executable, "-m", "coltrain", "resume", run], capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr
    assert f"going on after step {taken}" in alone.stderr
    facts = json.loads((run / "run.json").read_text())
    assert facts["state"] == "finished"
    assert [(one["after_step"], one["size"]) for one in facts["ranks"]] == [(0, 2), (taken, 1)]


@pytest.mark.reference
def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path):
    run = tmp_path / "run"
    processes = start_two(run, common=["checkpoint.every=100"])
    wait_for_steps(run, 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    found = ends(processes)
    assert [code for code, _, _ in found] == [143, 143], found
    facts = json.loads((run / "run.json").read_text())
    assert (facts["state"], facts["stopped_by"]) == ("interrupted", "SIGTERM")
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{steps_of(run):06d}"]
