"""Runs of a study: each once, failures recorded, a killed study continued."""

import json
import os
import signal

import pytest
import torch

from coltrain.errors import RunError, UsageError
from coltrain.reproduction.study import hours
from coltrain.reproduction.study.claims import claimed
from coltrain.reproduction.study.document import as_document
from coltrain.reproduction.study.folder import StudyFolder
from coltrain.reproduction.study.jobs import run_all
from coltrain.reproduction.study.results import study_findings, write_results
from coltrain.reproduction.study.running import work
from coltrain.training.events import StepResult
from coltrain.training.interruption import Interrupted

CPU = torch.device("cpu")
ONE = ("seeds: 2", "seeds: 1")


def trained(folder, made, **more):
    return list(run_all(folder, made, CPU, **more))


@pytest.mark.slow
def test_every_run_is_trained_once_and_the_study_says_what_came_out(small_study):
    folder, made = small_study()
    ended = trained(folder, made)
    assert len(ended) == 8
    assert all(one.outcome.is_finished for one in ended)
    # All cells of the first seed come first.
    assert [one.run.seed for one in ended] == [0] * 4 + [1] * 4
    stamps = {file: file.stat().st_mtime_ns for file in folder.path.glob("runs/*/run.json")}
    assert len(stamps) == 8
    assert trained(folder, made) == []
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    found = study_findings(folder, made)
    assert found.method == "exact"
    assert found.num_queries == 12
    assert found.remainder == pytest.approx(0, abs=1e-12)
    assert found.gap.value != 0
    for file in write_results(folder, found, html=True):
        assert file.is_file()
    document = json.loads((folder.path / "results.json").read_text())
    assert document == json.loads(json.dumps(as_document(found)))
    tex = (folder.path / "table.tex").read_text()
    assert r"global $\to$ 2" in tex


@pytest.mark.slow
def test_a_run_s_score_is_that_of_its_own_folder(small_study):
    folder, made = small_study(ONE)
    trained(folder, made)
    found = dict(study_findings(folder, made).cells)
    for run in made.runs:
        final = json.loads(folder.evaluation(run).read_text())
        assert found[run.cell].value == pytest.approx(final["results"][0]["measures"]["nDCG@5"])


@pytest.mark.slow
@pytest.mark.reference
def test_two_cells_with_a_common_run_share_it_with_a_study_of_more_seeds(small_study):
    folder, made = small_study(ONE)
    trained(folder, made)
    _, more = small_study(("seeds: 2", "seeds: 3"))
    assert [one.run.seed for one in trained(folder, more)] == [1] * 4 + [2] * 4
    assert folder.begin(more) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("0.02", "0.01"), "overrides: optimizer.learning_rate"),
        (("levels: [2, 1]", "levels: [2, 3]"), "factors: length"),
        (("data: [small-test]", "data: [small-train]"), "evaluation: data"),
    ],
)
def test_a_study_that_changed_says_what(small_study, change, words):
    small_study()
    with pytest.raises(RunError, match=r"\[study-changed\]") as caught:
        small_study(change)
    assert words in str(caught.value)


def test_data_that_changed_are_named(small_study, small_data):
    from small_pages import small_collection

    small_study()
    small_data["small-test"] = small_collection("small-test", 12, first=300)
    with pytest.raises(RunError, match=r"the data: .*small-test"):
        small_study()


def test_a_folder_with_something_else_is_left_alone(small_study, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"\[folder-not-empty\]"):
        small_study(folder="other")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_failed_run_is_recorded_and_tried_again_by_the_next_command(small_study, monkeypatch):
    folder, made = small_study(ONE)
    broken = made.runs[1].identity
    from coltrain.reproduction.study import running

    really = running._prepared

    def prepared(run, path, device, *more):
        if run.identity == broken:
            raise RuntimeError("out of luck")
        return really(run, path, device, *more)

    monkeypatch.setattr(running, "_prepared", prepared)
    ended = trained(folder, made)
    assert [one.outcome.is_finished for one in ended] == [True, False, True, True]
    found = study_findings(folder, made)
    assert found.failed == ((str(made.runs[1].cell), 0, "RuntimeError: out of luck"),)
    assert found.gap is None  # it was an end
    assert found.shares[0].part is None
    monkeypatch.setattr(running, "_prepared", really)
    assert [one.run.identity for one in trained(folder, made)] == [broken]
    assert study_findings(folder, made).failed == ()


