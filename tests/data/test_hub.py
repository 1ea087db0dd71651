"""Data sets by hub name, against a hub on loopback.

`huggingface_hub` reads its address when it is imported, so each load runs in its own process.
"""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from coltrain.data.detailed_mix import SUBSETS

SCRIPT = """
import json, sys
from coltrain.data import load_collection
from coltrain.errors import ColtrainError
from coltrain.recipe.source import Source
answers = []
for source, split in json.loads(sys.argv[1]):
    try:
        collection = load_collection(Source.model_validate(source), split)
    except ColtrainError as error:
        answers.append({"code": error.code, "message": str(error)})
    else:
        answers.append({
            **collection.fingerprint(),
            "texts": [query.text for query in collection.queries],
            "red": collection.page_image(0).getpixel((0, 0))[0],
        })
print(json.dumps(answers))
"""


@pytest.fixture
def load_from(tmp_path):
    """Loads sources in a new process that knows a hub by its address; answers and errors."""

    def load(address, *wanted, **environment):
        answer = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(wanted)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": "0",  # the suite itself runs offline
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_DATASETS_CACHE": str(tmp_path / "home" / "datasets"),
                "no_proxy": "127.0.0.1",
                **environment,
            },
        )
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    return load


@pytest.fixture
def nobody():
    """The address of a hub that does not answer."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def write_pages(hub, write_table, png, revision, *texts, color=0):
    folder = hub.root / "datasets" / "vidore" / "pages" / revision
    for split in ("train", "test"):
        write_table(
            folder / "data" / f"{split}-00000-of-00001.parquet",
            query=[f"{split} {text}" for text in texts],
            image=[png(color) for _ in texts],
            image_filename=[f"{text}.png" for text in texts],
        )
    (folder / "README.md").write_text("# Pages\n")


@pytest.mark.slow
def test_a_hub_name_and_revision_choose_what_is_loaded(hub, load_from, write_table, png, nobody):
    write_pages(hub, write_table, png, "main", "new", color=20)
    write_pages(hub, write_table, png, "v1", "old", "older", color=10)
    newest, tagged, unknown = load_from(
        hub.address,
        ("vidore/pages", "train"),
        ("vidore/pages@v1", "train"),
        ("vidore/pages@v9", "train"),
    )
    assert newest.get("name") == "vidore/pages:train", newest
    assert (newest["texts"], newest["red"]) == (["train new"], 20)
    assert (tagged["texts"], tagged["red"]) == (["train old", "train older"], 10)
    assert len(newest["revision"]) == len(tagged["revision"]) == 40
    assert newest["revision"] != tagged["revision"]
    assert unknown["code"] == "unknown-revision"

    # Only the split that was asked for has been downloaded, and what may say which files it has.
    fetched = [line for line in hub.requests() if line.startswith("GET") and "/resolve/" in line]
    tables = [line for line in fetched if "README.md" not in line]
    assert len(tables) == 2
    assert all("train-00000" in line for line in tables)

    (by_commit,) = load_from(hub.address, (f"vidore/pages@{tagged['revision']}", "train"))
    assert by_commit["hash"] == tagged["hash"]

    # The hub is gone: what was loaded is still there, by name, tag and commit; the rest is not.
    hub.stop()
    again, again_tagged, again_by_commit, test = load_from(
        nobody,
        ("vidore/pages", "train"),
        ("vidore/pages@v1", "train"),
        (f"vidore/pages@{tagged['revision']}", "train"),
        ("vidore/pages", "test"),
    )
    assert again == newest
    assert again_tagged == tagged
    assert again_by_commit["hash"] == tagged["hash"]
    assert test["code"] == "hub-offline"


@pytest.mark.slow
def test_the_beir_form_loads_from_the_hub(hub, load_from, write_table, png):
    folder = hub.root / "datasets" / "vidore" / "pages_beir" / "main"
    part = "test-00000-of-00001.parquet"
    write_table(folder / "corpus" / part, corpus__id=[0, 1], image=[png(5), png(6)])
    write_table(folder / "queries" / part, query__id=[0], query=["how"])
    write_table(folder / "qrels" / part, query__id=[0], corpus__id=[1], score=[1])
    (loaded,) = load_from(hub.address, ("vidore/pages_beir", "test"))
    assert (loaded["layout"], loaded["pages"], loaded["texts"]) == ("corpus", 2, ["how"])
    assert loaded["red"] == 5


@pytest.mark.slow
def test_a_hub_that_does_not_answer_leaves_three_ways_on(load_from, nobody):
    by_name, switched_off = (
        load_from(nobody, ("vidore/pages@v1", "train"))[0],
        load_from(nobody, ("vidore/pages", "train"), HF_HUB_OFFLINE="1")[0],
    )
    assert by_name["code"] == switched_off["code"] == "hub-offline"
    assert "hf download vidore/pages --repo-type dataset --revision v1\n" in by_name["message"]
    assert "the hub cannot be reached" in by_name["message"]
    assert "ConnectError" in by_name["message"]
    assert "expected  a connection, an earlier download, or a folder" in by_name["message"]


@pytest.mark.slow
def test_names_and_splits_that_the_hub_does_not_have_are_refused(hub, load_from, write_table, png):
    write_pages(hub, write_table, png, "main", "new")
    empty = hub.root / "datasets" / "vidore" / "empty" / "main"
    empty.mkdir(parents=True)
    (empty / "notes.txt").touch()
    unknown, split, no_table = load_from(
        hub.address,
        ("vidore/pagse", "train"),
        ({"path": "vidore/pages", "split": "dev"}, "train"),
        ("vidore/empty", "train"),
    )
    assert unknown["message"] == (
        "DataError [unknown-dataset]: there is neither a folder nor a data set of the hub with this "
        "name that you may see.\n"
        "  where     vidore/pagse\n"
        "  received  vidore/pagse\n"
        "  expected  a name as in vidore/colpali_train_set, or a folder as in ./pages\n"
        "  try       check the spelling; a private one needs a token: `hf auth login`, or HF_TOKEN "
        "in the environment"
    )
    assert split["code"] == "unknown-split"
    assert "expected  test or train" in split["message"]
    assert no_table["code"] == "missing-file"
    # Nothing was downloaded for a split that is not there.
    fetched = [line for line in hub.requests() if "/resolve/" in line]
    assert all("README.md" in line for line in fetched)


@pytest.mark.slow
def test_the_detailed_mix_comes_from_its_eight_data_sets(hub, load_from, write_table, png):
    numbers = dict.fromkeys(SUBSETS, 70) | {"arxivqa_train": 10_050}
    for name, number in numbers.items():
        write_table(
            hub.root / "datasets" / "vidore" / name / "main" / "data" / "train-0.parquet",
            query=[f"{name} {i}" for i in range(number)],
            image=[png(i) for i in range(number)],
            image_filename=[f"{i}.png" for i in range(number)],
        )
    (held_out, train) = load_from(
        hub.address, ("colpali_train_set_detailed", "test"), ("colpali_train_set_detailed", "train")
    )
    expected = []
    for name, number in numbers.items():
        is_cut = name == "arxivqa_train"
        places = np.random.default_rng(42).permutation(number)[:10_000] if is_cut else range(number)
        expected += [f"{name} {i}" for i in places]
    order = np.random.default_rng(42).permutation(len(expected))
    assert held_out["texts"] == [expected[place] for place in order[:500]]
    assert train["texts"] == [expected[place] for place in order[500:]]
    assert held_out["layout"] == "mix"
    assert len(held_out["revision"].split()) == 8
    together = {
        name: held_out["rows_per_source"].get(name, 0) + train["rows_per_source"][name]
        for name in SUBSETS
    }
    assert together == numbers | {"arxivqa_train": 10_000}


@pytest.mark.slow
@pytest.mark.reference
def test_the_command_shows_the_download_and_then_works_offline(
    hub, tmp_path, write_table, png, nobody
):
    write_pages(hub, write_table, png, "main", "new", "old", color=20)

    def show(address, **environment):
        return subprocess.run(
            [sys.executable, "-m", "coltrain", "data", "show", "vidore/pages", "--json"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "home"),
                "HF_DATASETS_CACHE": str(tmp_path / "home" / "datasets"),
                "no_proxy": "127.0.0.1",
                **environment,
            },
        )

    first = show(hub.address)
    assert first.returncode == 0, first.stderr
    assert "downloading vidore/pages: 1 file" in first.stderr
    assert "downloaded vidore/pages" in first.stderr
    hub.stop()
    offline = show(nobody, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert "downloading" not in offline.stderr
    assert json.loads(offline.stdout) == json.loads(first.stdout)
    # Without the switch the cache stands in as well, and that is said.
    unreachable = show(nobody)
    assert json.loads(unreachable.stdout) == json.loads(first.stdout)
    assert "from the cache" in unreachable.stderr
