"""A study that was killed three times and continued gives the same table as one that was not."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

from coltrain.reproduction.study import measuring
from coltrain.reproduction.study.document import as_document
from coltrain.reproduction.study.jobs import run_all
from coltrain.reproduction.study.results import study_findings
from coltrain.reproduction.study.tables import as_markdown, tables
from coltrain.training.events import StepResult

CPU = torch.device("cpu")
CHANGES = (
    ("seeds: 2", "seeds: 1"),
    ("train.steps: 2", "train.steps: 2\n  checkpoint.every: 1"),
    ("levels: [2, 1]", "levels: [3, 2]"),
)


def _die_at_step(folder, made, place):
    """In a process group of its own: train until the first step of a run, then kill the group."""
    os.setsid()
    steps = iter(range(1000))

    def on_event(run, event):
        if isinstance(event, StepResult) and next(steps) == place:
            os.killpg(0, signal.SIGKILL)

    for _ in run_all(folder, made, CPU, on_event=on_event):
        pass


def _die_while_measuring(folder, made):
    os.setsid()
    measuring.write_results = lambda *given: os.killpg(0, signal.SIGKILL)
    for _ in run_all(folder, made, CPU):
        pass


def killed(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join(1800)  # on a busy machine
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_study_killed_three_times_gives_the_table_of_one_that_was_not(small_study):
    folder, made = small_study(*CHANGES, folder="killed")
    killed(_die_at_step, folder, made, 1)  # the second step of the first run
    assert list(folder.path.glob("outcomes/*.json")) == []
    killed(_die_while_measuring, folder, made)
    assert list(folder.path.glob("outcomes/*.json")) == []
    killed(_die_at_step, folder, made, 1)  # the first is only measured: within the second one
    [first] = [folder.outcome(file.stem) for file in folder.path.glob("outcomes/*.json")]
    assert first.error == ""
    ended = list(run_all(folder, made, CPU))
    assert len(ended) == 3
    assert all(one.outcome.is_finished for one in ended)

    whole, same = small_study(*CHANGES, folder="whole")
    assert len(list(run_all(whole, same, CPU))) == 4
    found, expected = study_findings(folder, made), study_findings(whole, same)
    assert as_markdown(tables(found)) == as_markdown(tables(expected))
    assert json.dumps(as_document(found)) == json.dumps(as_document(expected))
    assert found.gap is not None
    for run in same.runs:
        assert folder.evaluation(run).read_bytes() == whole.evaluation(run).read_bytes()
