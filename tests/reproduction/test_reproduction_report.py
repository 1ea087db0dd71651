"""The reproduction report: asked and run, beside published results, findings, cost, what is missing."""

import json
import shutil

import numpy as np
import pytest
from report_reader import read_page
from run_on_paper import write_run

from coltrain.evaluation.published.scores import latest, published_scores
from coltrain.evaluation.results import Result, write_results
from coltrain.recipe import load_recipe
from coltrain.reproduction.report import report_json, report_markdown, write_report

REAL = ("train.steps=12", "train.epochs=null")


@pytest.fixture
def real_run(tmp_path):
    """A run on paper of a published recipe's base, evaluated on a task of ViDoRe."""

    def make(*overrides, recipe="colqwen2-v1.0", task="tatdqa", **facts):
        run = write_run(tmp_path / "real", recipe=load_recipe(recipe, [*REAL, *overrides]), **facts)
        values = np.random.default_rng(0).choice([0.0, 0.5, 1.0], size=60).tolist()
        per_query = {f"q{i}": {"nDCG@5": value} for i, value in enumerate(values)}
        result = Result(task, 60, 60, {"nDCG@5": float(np.mean(values))}, per_query)
        write_results(run / "evaluation" / "final.json", [result], step=12)
        return run

    return make


def test_every_deviation_from_the_published_recipe_has_its_reason(real_run):
    document = report_json(real_run(recipe="colqwen2-v100"))
    assert document["published_recipe"] == "colqwen2-v0.1"
    rows = {row["key"]: row for row in document["deviations"] if "key" in row}
    assert rows["precision.compute"]["asked for here"] == "float16"
    assert "a V100 has no bfloat16 units" in rows["precision.compute"]["reason"]
    assert rows["train.steps"]["reason"] == "set on the command line"
    assert "batch.chunk_size" not in rows  # it cannot move the result


def test_a_recipe_without_a_published_base_deviates_from_none(finished_run):
    document = report_json(finished_run)
    assert document["published_recipe"] is None
    assert "No published model starts from this base" in document["asked"]
    assert document["published"]["verdict"].startswith(
        "There is no published model to compare with"
    )


def test_results_stand_beside_published_ones_with_interval_and_verdict(real_run):
    run = real_run()
    page = read_page(write_report(run))
    rows = page.tables["nDCG@5 × 100, here and published"]
    assert rows[0] == [
        "", "queries", "here", "published", "difference", "95% interval", "verdict",
    ]  # fmt: skip
    assert rows[1][0] == "VidoreTatdqaRetrieval"
    published = latest(published_scores("colqwen2-v1.0"))["VidoreTatdqaRetrieval"]
    assert rows[1][3] == f"{100 * published.measures['nDCG@5']:.1f}"
    assert rows[1][6] == "below"
    assert " to " in rows[1][5]
    document = report_json(run)
    (task,) = document["published"]["comparison"]["tasks"]
    assert task["right"] == published.measures["nDCG@5"]
    assert document["published"]["verdict"].startswith("VidoreTatdqaRetrieval: ")


def test_what_cannot_be_compared_says_why_and_what_is_published(real_run):
    document = report_json(real_run(recipe="colqwen2-v0.1", task="own"))
    assert document["published"]["comparison"] is None
    assert "87.3" in document["published"]["verdict"]
    assert "own" in document["published"]["verdict"]


def test_a_description_is_shown_where_it_is_true(tmp_path, real_run):
    untrue = report_json(real_run("optimizer.learning_rate=1e-3", recipe="colqwen2-v0.1"))
    assert "as published" not in untrue["description"]
    assert untrue["description"].startswith("A variation of colqwen2-v0.1: ")
    assert "optimizer.learning_rate = 0.001" in untrue["description"].replace("1e-3", "0.001")
    recipe = load_recipe("tiny", ["data.train=[./elsewhere]"])
    elsewhere = report_json(write_run(tmp_path / "elsewhere", recipe=recipe, of=60))
    assert "draws itself" not in elsewhere["description"]
    assert "data.train = [./elsewhere]" in elsewhere["description"]
    whole = report_json(write_run(tmp_path / "whole", recipe=load_recipe("tiny"), of=60))
    assert whole["description"] == load_recipe("tiny").description
    own = load_recipe("tiny", ["train.steps=12", "description=mine"])
    assert report_json(write_run(tmp_path / "own", recipe=own))["description"] == "mine"


def test_what_was_run_otherwise_is_told(tmp_path):
    recipe = load_recipe("tiny", ["train.steps=12", "batch.negatives=2"])
    run = write_run(
        tmp_path / "run",
        recipe=recipe,
        steps=5,
        state="stopped",
        stopped_by="SIGKILL",
        deviations=[{"what": "batch.negatives = 2", "why": "groups of 2"}],
        precision={"compute": "float16", "skipped_steps": 2},
    )
    rows = {row["what"]: row for row in report_json(run)["deviations"]}
    assert rows["batch.negatives"]["here"] == "2"
    assert (rows["steps"]["expected"], rows["steps"]["here"]) == ("12", "5")
    assert rows["steps"]["reason"] == "SIGKILL"
    assert rows["steps that updated the weights"]["here"] == "3"
    lost = rows["train data, small-train"]
    assert (lost["here"], lost["reason"]) == ("4 left out", "query is empty: 4")


