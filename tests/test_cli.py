import contextlib
import io
import json
import subprocess
import sys

import datasets
import numpy as np
import pytest
from data_folders import write_broken_data, write_corpus
from small_pages import small_page
from typed_command import Finished

from coltrain import cli
from coltrain.evaluation.results import read_results, results_from_json
from coltrain.recipe import load_recipe
from coltrain.training import self_check as self_check_module
from coltrain.training.ranks import self_check as rank_check_module
from coltrain.training.ranks.self_check import Case, RankCheck, RankComparison
from coltrain.training.self_check import Comparison, MemoryCheck, SelfCheck


@pytest.fixture(autouse=True, scope="module")
def _cache_of_datasets(tmp_path_factory):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of small pages with `train` and `test`."""
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder / "train", range(12))
    write_corpus(folder / "test", range(100, 105))
    return folder


SHORT = ("batch.global_size=4", "batch.chunk_size=2", "train.steps=2", "eval.every=1")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of two steps on the small folder, by the command; and what the command printed."""
    run = tmp_path_factory.mktemp("runs") / "first"
    sources = (f"data.train=[{data}/train]", f"eval.data=[{data}/test]")
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        command = ["coltrain", "train", "tiny", *sources, *SHORT, "--out", str(run), "--json"]
        patch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert not left.value.code, err.getvalue()
    return run, Finished(0, out.getvalue(), err.getvalue())


# What the user typed wrongly -------------------------------------------------------------------


def refused(finished, *words):
    """One clear message on stderr, nothing on stdout, exit code 2."""
    assert finished.code == 2, finished.err
    assert finished.out == ""
    assert "Traceback" not in finished.err
    assert finished.err.count("Error") == 1
    for word in words:
        assert word in finished.err


