"""What a person types wrongly at midnight: one clear sentence, exit code 2, nothing written.

Each line of the table is a command as typed, and the words that name its trouble.
"""

import contextlib
import io
import os
import shutil
import sys

import datasets
import pyarrow as pa
import pytest
from data_folders import png, write_broken_data, write_corpus, write_rows

from coltrain import cli

ALL = range(12)
IDS = {"query_id": [f"q{n}" for n in ALL], "doc_id": [f"p{n}" for n in ALL]}


def write_place(root):
    """A folder with one good data set and everything that can be wrong."""
    good = write_corpus(root / "good", ALL)
    write_broken_data(root / "bad")
    pages = {"doc_id": [f"p{n}" for n in ALL], "image": [png(n) for n in ALL]}
    twice = {"doc_id": [*pages["doc_id"], "p3"], "image": [*pages["image"], png(20)]}
    write_corpus(root / "clashing-pages", ALL, corpus=twice)
    twice = {"query_id": [*IDS["query_id"], "q3"], "text": ["red"] * 13}
    write_corpus(root / "clashing-queries", ALL, queries=twice)
    write_corpus(root / "bad-score", ALL, qrels={**IDS, "score": [float("nan")] * 12})
    write_corpus(root / "text-score", ALL, qrels={**IDS, "score": ["high"] * 12})
    write_corpus(
        root / "zero-scores",
        ALL,
        qrels={k: v[:0] for k, v in IDS.items()} | {"score": pa.array([], pa.int64())},
    )
    write_corpus(root / "text-images", ALL, corpus={**pages, "image": ["hello"] * 12})
    write_corpus(root / "byte-images", ALL, corpus={**pages, "image": [b"hello"] * 12})
    write_corpus(
        root / "none-queries",
        ALL,
        queries={"query_id": IDS["query_id"], "text": pa.array([None] * 12, pa.string())},
    )
    write_rows(root / "few", query=["red"] * 3, image=[png(n) for n in range(3)])
    shutil.copytree(good, root / "cut")
    content = (good / "corpus.parquet").read_bytes()
    (root / "cut" / "corpus.parquet").write_bytes(content[: len(content) // 2])
    for folder in ("text-parquet", "csv", "no-run", "half-run", "no-model", "no-adapter"):
        (root / folder).mkdir()
    (root / "text-parquet" / "a.parquet").write_text("hello")
    (root / "csv" / "a.csv").write_text("query,image\na,b")
    (root / "no-run" / "run.json").write_text("{}")
    (root / "half-run" / "run.json").write_text('{"result_hash": "x"}')
    (root / "no-model" / "config.json").write_text("{}")
    (root / "no-adapter" / "adapter_config.json").write_text("nope")
    (root / "file.txt").write_text("hello")
    (root / "binary.yaml").write_bytes(bytes(range(256)))
    (root / "utf16.yaml").write_text("name: x", "utf-16")
    (root / "alias.yaml").write_text("a: &x 1\nb: *x\n")
    (root / "twice.yaml").write_text("name: a\nname: b\n")
    (root / "tab.yaml").write_text("name:\n\t- x\n")
    (root / "deep.yaml").write_text("[" * 5000)
    (root / "empty.yaml").write_text("")
    (root / "list.yaml").write_text("- name\n")
    (root / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    (root / "page.png").write_bytes(png(0)["bytes"])
    (root / "cut.png").write_bytes(png(0)["bytes"][:100])


def train(*overrides, out="run", data="good", on=None):
    """A training command on the good data, but for what is said."""
    return [
        *["train", "tiny", "batch.global_size=4", "train.steps=2", f"data.train=[./{data}]"],
        *["eval.data=[]" if on is None else f"eval.data=[./{on}]", *overrides, "--out", out],
    ]


def mine(*options, data="./good", out="mined", model="tiny"):
    return ["mine", data, "--with", model, "--out", out, *options]


WRONG = [
    # The recipe.
    (["train", "tinny", "--out", "run"], ["[unknown-recipe]", "try       tiny"]),
    (["train", "missing.yaml", "--out", "run"], ["[unknown-recipe]", "No such file"]),
    (["train", "./bad", "--out", "run"], ["[unknown-recipe]", "directory"]),
    (["train", "", "--out", "run"], ["[unknown-recipe]"]),
    (["train", "binary.yaml", "--out", "run"], ["[broken-yaml]", "UTF-8"]),
    (["train", "utf16.yaml", "--out", "run"], ["[broken-yaml]", "UTF-8"]),
    (["train", "alias.yaml", "--out", "run"], ["[broken-yaml]", "no aliases"]),
    (["train", "twice.yaml", "--out", "run"], ["[duplicate-key]", "lines 1 and 2"]),
    (["train", "tab.yaml", "--out", "run"], ["[broken-yaml]", "line 2"]),
    (["train", "deep.yaml", "--out", "run"], ["[broken-yaml]"]),
    (["train", "empty.yaml", "--out", "run"], ["[empty-recipe]"]),
    (["train", "list.yaml", "--out", "run"], ["[recipe-not-a-mapping]", "a list"]),
    # Its keys.
    (train("loss.temprature=1"), ["[unknown-key]", "try       loss.temperature"]),
    (train("max_broken_share=1"), ["[unknown-key]", "data.max_broken_share"]),
    (train("train.grad_accum=4"), ["[unknown-key]", "batch.chunk_size"]),
    (train("train.epochs=3", "train.steps=3"), ["[steps-and-epochs]"]),
    (train("train.steps=null"), ["[steps-and-epochs]", "neither"]),
    (train("train.steps=1e9"), ["[invalid-recipe]", "train.steps", "whole number"]),
    (train("train.steps=100000000000"), ["[invalid-recipe]", "train.steps", "1000000000"]),
    (train("train.seed=-1"), ["[invalid-recipe]", "train.seed"]),
    (train("lora.r=-1"), ["[invalid-recipe]", "lora.r"]),
    (train("lora.r=99999999999999999999"), ["[invalid-recipe]", "lora.r"]),
    (train("projection.dim=99999999999999"), ["[invalid-recipe]", "projection.dim"]),
    (train("lora.target_modules=("), ["[invalid-recipe]", "does not compile"]),
    (train("lora.target_modules=nothing"), ["[no-lora-target]"]),
    (train("batch.chunk_size=0"), ["[invalid-recipe]", "batch.chunk_size", "1"]),
    (train("batch.chunk_size=-3"), ["[invalid-recipe]", "batch.chunk_size"]),
    (train("batch.negatives=3"), ["[batch-not-divisible]", "4"]),
    (train("batch.global_size=13"), ["[too-few-rows]", "12 rows"]),
    (train("batch.global_size=5.5"), ["[invalid-recipe]", "batch.global_size"]),
    (train("optimizer.learning_rate=nan"), ["[invalid-recipe]", "a number"]),
    (train("optimizer.learning_rate=.nan"), ["[invalid-recipe]", "learning_rate"]),
    (train("optimizer.learning_rate=.inf"), ["[invalid-recipe]", "learning_rate"]),
    (train("optimizer.betas=[0.9]"), ["[invalid-recipe]", "optimizer.betas"]),
    (train("optimizer.name=sgd"), ["[invalid-recipe]", "adamw"]),
    (train("precision.compute=float8"), ["[invalid-recipe]", "bfloat16"]),
    (train("model.dtype=int8"), ["[invalid-recipe]", "float32"]),
    (train("model.max_visual_tokens=3"), ["[invalid-recipe]", "max_visual_tokens"]),
    (train("model.template=chatml"), ["[unknown-template]", "chatml"]),
    (train("model.base=./file.txt"), ["[model-not-found]"]),
    (train("model.start_from=./no-adapter"), ["ModelError"]),
    (train("eval.every=0"), ["[invalid-recipe]", "eval.every"]),
    (train("data.num_workers=-1"), ["[invalid-recipe]", "data.num_workers"]),
    (train("data.num_workers=999999"), ["[invalid-recipe]", "256"]),
    (train("checkpoint.keep=0"), ["[invalid-recipe]", "checkpoint.keep"]),
    (train("logging.watchers=[mlflow]"), ["[invalid-recipe]", "tensorboard"]),
    (train("loss.name=softmax_hard_negatives"), ["[no-hard-negatives]"]),
    (train("=5"), ["[bad-override]", "key.path=value"]),
    (train("tiny"), ["[bad-override]"]),
    (train("lora=null", "loss.temprature=1"), ["2 mistakes", "lora", "loss.temperature"]),
    # Its data.
    (train(data="nowhere"), ["[data-not-found]", "nowhere"]),
    (train(data="file.txt"), ["[data-not-found]", "not a folder"]),
    (train(data="bad/empty"), ["[missing-file]", "empty folder"]),
    (train(data="csv"), ["[missing-file]", "a.csv"]),
    (train(data="bad/no-image"), ["[missing-column]", "query, page"]),
    (train(data="bad/no-text"), ["[missing-column]", "query_id, words"]),
    (train(data="bad/no-rows"), ["[empty-split]"]),
    (train(data="bad/no-qrels"), ["[missing-file]", "qrels"]),
    (train(data="bad/unknown-id"), ["[unknown-id]", "p77"]),
    (train(data="bad/not-images"), ["[not-an-image]"]),
    (train(data="text-images"), ["[too-many-broken-rows]", "not-an-image 12"]),
    (train(data="byte-images"), ["[too-many-broken-rows]", "not-an-image 12"]),
    (train(data="none-queries"), ["[too-many-broken-rows]", "empty-query 12"]),
    (train(data="clashing-pages"), ["[too-many-broken-rows]", "duplicate-id 1"]),
    (train(data="bad-score"), ["[bad-score]"]),
    (train(data="text-score"), ["[bad-score]"]),
    (train(data="cut"), ["[broken-file]"]),
    (train(data="text-parquet"), ["[broken-file]"]),
    (train(data="few"), ["[too-few-rows]", "3 rows"]),
    (train("data.train=[]"), ["[invalid-recipe]", "data.train"]),
    (train("data.train=[{path: ./good, wieght: 1}]"), ["[unknown-key]", "weight"]),
    (train("data.train=[{path: ./good, weight: 1}, ./few]"), ["[invalid-recipe]", "weight"]),
    (train("data.train=[{path: ./good, split: nope}]"), ["[unknown-split]", "nope"]),
    (train(on="clashing-pages"), ["[duplicate-id]", "clash", "p3"]),
    (train(on="clashing-queries"), ["[duplicate-id]", "clash", "q3"]),
    (train(on="byte-images"), ["[nothing-judged]"]),
    (train(on="none-queries"), ["[nothing-judged]"]),
    (train(on="zero-scores"), ["[empty-split]"]),
    # Where it goes, and on what.
    (train()[:-2], ["[missing-out]", "--out FOLDER"]),
    (train(out="file.txt"), ["[not-a-folder]", "file.txt"]),
    (train(out="file.txt/run"), ["[cannot-write]", "Not a directory"]),
    (train(out="/sys/coltrain-run"), ["[cannot-write]"]),  # refused to root as well
    (train(out="good"), ["[folder-not-empty]", "corpus.parquet"]),
    (train(out="x" * 300), ["[cannot-write]", "too long"]),
    ([*train(), "--device", "toaster"], ["[unknown-device]", "toaster"]),
    ([*train(), "--device", "cuda:99"], ["[no-such-device]", "cuda:99"]),
    ([*train(), "--json", "--json-lines"], ["[json-twice]"]),
    ([*train(), "--stop-signal", "USR1"], ["[unknown-signal]", "SIGUSR1"]),
    # How it is said.
    (["train"], ["Missing argument"]),
    (["train", "tiny", "--ouut", "run"], ["No such option", "--ouut"]),
    (["train", "tiny", "--out"], ["--out", "requires an argument"]),
    (["trian"], ["No such command"]),
    (["demo", "--seed", "x"], ["--seed"]),
    (["demo", "--out", "good"], ["[folder-not-empty]"]),
    # Runs.
    (["resume", "nowhere"], ["[not-a-run]", "nowhere"]),
    (["resume", "good"], ["[not-a-run]"]),
    (["resume", "no-run"], ["[not-a-run]"]),
    (["resume", "half-run"], ["[not-a-run]"]),
    (["report", "good"], ["[not-a-run]"]),
    (["verify"], ["[nothing-to-verify]"]),
    (["verify", "good"], ["[not-a-run]"]),
    (["verify", "half-run"], ["[no-steps]"]),
    (["verify", "--self", "--device", "cpu"], ["[option-not-read]", "--device"]),
    # Mining.
    (mine("--top-k", "0"), ["[bad-mining-setting]", "top_k"]),
    (mine("--per-query", "0"), ["[bad-mining-setting]", "per_query"]),
    (mine("--per-query", "60"), ["[bad-mining-setting]", "per_query"]),
    (mine("--max-share", "-1"), ["[bad-mining-setting]", "max_share"]),
    (mine("--max-share", "nan"), ["[bad-mining-setting]", "max_share"]),
    (mine("--near-duplicate", "2"), ["[bad-mining-setting]", "near_duplicate"]),
    (mine("--dtype", "int8"), ["[unknown-dtype]"]),
    (mine(data=""), ["[not-a-source]"]),
    (mine(data="nowhere"), ["[hub-offline]"]),
    (mine(data="./none-queries"), ["[nothing-judged]"]),
    (mine(model="nowhere"), ["[model-not-found]"]),
    (mine(out="good"), ["[folder-not-empty]"]),
    (mine(out="file.txt/m"), ["[cannot-write]"]),
    # Measuring.
    (["eval", "tiny", "--on", "./clashing-pages"], ["[duplicate-id]", "p3"]),
    (["eval", "tiny", "--on", "./byte-images"], ["[not-an-image]"]),
    (["eval", "./no-model", "--on", "./good"], ["ModelError"]),
    (["eval", "./no-adapter", "--on", "./good"], ["ModelError"]),
    (["encode", "tiny", "--out", "x.npz", "--pages", "cut.png"], ["[not-an-image]"]),
    (["encode", "tiny", "--out", "x.npz", "--queries", "binary.txt"], ["[not-text]"]),
    (["encode", "tiny", "--out", "file.txt/x", "--pages", "page.png"], ["[cannot-write]"]),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that all commands of the table run in; none may change it."""
    root = tmp_path_factory.mktemp("place")
    write_place(root)
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")
    yield root
    datasets.config.HF_DATASETS_CACHE = before


def typed(arguments, folder):
    """Run a command in this process, in a folder: its exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "120")
        patch.setattr(sys, "argv", ["coltrain", *arguments])
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
    return code, out.getvalue(), err.getvalue()


def listing(root):
    return {
        os.path.join(folder, name): os.path.getsize(os.path.join(folder, name))
        for folder, folders, files in os.walk(root)
        for name in [*folders, *files]
    }


def test_there_are_more_than_sixty_wrong_inputs():
    assert len(WRONG) == len({tuple(arguments) for arguments, _ in WRONG}) > 60


@pytest.mark.parametrize(
    ("arguments", "words"), WRONG, ids=[" ".join(arguments)[:100] for arguments, _ in WRONG]
)
def test_what_is_typed_wrongly_is_one_clear_error_and_nothing_is_written(place, arguments, words):
    before = listing(place)
    code, out, err = typed(arguments, place)
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert err.count("Error") == 1
    for word in words:
        assert word in err
    assert listing(place) == before


@pytest.mark.slow
def test_a_path_with_spaces_and_other_letters_works(place, tmp_path):
    data, run = tmp_path / "Daten für später", tmp_path / "läufe и прогоны" / "erster Lauf"
    shutil.copytree(place / "good", data)
    arguments = [
        *["train", "tiny", "batch.global_size=4", "train.steps=1"],
        *[f"data.train=['{data}']", f"eval.data=['{data}']", "--out", str(run), "--json"],
    ]
    code, _, err = typed(arguments, tmp_path)
    assert code == 0, err
    for command in (
        ["report", str(run)],
        ["resume", str(run)],
        ["eval", str(run), "--on", str(data)],
    ):
        code, _, err = typed(command, tmp_path)
        assert code == 0, err