@pytest.mark.parametrize(
    ("at_loss", "words", "not_said"),
    [
        ([False, False], ["a gradient overflowed", "scale was halved"], "loss"),
        ([True, True], ["the loss was not finite", "the scale stayed"], "gradient"),
        ([True, False, True], ["in 2 the loss was not finite", "in 1 a gradient overflowed"], "??"),
        ([False], ["does not say of each"], "halved"),  # one of two lines was lost
    ],
)
def test_why_steps_were_skipped_is_told(tmp_path, at_loss, words, not_said):
    number = max(2, len(at_loss))
    precision = {"compute": "float16", "skipped_steps": number}
    run = write_run(tmp_path / "run", steps=5, precision=precision)
    with (run / "metrics.jsonl").open("a") as file:
        for step, where in enumerate(at_loss, start=6):
            line = {"kind": "skipped-step", "step": step, "at_loss": where, "seconds": 1.0}
            file.write(json.dumps(line) + "\n")
    rows = {row["what"]: row for row in report_json(run)["deviations"]}
    # The doctor counts such lines, too: each of these is more than one step in twenty.
    assert "float16-without-scaling" in [one["id"] for one in report_json(run)["findings"]]
    said = rows["steps that updated the weights"]["reason"]
    assert all(word in said for word in words)
    assert not_said not in said


def test_the_doctors_findings_are_in_the_report(tmp_path):
    recipe = load_recipe("tiny", ["train.steps=12", "batch.negatives=2"])
    run = write_run(tmp_path / "run", recipe=recipe)
    document = report_json(run)
    (first, *_) = document["findings"]
    assert first["id"] == "negatives-not-shared"
    page = read_page(write_report(run))
    assert first["title"] in page.text
    assert first["way_out"] in page.text
    assert first["title"] in report_markdown(run)
    assert "checks" in document["findings_summary"]


def test_the_cost_says_what_was_not_recorded(tmp_path):
    device = {"type": "cuda", "name": "Tesla V100", "system": "Linux"}
    run = write_run(tmp_path / "run", device=device, peak_memory_gib=14.25, seconds=7200.0)
    cost = report_json(run)["cost"]
    assert cost["time in all"] == "2 h"
    assert cost["time of training steps"] == "6.0 s"
    assert cost["GPU hours"] == "2"
    assert cost["peak GPU memory"] == "14.25 GiB"
    assert cost["device"] == "Tesla V100"
    assert cost["energy"] == "not recorded"


def test_files_that_are_not_there_are_named(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("metrics.jsonl", "evaluation/final.json", "evaluation/before.json"):
        (run / name).unlink()
    missing = " ".join(report_json(run)["missing"])
    for name in ("metrics.jsonl", "final.json", "before.json", "model/", "moments", "kernels"):
        assert name in missing
    shutil.rmtree(run / "evaluation")
    page = read_page(write_report(run))
    assert "evaluation/final.json is not there: scores after training." in page.text


def test_it_can_be_run_again_with_the_same_versions(tmp_path):
    versions = {
        "python": "3.11.7",
        "coltrain": "0.1.0",
        "torch": "2.14.1",
        "bitsandbytes": "0.50.2",
    }
    run = write_run(tmp_path / "run", versions=versions)
    document = report_json(run)
    assert document["again_with"] == ["pip install coltrain==0.1.0 torch==2.14.1"]
    assert document["again"][0].startswith("coltrain train tiny train.steps=12 ")
    assert "on Python 3.11.7" in document["again_remark"]
    eight_bit = load_recipe("tiny", ["train.steps=12", "optimizer.name=adamw_8bit"])
    run = write_run(tmp_path / "eight", recipe=eight_bit, versions=versions)
    assert "bitsandbytes==0.50.2" in report_json(run)["again_with"][0]


def test_page_twin_and_json_say_the_same(real_run):
    run = real_run()
    page, twin, document = read_page(write_report(run)), report_markdown(run), report_json(run)
    words = " ".join(twin.replace("\\", "").split())
    for text in (document["asked"], document["published"]["verdict"], document["findings_summary"]):
        assert text in page.text
        assert " ".join(text.split()) in words
    assert json.loads(json.dumps(document)) == document


def test_the_command_prints_the_page_the_twin_or_the_document(coltrain, tmp_path):
    run = write_run(tmp_path / "run")
    assert coltrain("report", "run").out == "run/report.html\n"
    assert coltrain("report", "run", "--markdown").out == (run / "report.md").read_text()
    assert json.loads(coltrain("report", "run", "--json").out)["title"] == "tiny"
    found = coltrain("report", "nowhere")
    assert (found.code, found.out) == (2, "")
    assert "RunError [not-a-run]" in found.err


def test_a_record_of_a_study_that_is_cut_off_is_one_clear_error(coltrain, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text('{"study": ')
    found = coltrain("report", "study")
    assert (found.code, found.out) == (2, "")
    assert "RunError [broken-run-file]" in found.err
