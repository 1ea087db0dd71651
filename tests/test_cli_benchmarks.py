"""`eval` on benchmarks by name and under protocols, and `benchmarks list`."""

import json
import os
import subprocess
import sys

import pytest
from evaluation_data import LANGUAGES, write_beir, write_rows, write_v2, write_v3

from coltrain.evaluation.benchmarks.names import asked_for


@pytest.fixture(autouse=True, scope="module")
def _cache_of_datasets(tmp_path_factory):
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small sets under the names of tasks of all three benchmarks, and rows."""
    folder = tmp_path_factory.mktemp("data")
    for task in asked_for("vidore-v1").tasks:
        write_beir(folder / "v1" / task.short)
    for task in asked_for("vidore-v2").tasks:
        (write_v2 if task.subsets else write_beir)(folder / "v2" / task.short)
    write_v3(folder / "v3" / "v3-hr")
    write_rows(folder / "rows")
    return folder


def document(finished):
    code, out, err = finished
    assert code == 0, err
    return json.loads(out)


def test_benchmarks_are_listed_as_a_table_and_as_json(coltrain):
    code, out, _ = coltrain("benchmarks", "list")
    assert code == 0
    assert "vidore-v3: ViDoRe (v3), the eight public tasks, mean nDCG@10 of 8 tasks" in out
    assert "syntheticdocqa-healthcare" in out
    listed = document(coltrain("benchmarks", "list", "--json"))["benchmarks"]
    assert [len(benchmark["tasks"]) for benchmark in listed] == [10, 4, 8]
    revision = listed[0]["tasks"][3]["editions"]["mteb"]["revision"]
    assert revision == "24a4541c4c461f5ff4f4af4e97ec820715281a06"


@pytest.mark.slow
def test_v1_has_its_mean_and_those_of_its_two_domains(coltrain, data):
    arguments = ("eval", "tiny", "--on", "vidore-v1", "--data-dir", data / "v1")
    found = document(coltrain(*arguments, "--allow-other-counts", "--json"))
    scores = {result["dataset"]: result["measures"]["nDCG@5"] for result in found["results"]}
    assert list(scores) == [task.name for task in asked_for("vidore-v1").tasks]
    means = found["means"]["vidore-v1"]
    assert means["nDCG@5"] == pytest.approx(sum(scores.values()) / 10)
    assert means["num_tasks"] == 10
    assert {"in_domain", "out_of_domain", "interval"} <= set(means)
    assert means["interval"]["low"] < means["nDCG@5"] < means["interval"]["high"]
    assert found["protocol"]["name"] == "coltrain"
    assert found["protocol"]["queries_with_other_tokens"] == 0
    assert {"coltrain", "torch", "transformers"} <= set(found["versions"])
    assert found["encoder"]["query_prefix"] == "Query: "


def test_a_protocol_is_followed_warned_of_and_recorded(coltrain, data):
    arguments = ("eval", "tiny", "--on", "vidore-v2", "--data-dir", data / "v2", "--json")
    arguments = (*arguments, "--allow-other-counts")
    finished = coltrain(*arguments, "--protocol", "mteb-2.12.15+engine-0.3.13")
    found = document(finished)
    assert "warning: mteb-2.12.15+engine-0.3.13 sends other text" in finished[2]
    assert "27 of 27 queries" in finished[2]
    assert found["protocol"]["queries_with_other_tokens"] == 27
    assert found["protocol"]["model_template"] == "engine-0.3.12"
    assert found["scoring"] == {"dtype": "float32", "padding": "zero", "page_block": None}
    assert found["encoder"]["query_suffix"] == "<|endoftext|>" * 20
    esg = found["results"][0]
    assert list(esg["subsets"]) == list(LANGUAGES[:4])
    assert esg["languages"]["query-test-2"] == "spanish"
    assert esg["base_queries"]["query-test-2"] == "query-test-0"
    assert esg["data"]["other_counts"][0] == "2 judged queries in french, expected 57 (-55)"
    assert found["means"]["vidore-v2"]["num_tasks"] == 4

    plain = document(coltrain(*arguments))
    assert plain["scoring"]["padding"] == "masked"
    assert plain["results"][0]["ranking"] != esg["ranking"]


def test_a_task_in_mteb_s_layout_keeps_translations_together(coltrain, data):
    found = document(
        coltrain("eval", "tiny", "--on", "v3-hr", "--data-dir", data / "v3",
                 "--allow-other-counts", "--json")
    )  # fmt: skip
    [result] = found["results"]
    assert (result["num_queries"], result["num_pages"]) == (12, 5)
    assert len(set(result["base_queries"].values())) == 2
    assert "means" not in found  # of one task there is none


@pytest.mark.parametrize(
    ("arguments", "relevant"),
    [((), 2), (("--duplicates", "last-row"), 1), (("--protocol", "vidore-benchmark-5.0"), 1)],
)
def test_rows_of_one_s_own_have_the_rule_that_is_named(coltrain, data, arguments, relevant):
    found = document(coltrain("eval", "tiny", "--on", data / "rows", *arguments, "--json"))
    [result] = found["results"]
    recall = result["per_query"]["0"]["Recall@1"]
    assert recall in (0, 1 / relevant)
    if "--protocol" in arguments:
        assert found["protocol"]["weights_dtype"] == "bfloat16"
        assert found["scoring"] == {"dtype": "embeddings", "padding": "zero", "page_block": 128}
        scores = result["ranking"]["0"]["scores"]
        assert all(score * 16 == int(score * 16) for score in scores if 8 <= score < 16)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--on", "vidore-v4"), ["[unknown-benchmark]", "try       vidore-v1"]),
        (("--on", "docvqa", "--protocol", "mteb-2.12.15"), ["[protocol-without-engine]"]),
        (("--on", "docvqa", "--protocol", "mteb-3.0.0"), ["[protocol-version]"]),
        (("--on", "docvqa", "--protocol", "mtbe-2.19.2"), ["[unknown-protocol]", "mteb-2.19.2"]),
        (
            ("--on", "tiny", "--protocol", "mteb-2.19.2", "--template", "engine-0.3.13"),
            ["[template-against-protocol]"],
        ),
        (
            ("--on", "tiny", "--protocol", "vidore-benchmark-5.0", "--dtype", "float32"),
            ["[dtype-against-protocol]"],
        ),
        (
            ("--on", "tiny", "--protocol", "mteb-2.19.2", "--padding", "zero"),
            ["[padding-against-protocol]"],
        ),
        (("--on", "tiny", "--edition", "beir"), ["[no-benchmark-named]", "--edition"]),
        (("--on", "tiny", "--mteb"), ["[mteb-needs-a-task]", "tiny:test"]),
        (("--on", "tiny", "--mteb", "--noise"), ["[not-with-mteb]", "--noise"]),
        (("--on", "tiny", "--mteb-results", "r"), ["[not-with-mteb]", "without --mteb"]),
        (("--on", "tiny", "--on", "tiny"), ["[same-data-twice]", "tiny:test"]),
        (("--on", "docvqa", "--edition", "2024"), ["[unknown-edition]"]),
        (("--on", "vidore-v1"), ["[benchmark-unreachable]: 10 tasks", "hf download mteb/"]),
    ],
)
def test_what_cannot_be_evaluated_is_one_clear_message(coltrain, arguments, words):
    code, out, err = coltrain("eval", "tiny", *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_mteb_that_is_not_installed_is_said(coltrain, data, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "mteb" else find(name, *rest),
    )
    code, _, err = coltrain(
        "eval", "tiny", "--on", "tabfquad", "--data-dir", data / "v1", "--allow-other-counts", "--mteb"
    )  # fmt: skip
    assert code == 2
    assert "UsageError [mteb-missing]" in err
    assert "pip install 'coltrain[mteb]'" in err


@pytest.mark.slow
def test_the_public_module_does_not_import_mteb():
    code = "import sys, coltrain.mteb; print('mteb' in sys.modules, coltrain.mteb.SearchModel)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False <class")


HUB = os.path.join(os.path.dirname(__file__), "hub_server.py")


@pytest.mark.slow
@pytest.mark.reference
def test_tasks_come_from_the_hub_at_their_pins_and_afterwards_from_the_cache(tmp_path):
    root = tmp_path / "hub"
    written = {"tabfquad": write_beir, "v2-esg": write_v2, "v3-hr": write_v3}
    for name, layout in written.items():
        edition = asked_for(name).tasks[0].editions["mteb"]
        for revision in (edition.revision, "main"):
            layout(root / "datasets" / edition.repository / revision)
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, HUB, str(root)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    address = server.stdout.readline().strip()

    def evaluate(*more):
        names = [word for name in written for word in ("--on", name)]
        return subprocess.run(
            [sys.executable, "-m", "coltrain", "eval", "tiny", *names, "--json", *more],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_DATASETS_CACHE": str(tmp_path / "home" / "datasets"),
                "no_proxy": "127.0.0.1",
            },
        )

    try:
        first = evaluate("--allow-other-counts")
    finally:
        server.terminate()
        server.wait(timeout=10)
        server.stdout.close()
    # The hub is gone from here on.
    assert first.returncode == 0, first.stderr
    results = json.loads(first.stdout)["results"]
    for result, name in zip(results, written, strict=True):
        edition = asked_for(name).tasks[0].editions["mteb"]
        assert result["data"]["revision"] == edition.revision
        assert result["data"]["repository"] == edition.repository
    assert [result["num_queries"] for result in results] == [3, 8, 12]
    # Of the six copies of v3's corpus one was fetched.
    fetched = [line for line in (tmp_path / "log").read_text().splitlines() if "GET" in line]
    corpora = {line.split("/resolve/")[1] for line in fetched if "-corpus/" in line}
    assert len(corpora) == 1

    again = evaluate("--allow-other-counts")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["results"] == results
    refused = evaluate()
    assert refused.returncode == 2
    assert "DataError [other-counts]" in refused.stderr