def test_a_run_that_others_work_on_is_left_to_them(small_study):
    folder, made = small_study(ONE)
    other = made.runs[0]
    with claimed(folder.claim(other)) as claim:
        assert claim is not None
        first = next(run_all(folder, made, CPU))
        assert first.run.identity == made.runs[1].identity


def test_a_run_at_which_workers_die_is_given_up(small_study):
    folder, made = small_study(ONE)
    claims = folder.claim(made.runs[0])
    claims.mkdir(parents=True)
    for number in (1, 2):
        dead = {"place": "elsewhere", "pid": 1, "started": "1", "command": "mine"}
        (claims / f"{number}.json").write_text(json.dumps(dead))
        os.utime(claims / f"{number}.json", (1, 1))
    first = next(work(folder, made, CPU, again={}, command="mine"))
    assert "2 processes died at this run" in first.outcome.error


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(small_study):
    folder, made = small_study(ONE, ("train.steps: 2", "checkpoint.every: 1"))
    longest = next(run for run in made.runs if run.recipe.train.steps == 2)

    class Killed(BaseException):
        pass

    def kill(run, event):
        if run.identity == longest.identity and isinstance(event, StepResult) and event.step == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(folder, made, on_event=kill)
    steps = []

    def note(run, event):
        if run.identity == longest.identity and isinstance(event, StepResult):
            steps.append(event.step)

    trained(folder, made, on_event=note)
    assert steps == [2]  # after the checkpoint of the first


def test_a_large_study_asks_with_count_and_hours(small_study, monkeypatch):
    folder, made = small_study()
    assert hours.refuse_too_large(folder, made, CPU, 1).basis == "two steps taken here"
    monkeypatch.setattr(hours, "MOST_RUNS", 7)
    with pytest.raises(UsageError, match=r"\[study-too-large\]") as caught:
        hours.refuse_too_large(folder, made, CPU, 2)
    assert "8 runs left, of 4 cells: about" in str(caught.value)
    assert "minutes with 2 at a time (from two steps taken here)" in str(caught.value)
    folder.record(made.runs[0].identity, seconds=7200.0)
    found = hours.hours_left(folder, made, CPU, 2)
    assert found.hours == pytest.approx(7)
    assert found.basis == "1 runs that ended"


def test_a_folder_begun_twice_is_one(small_study):
    folder, made = small_study()
    assert StudyFolder(folder.path).begin(made) == []


@pytest.mark.slow
def test_a_signal_stops_a_study_so_that_it_goes_on_later(small_study):
    folder, made = small_study(ONE)

    def ask(run, event):
        if isinstance(event, StepResult):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"):
        trained(folder, made, on_event=ask)
    facts = json.loads((folder.run(made.runs[0]) / "run.json").read_text())
    assert (facts["state"], facts["stopped_by"]) == ("interrupted", "SIGTERM")
    assert folder.outcome(made.runs[0].identity) is None
    assert len(trained(folder, made)) == 4


@pytest.mark.slow
@pytest.mark.reference
def test_shared_visual_tokens_move_no_score(small_study):
    alone, made = small_study(("  length: {key: train.steps, levels: [2, 1]}\n", ""))
    trained(alone, made)
    changes = (
        ("  length: {key: train.steps, levels: [2, 1]}\n", ""),
        ("seeds: 2", "seeds: 2\nshare_features: true"),
    )
    folder, sharing = small_study(*changes, folder="sharing")
    assert [run.identity for run in sharing.runs] == [run.identity for run in made.runs]
    trained(folder, sharing)
    found = study_findings(folder, sharing)
    # 2 cells with 2 seeds, 2 steps of 8: the rows of a seed are the same in both cells.
    assert found.shared["runs"] == 4
    assert found.shared["pages_found"] + found.shared["pages_computed"] == 4 * 16
    assert found.shared["pages_found"] >= 2 * 16
    assert as_document(found)["shared_features"] == found.shared
    for run in made.runs:
        one, other = (
            json.loads(place.evaluation(run).read_text())["results"][0]["per_query"]
            for place in (alone, folder)
        )
        assert one == other
    assert study_findings(alone, made).shared is None