RECIPES = {
    "broken.yaml": "name: x\nlora: [1,\nloss: }",
    "empty.yaml": "",
    "list.yaml": "- name\n- model\n",
    "text.yaml": "tiny",
}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tinny"], ["RecipeError [unknown-recipe]", "tinny", "try       tiny"]),
        (["colqwen2-v1"], ["RecipeError [unknown-recipe]", "colqwen2-v1.0"]),
        (["missing.yaml"], ["RecipeError [unknown-recipe]", "missing.yaml", "No such file"]),
        (["broken.yaml"], ["RecipeError [broken-yaml]", "broken.yaml, line 3"]),
        (["empty.yaml"], ["RecipeError [empty-recipe]", "empty.yaml"]),
        (["list.yaml"], ["RecipeError [recipe-not-a-mapping]", "a list"]),
        (["text.yaml"], ["RecipeError [recipe-not-a-mapping]"]),
        (["tiny", "loss.temprature=1"], ["[unknown-key]", "loss.temperature", "command line"]),
        (["tiny", "train.steps=many"], ["[invalid-recipe]", "train.steps", "a whole number"]),
        (["tiny", "loss.normalize=1"], ["[invalid-recipe]", "true or false"]),
        (["tiny", "lora.dropout=1"], ["[invalid-recipe]", "lora.dropout", "below 1"]),
        (["tiny", "train.steps"], ["[bad-override]", "key.path=value"]),
        (["tiny", "batch.negatives=5"], ["[batch-not-divisible]", "32"]),
        (
            ["tiny", "lora.r=0", "loss.temprature=1", "train.seed=x"],
            ["3 mistakes", "lora.r", "loss.temperature", "train.seed"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("command", ["train", "recipes show"])
def test_a_recipe_that_cannot_be_used_is_one_clear_message(
    coltrain, tmp_path, command, arguments, words
):
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text)
    out = ["--out", "run"] if command == "train" else []
    refused(coltrain(*command.split(), *arguments, *out), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "key",
    [
        "batch.accumulation",
        "batch.accumulation_steps",
        "train.gradient_accumulation_steps",
        "train.grad_accum",
        "optimizer.accumulate_grad_batches",
    ],
)
def test_accumulation_is_refused_with_a_pointer_to_chunks(coltrain, key):
    refused(
        coltrain("train", "tiny", f"{key}=4", "--out", "run"),
        f"[unknown-key]: {key} is not a key of a recipe",
        "try       batch.chunk_size: chunks keep every negative of the global batch, accumulation "
        "does not",
    )


@pytest.fixture
def broken_data(tmp_path):
    """Folders that cannot be used, each in its own way."""
    return write_broken_data(tmp_path / "bad")


BAD_DATA = [
    ("bad/missing", ["[data-not-found]", "bad/missing"]),
    ("bad/empty", ["[missing-file]", "no parquet"]),
    ("bad/no-image", ["[missing-column]", "image", "query, page"]),
    ("bad/no-rows", ["[empty-split]"]),
    ("bad/no-qrels", ["[missing-file]", "qrels"]),
    ("bad/unknown-id", ["[unknown-id]", "p77"]),
    ("bad/no-text", ["[missing-column]", "query_id, words"]),
    ("bad/not-images", ["[not-an-image]"]),
    ("vidore/colpali_train_set", ["[hub-offline]", "vidore/colpali_train_set", "hf download"]),
    ("tiny:validation", ["[unknown-split]", "tiny:train"]),
]


@pytest.mark.parametrize(("source", "words"), BAD_DATA, ids=[source for source, _ in BAD_DATA])
def test_training_data_that_cannot_be_used_are_one_clear_message(
    coltrain, broken_data, tmp_path, source, words
):
    source = source.replace("bad/", "./bad/")
    refused(
        coltrain("train", "tiny", f"data.train=[{source}]", "--out", "run"), "DataError", *words
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("source", "words"), BAD_DATA, ids=[source for source, _ in BAD_DATA])
def test_evaluation_data_that_cannot_be_used_are_one_clear_message(
    coltrain, broken_data, source, words
):
    source = source.replace("bad/", "./bad/")
    refused(coltrain("eval", "tiny", "--on", source, "--json"), "DataError", *words)


@pytest.mark.slow
def test_data_without_a_single_query_cannot_be_trained_on_nor_measured(coltrain, broken_data):
    source = "./bad/no-query"
    refused(coltrain("train", "tiny", f"data.train=[{source}]", "--out", "run"), "DataError")
    words = ["DataError [nothing-judged]", "bad/no-query", "1 pages, 0 queries"]
    refused(coltrain("eval", "tiny", "--on", source), *words)
    refused(coltrain("train", "tiny", f"eval.data=[{source}]", "--out", "run"), *words)


def test_a_split_that_is_not_there_is_named(coltrain, broken_data):
    override = "data.train=[{path: ./bad/two-splits, split: test}]"
    refused(coltrain("train", "tiny", override, "--out", "run"), "[unknown-split]", "train")


def test_a_base_on_the_hub_that_cannot_be_reached_says_how_to_get_it(coltrain, data):
    arguments = ("model.base=vidore/colqwen2-base", f"data.train=[{data}/train]", *SHORT)
    finished = coltrain("train", "tiny", *arguments, "--out", "run")
    refused(finished, "ModelError [hub-offline]", "hf download vidore/colqwen2-base")


def test_a_published_recipe_offline_says_which_data_are_missing(coltrain):
    finished = coltrain("train", "colqwen2-v1.0", "--out", "run")
    refused(finished, "DataError [hub-offline]", "vidore/colpali_train_set")


def test_a_folder_of_somebody_else_is_left_alone(coltrain, data, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years")
    arguments = ("train", "tiny", f"data.train=[{data}/train]", *SHORT, "--out", "thesis")
    refused(coltrain(*arguments), "RunError [folder-not-empty]", "chapter1.tex")
    refused(coltrain(*arguments, "--replace"), "RunError [folder-not-empty]", "chapter1.tex")
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter1.tex"]
    refused(coltrain(*arguments[:-1], "thesis/chapter1.tex"), "[not-a-folder]")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "tiny"], ["UsageError [missing-out]", "--out FOLDER"]),
        (
            ["train", "tiny", "precision.compute=float16", "lora.dtype=bfloat16", "--out", "r"],
            [
                "RunError [trained-in-half]",
                "in bfloat16, first language_model",
                "lora.dtype=float32",
            ],
        ),
        (
            [
                *("train", "tiny", "precision.compute=float16", "--out", "r"),
                "precision.keep_float32=[language_model.layers.1.mlp.down]",
            ],
            ["ModelError [no-such-module]", "try       language_model.layers.1.mlp.down_proj"],
        ),
        (
            ["train", "tiny", "loss.name=pairwise_hard_negatives", "--out", "r"],
            ["[no-hard-negatives]"],
        ),
        (["train", "tiny", "--out", "r", "--device", "toaster"], ["[unknown-device]", "toaster"]),
        (["train", "tiny", "--out", "r", "--device", "meta"], ["[unknown-device]", "meta"]),
        (["train", "tiny", "--out", "r", "--device", "cuda:99"], ["[no-such-device]", "cuda:99"]),
        (["train", "tiny", "--out", "r", "--stop-signal", "SIGKILL"], ["[unknown-signal]"]),
        (["eval", "tinny", "--on", "tiny"], ["ModelError [model-not-found]", "tinny"]),
        (["eval", "./nowhere", "--on", "tiny"], ["ModelError [model-not-found]"]),
        (["eval", ".", "--on", "tiny"], ["ModelError [not-a-model]"]),
        (["eval", "vidore/colqwen2-v1.0", "--on", "tiny"], ["ModelError [hub-offline]"]),
        (["eval", "tiny", "--on", ""], ["UsageError [not-a-source]", "--on"]),
        (["eval", "tiny", "--on", "tiny", "--dtype", "float8"], ["[unknown-dtype]", "bfloat16"]),
        (
            ["eval", "tiny", "--on", "tiny", "--template", "engine-0.3.7"],
            ["[unknown-template]", "try       engine-0.3.12"],
        ),
        (["encode", "tiny", "--out", "x.npz"], ["[nothing-to-encode]", "--pages or --queries"]),
        (
            ["encode", "tiny", "--queries", __file__, "--out", "x.npz", "--other-template"],
            ["[other-template-without-name]", "--template NAME --other-template"],
        ),
        (["encode", "tiny", "--pages", "--out", "x.npz"], ["[nothing-to-encode]", "--pages"]),
        (["encode", "tiny", "--pages", "no.png", "--out", "x.npz"], ["[file-not-found]", "no.png"]),
        (["encode", "tiny", "--pages", ".", "--out", "x.npz"], ["[not-an-image]"]),
        (["encode", "tiny", "--queries", "no.txt", "--out", "x.npz"], ["[file-not-found]"]),
        (["verify"], ["[nothing-to-verify]", "coltrain verify --self"]),
        (["verify", "R", "--ranks", "2"], ["[option-not-read]", "--self --ranks N"]),
        (["verify", "--self", "--global-batch", "8"], ["[option-not-read]", "--ranks N --global"]),
        (["recipes", "diff", "tiny", "tinny"], ["[unknown-recipe]", "tiny"]),
        (["resume", "nowhere"], ["[not-a-run]", "nowhere"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_a_command_cannot_work_with_is_one_clear_message(coltrain, tmp_path, arguments, words):
    refused(coltrain(*arguments), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], ["Missing argument", "coltrain train --help"]),
        (["train", "tiny", "--ouch", "run"], ["No such option", "--ouch"]),
        (["train", "tiny", "--out"], ["--out", "requires an argument"]),
        (["eval", "tiny"], ["Missing option", "--on"]),
        (["eval", "tiny", "--on", "tiny", "--max-visual-tokens", "few"], ["--max-visual-tokens"]),
        (["eval", "tiny", "--on", "tiny", "--max-visual-tokens", "3"], ["--max-visual-tokens"]),
        (["encode", "tiny"], ["Missing option", "--out"]),
        (["encode", "tiny", "--out", "x", "--positions", "rope"], ["--positions", "sequential"]),
        (["encode", "tiny", "--out", "x", "--image-backend", "gd"], ["--image-backend", "pil"]),
        (["encode", "tiny", "--out", "x", "--alpha", "black"], ["--alpha", "white"]),
        (["recipes", "diff", "tiny"], ["Missing argument"]),
        (["trian"], ["No such command", "trian"]),
        (["demo", "--seed", "-1"], ["--seed"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_command_typed_wrongly_is_one_clear_message(coltrain, arguments, words):
    refused(coltrain(*arguments), *words)


@pytest.mark.parametrize("arguments", [[], ["recipes"]])
def test_no_command_shows_what_there_is(coltrain, arguments):
    finished = coltrain(*arguments)
    assert finished.code == 2
    assert "Commands:" in finished.out + finished.err


def test_stopping_a_command_is_no_success(coltrain, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("coltrain.recipe.list_rows", stop)
    finished = coltrain("recipes", "list")
    assert finished.code == 130
    assert "Traceback" not in finished.err


# What works --------------------------------------------------------------------------------------


def test_help_names_every_command(coltrain):
    finished = coltrain("--help")
    assert finished.code == 0
    for name in ("train", "resume", "eval", "encode", "verify", "demo", "recipes"):
        assert f"\n  {name} " in finished.out


def test_recipes_are_listed(coltrain):
    finished = coltrain("recipes", "list", "--json")
    assert finished.code == 0
    listed = [row["recipe"] for row in json.loads(finished.out)["recipes"]]
    assert listed == [
        "colqwen2-hard-negatives",
        "colqwen2-v0.1",
        "colqwen2-v1.0",
        "colqwen2-v100",
        "colqwen2-v100-paged-adamw-8bit",
        "tiny",
    ]
    table = coltrain("recipes", "list").out
    assert all(f"│ {name} " in table for name in listed)


def test_a_recipe_that_is_shown_is_itself_a_recipe(coltrain, tmp_path):
    finished = coltrain("recipes", "show", "colqwen2-v0.1", "train.seed=3")
    assert finished.code == 0
    (tmp_path / "shown.yaml").write_text(finished.out)
    shown = load_recipe(tmp_path / "shown.yaml")
    expected = load_recipe("colqwen2-v0.1", ["train.seed=3"])
    assert shown.model_dump(exclude={"sources"}) == expected.model_dump(exclude={"sources"})
    again = json.loads(coltrain("recipes", "show", "shown.yaml", "--json").out)
    assert again["recipe"]["train"]["seed"] == 3
    assert len(again["result_hash"]) == len(again["full_hash"]) == 16


def test_differences_of_recipes_say_what_moves_the_result(coltrain, tmp_path):
    text = coltrain("recipes", "show", "tiny", "batch.chunk_size=2", "train.seed=1").out
    (tmp_path / "other.yaml").write_text(text)
    found = json.loads(coltrain("recipes", "diff", "tiny", "other.yaml", "--json").out)
    keys = {row["key"]: row["affects_result"] for row in found["differences"]}
    assert keys["train.seed"] is True
    assert keys["batch.chunk_size"] is False
    assert coltrain("recipes", "diff", "tiny", "tiny").out == "no difference\n"


def test_training_prints_one_document_and_leaves_a_run(trained):
    run, done = trained
    document = json.loads(done.out)
    assert document["run"] == str(run)
    (result,) = results_from_json(document)
    assert (result.num_queries, result.num_pages) == (5, 5)
    assert set(result.per_query) == {f"q{number}" for number in range(100, 105)}
    assert read_results(run / "evaluation" / "final.json") == [result]
    names = {entry.name for entry in run.iterdir()}
    assert {"run.json", "metrics.jsonl", "model", "evaluation"} <= names
    evaluations = {file.name for file in (run / "evaluation").iterdir()}
    assert {"before.json", "step-000001.json", "final.json"} <= evaluations
    assert list((run / "model").glob("*.safetensors"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == [
        "evaluation",
        "step",
        "evaluation",
        "step",
        "evaluation",
    ]


def test_progress_goes_to_stderr(trained):
    run, done = trained
    assert "step 2/2" in done.err
    assert "pages/s" in done.err
    assert done.err.count("nDCG@5") >= 3
    assert done.err.endswith(f"run: {run}\n")
    assert "Traceback" not in done.err
    assert "Warning" not in done.err


@pytest.mark.slow
def test_training_prints_a_table_and_replaces_a_run_when_asked(coltrain, data):
    arguments = ("train", "tiny", f"data.train=[{data}]", f"eval.data=[{data}]", *SHORT)
    first = coltrain(*arguments, "--out", "run")
    assert first.code == 0, first.err
    assert "scores x 100" in first.out
    assert "│ nDCG@5 │" in first.out.replace("┃", "│")
    refused(coltrain(*arguments, "--out", "run"), "[run-exists]", "--replace")
    assert coltrain(*arguments, "--out", "run", "--replace").code == 0


@pytest.mark.slow
def test_two_data_sets_of_one_name_both_get_a_row(coltrain, data, tmp_path):
    twins = [write_corpus(tmp_path / name / "pages" / "test", range(4)) for name in "ab"]
    finished = coltrain(
        *["train", "tiny", f"data.train=[{data}/train]", *SHORT, "train.steps=1", "--json"],
        *[f"eval.data=[{twins[0]}, {twins[1]}]", "--out", "run"],
    )
    assert len(json.loads(finished.out)["results"]) == 2


def test_a_run_is_evaluated_as_it_was_while_training(coltrain, trained, data):
    run, _ = trained
    finished = coltrain("eval", run, "--on", data, "--json")
    assert finished.code == 0, finished.err
    document = json.loads(finished.out)
    assert document["model"] == str(run)
    (ours,) = results_from_json(document)
    (theirs,) = read_results(run / "evaluation" / "final.json")
    assert ours.per_query == theirs.per_query
    assert ours.measures == theirs.measures


def test_several_data_sets_are_evaluated_at_once(coltrain, data):
    finished = coltrain("eval", "tiny", "--on", data / "test", "--on", data / "train")
    assert finished.code == 0
    table = finished.out
    assert "/test" in table
    assert "/train" in table


def test_a_finished_run_that_is_resumed_prints_its_results(coltrain, trained):
    run, done = trained
    finished = coltrain("resume", run, "--json")
    assert finished.code == 0
    assert json.loads(finished.out)["results"] == json.loads(done.out)["results"]
    assert "the run is finished" in finished.err


@pytest.fixture
def pages(tmp_path):
    for number in range(3):
        small_page(number).save(tmp_path / f"page {number}.png")
    return [f"page {number}.png" for number in range(3)]


def spellings(pages):
    first, second, third = pages
    return [
        ["--pages", first, second, third],
        ["--pages", first, "--pages", second, "--pages", third],
        [f"--pages={first}", second, third],
        ["--pages", first, second, "--pages", third],
    ]


@pytest.mark.parametrize("spelling", range(4))
@pytest.mark.parametrize("last", [True, False])
def test_pages_may_be_many_after_one_option(coltrain, tmp_path, pages, spelling, last):
    (tmp_path / "queries.txt").write_bytes(b"red iron\n  two spaces before\n\nnight")
    given = spellings(pages)[spelling]
    others = ["--queries", "queries.txt", "--out", "out.npz", "--dtype", "float32"]
    arguments = [*others, *given] if last else [*given, *others]
    finished = coltrain("encode", "tiny", *arguments)
    assert finished.code == 0, finished.err
    assert finished.out == ""
    with np.load(tmp_path / "out.npz") as arrays:
        names = list(arrays)
        embeddings = [*[f"page_{n}" for n in range(3)], *[f"query_{n}" for n in range(4)]]
        assert set(names) == {"settings"} | {
            name + end for name in embeddings for end in ("", "_ids", "_positions")
        }
        assert {arrays[name].dtype for name in embeddings} == {np.float32("0").dtype}
        assert arrays["page_0"].shape[1] == 128
        assert len(arrays["page_2"]) > len(arrays["page_1"]) > len(arrays["page_0"])
        lengths = [len(arrays[f"query_{number}"]) for number in range(4)]
        assert lengths[1] > lengths[0] > lengths[3] > lengths[2] > 0


def test_a_file_says_with_what_settings_it_was_written(coltrain, trained, tmp_path, pages):
    run, _ = trained
    settings = ["--positions", "sequential", "--alpha", "white", "--max-visual-tokens", "6"]
    template = ["--template", "engine-0.3.13", "--other-template"]
    given = ["--pages", pages[0], "--out", "out.npz", *settings]
    refused(coltrain("encode", run, *given, "--template", "engine-0.3.13"), "[other-template]")
    assert not (tmp_path / "out.npz").exists()
    finished = coltrain("encode", run, *given, *template)
    assert finished.code == 0, finished.err
    with np.load(tmp_path / "out.npz") as arrays:
        recorded = json.loads(arrays["settings"].item())
        num_tokens = len(arrays["page_0"])
        assert arrays["page_0_positions"].tolist() == [list(range(num_tokens))] * 3
    assert recorded["model"] == str(run)
    assert recorded["template"]["name"] == "engine-0.3.13"
    assert recorded["trained_template"]["name"] == "engine-0.3.12"
    chosen = {key: recorded[key] for key in ("positions", "alpha", "max_visual_tokens")}
    assert chosen == {"positions": "sequential", "alpha": "white", "max_visual_tokens": 6}


def test_a_run_encodes_with_its_own_adapter(coltrain, trained, tmp_path, pages):
    run, _ = trained
    coltrain("encode", "tiny", "--pages", pages[0], "--out", "base.npz")
    finished = coltrain("encode", run, "--pages", pages[0], "--out", "run.npz")
    assert finished.code == 0, finished.err
    base, ours = (np.load(tmp_path / name)["page_0"] for name in ("base.npz", "run.npz"))
    assert base.shape == ours.shape
    assert np.abs(base - ours).max() > 1e-4


def findings(difference):
    return SelfCheck(
        maxsim_difference=1e-16,
        comparisons=[Comparison("softmax", 0.1, 5, 6, 1e-16, difference, 0.5, 1.0)],
        memory=[
            MemoryCheck(8, 80, 3_000, 1_000, 100, (10, 10), 110),
            MemoryCheck(32, 80, 6_000, 4_500, 400, (20, 20), 1_700),
        ],
    )


@pytest.mark.parametrize(
    ("difference", "code", "verdict"),
    [(1e-15, 0, "exact: largest difference 1.0e-15"), (1e-9, 1, "NOT EXACT")],
)
def test_verify_says_whether_the_step_is_exact(coltrain, monkeypatch, difference, code, verdict):
    monkeypatch.setattr(self_check_module, "self_check", lambda update: findings(difference))
    finished = coltrain("verify", "--self")
    assert finished.code == code
    assert verdict in finished.out
    assert "softmax" in finished.out
    finished = coltrain("verify", "--self", "--json")
    assert finished.code == code
    assert json.loads(finished.out)["passed"] is (code == 0)
    assert json.loads(finished.out)["largest_difference"] == difference


@pytest.mark.parametrize(("difference", "code"), [(1e-15, 0), (1e-9, 1)])
def test_verify_says_whether_ranks_equal_one_process(coltrain, monkeypatch, difference, code):
    asked = []

    def found(num_ranks, global_batch, on_progress):
        asked.append((num_ranks, global_batch))
        case = Case("softmax", 0.1, None, is_shared=True)
        one = RankComparison(2, 12, case, (2, 2), {"all_gather": 6}, 0.0, difference, 0.5, True)
        return RankCheck([one])

    monkeypatch.setattr(rank_check_module, "check_ranks", found)
    finished = coltrain("verify", "--self", "--ranks", "2")
    assert finished.code == code
    assert "softmax, shared negatives" in finished.out
    assert ("exact: largest difference 1.0e-15" if code == 0 else "NOT EXACT") in finished.out
    finished = coltrain("verify", "--self", "--ranks", "2", "--global-batch", "32", "--json")
    assert finished.code == code
    document = json.loads(finished.out)
    assert document["passed"] is (code == 0)
    assert document["exchanges_by_ranks"] == {"2": [{"all_gather": 6}]}
    assert asked == [([2], 12), ([2], 32)]


@pytest.mark.slow
def test_a_process_of_its_own_prints_the_document_and_nothing_else(data, tmp_path):
    arguments = ["eval", "tiny", "--on", str(data), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "coltrain", *arguments], capture_output=True, text=True, check=True
    )
    (result,) = results_from_json(json.loads(done.stdout))
    assert result.num_queries == 5
    assert "Traceback" not in done.stderr


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "coltrain", "recipes", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["recipes"]
