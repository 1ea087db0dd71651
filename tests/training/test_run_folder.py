import json

import pytest

from coltrain.errors import RunError
from coltrain.evaluation.results import Result, read_results
from coltrain.training.run_folder import RunFolder, is_run, write_json

FACTS = {"state": "running", "result_hash": "0123456789abcdef"}


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def make_run(folder):
    run = RunFolder(folder)
    run.create(FACTS, replace=False)
    return run


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    make_run(tmp_path / "runs" / "first")
    assert names(tmp_path / "runs" / "first") == ["evaluation", "metrics.jsonl", "run.json"]
    assert json.loads((tmp_path / "runs/first/run.json").read_text()) == {"format": 1, **FACTS}


def test_an_empty_folder_is_taken(tmp_path):
    make_run(tmp_path)
    assert is_run(tmp_path)


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_with_anything_else_is_refused_and_left_alone(tmp_path, replace):
    make_run(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    for attempt in (RunFolder(tmp_path).check, lambda **k: RunFolder(tmp_path).create(FACTS, **k)):
        with pytest.raises(RunError) as caught:
            attempt(replace=replace)
        assert str(caught.value) == (
            "RunError [folder-not-empty]: the output folder holds something that is not a run of "
            "coltrain.\n"
            f"  where     {tmp_path}\n"
            "  received  thesis.tex\n"
            "  expected  a new or empty folder\n"
            "  try       another --out"
        )
    assert names(tmp_path) == ["evaluation", "metrics.jsonl", "run.json", "thesis.tex"]


@pytest.mark.parametrize("content", [None, "{}", "[1]", "7", "{broken", '{"loss": 1}'])
def test_files_with_names_of_ours_are_no_run_without_its_record(tmp_path, content):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_text("of somebody")
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert not is_run(tmp_path)
    with pytest.raises(RunError, match=r"\[folder-not-empty\]"):
        RunFolder(tmp_path).create(FACTS, replace=True)
    assert (tmp_path / "model" / "weights.bin").exists()


def test_an_own_run_is_replaced_only_when_asked(tmp_path):
    make_run(tmp_path).append([{"kind": "step"}])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_model.safetensors").touch()
    (tmp_path / "report.html").touch()
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path).create(FACTS, replace=False)
    assert str(caught.value) == (
        "RunError [run-exists]: the output folder holds a run already.\n"
        f"  where     {tmp_path}\n"
        f"  try       another --out, --replace to delete that run, or coltrain resume {tmp_path} to "
        "go on with it"
    )
    assert (tmp_path / "model" / "adapter_model.safetensors").exists()
    RunFolder(tmp_path).create({**FACTS, "second": True}, replace=True)
    assert names(tmp_path) == ["evaluation", "metrics.jsonl", "run.json"]
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert json.loads((tmp_path / "run.json").read_text())["second"]


def test_what_is_left_of_a_run_killed_at_its_very_start_is_taken(tmp_path):
    (tmp_path / "run.json.part").write_text("{half")
    make_run(tmp_path)
    assert is_run(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(RunError, match=r"\[not-a-folder\]: --out names a file") as caught:
        RunFolder(tmp_path / "notes").check(replace=True)
    assert caught.value.where == str(tmp_path / "notes")


def test_a_folder_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(RunError) as caught:
        make_run(tmp_path / "notes" / "run")
    assert str(caught.value) == (
        "RunError [cannot-write]: the run's folder cannot be written.\n"
        f"  where     {tmp_path / 'notes' / 'run'}\n"
        "  received  Not a directory\n"
        "  try       another --out"
    )


def test_a_name_too_long_for_the_disk_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(RunError, match=r"\[cannot-write\]"):
        RunFolder(tmp_path / ("long" * 100)).check(replace=False)


def test_facts_add_up_in_the_record(tmp_path):
    run = make_run(tmp_path)
    run.record(state="finished", seconds=1.5)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts == {"format": 1, **FACTS, "state": "finished", "seconds": 1.5}
    assert RunFolder(tmp_path).facts == facts


def test_a_record_is_replaced_whole(tmp_path):
    write_json(tmp_path / "run.json", {"state": "running"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "run.json", {"state": object()})
    assert json.loads((tmp_path / "run.json").read_text()) == {"state": "running"}


def test_metrics_are_lines_and_half_a_line_is_not_read(tmp_path):
    run = make_run(tmp_path)
    run.append([{"kind": "step", "step": 1}])
    run.append([{"kind": "evaluation", "step": 1}, {"kind": "evaluation", "step": 1}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "st')
    assert [line["kind"] for line in run.lines()] == ["step", "evaluation", "evaluation"]


def test_an_evaluation_is_a_document_of_results_with_its_step(tmp_path):
    run = make_run(tmp_path)
    result = Result("pages", 1, 2, {"nDCG@5": 0.5}, {"q": {"nDCG@5": 0.5}})
    run.save_evaluation("step-000020", 20, [result])
    file = tmp_path / "evaluation" / "step-000020.json"
    assert read_results(file) == [result]
    assert json.loads(file.read_text())["step"] == 20
