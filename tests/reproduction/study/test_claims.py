"""One process works on a run at a time, and a dead one does not hold it for ever."""

import json
import multiprocessing
import os
import subprocess
import sys

import pytest

from coltrain.reproduction.study import claims
from coltrain.reproduction.study.claims import claimed, is_held


def test_a_claim_holds_a_run_until_it_is_given_back(tmp_path):
    with claimed(tmp_path / "run") as mine:
        assert (mine.attempt, mine.deaths) == (1, 0)
        assert is_held(tmp_path / "run")
        with claimed(tmp_path / "run") as second:
            assert second is None
    assert not is_held(tmp_path / "run")
    with claimed(tmp_path / "run") as third:
        assert (third.attempt, third.deaths) == (2, 0)


def test_an_error_gives_the_claim_back(tmp_path):
    with pytest.raises(ValueError, match="within"), claimed(tmp_path / "run"):
        raise ValueError("within")
    assert not is_held(tmp_path / "run")


def hold_and_die(folder):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from coltrain.reproduction.study.claims import claimed\n"
        "with claimed(Path(sys.argv[1])) as claim:\n"
        "    os._exit(9 if claim else 1)\n"
    )
    return subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode


def test_a_dead_process_holds_nothing_and_its_death_is_counted(tmp_path):
    assert hold_and_die(tmp_path / "run") == 9
    assert not is_held(tmp_path / "run")
    with claimed(tmp_path / "run") as mine:
        assert (mine.attempt, mine.deaths) == (2, 1)


def test_a_death_under_another_command_says_nothing_of_the_run(tmp_path):
    assert hold_and_die(tmp_path / "run") == 9
    with claimed(tmp_path / "run", "a later command") as mine:
        assert (mine.attempt, mine.deaths) == (2, 0)


def written(folder, **holder):
    folder.mkdir()
    (folder / "1.json").write_text(json.dumps(holder))
    return folder


def test_another_machine_holds_a_run_while_it_is_heard(tmp_path):
    folder = written(tmp_path / "run", place="elsewhere", pid=1, started="5")
    with claimed(folder) as mine:
        assert mine is None
    past = claims.SILENT_SECONDS + 5
    stamp = os.stat(folder / "1.json").st_mtime - past
    os.utime(folder / "1.json", (stamp, stamp))
    with claimed(folder) as mine:
        assert mine.attempt == 2


def test_a_process_number_that_was_given_again_holds_nothing(tmp_path):
    folder = written(tmp_path / "run", place=claims._place(), pid=os.getpid(), started="5")
    assert not is_held(folder)


def _race(folder, barrier, wins):
    barrier.wait()
    with claimed(folder) as mine:
        if mine is not None:
            wins.put(mine.attempt)
            barrier.wait()  # all have tried before it is given back
            return
    barrier.wait()


def test_of_several_that_see_a_stale_claim_one_takes_it(tmp_path):
    processes = multiprocessing.get_context("fork")
    folder = written(tmp_path / "run", place=claims._place(), pid=os.getpid(), started="5")
    barrier, wins = processes.Barrier(6), processes.Queue()
    racers = [processes.Process(target=_race, args=(folder, barrier, wins)) for _ in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
    assert wins.get(timeout=5) == 2
    assert wins.empty()


def test_a_living_claim_is_kept_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    with claimed(tmp_path / "run"):
        file = tmp_path / "run" / "1.json"
        os.utime(file, (1.0, 1.0))
        for _ in range(200):
            if file.stat().st_mtime > 1.0:
                break
            claims.threading.Event().wait(0.02)
        assert file.stat().st_mtime > 1.0
