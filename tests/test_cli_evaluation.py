"""`coltrain eval` and `coltrain explain`: what they write, print and refuse."""

import io
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval
import torch
from report_reader import read
from small_pages import small_page, small_query

from coltrain.evaluation.results import results_from_json


@pytest.fixture(autouse=True, scope="module")
def _cache_of_datasets(tmp_path_factory):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets-cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


def write_corpus(folder, numbers, **replaced):
    """Small pages in the corpus layout, a query each."""

    def png(number):
        stream = io.BytesIO()
        small_page(number).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    tables = {
        "corpus": {"doc_id": [f"p{n}" for n in numbers], "image": [png(n) for n in numbers]},
        "queries": {
            "query_id": [f"q{n}" for n in numbers],
            "text": [small_query(n) for n in numbers],
        },
        "qrels": {
            "query_id": [f"q{n}" for n in numbers],
            "doc_id": [f"p{n}" for n in numbers],
            "score": [1 for _ in numbers],
        },
    } | replaced
    folder.mkdir(parents=True)
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of five small pages and queries."""
    return write_corpus(tmp_path_factory.mktemp("data") / "five", range(100, 105))


def refused(finished, *words):
    """One clear message on stderr, nothing on stdout, exit code 2."""
    assert finished.code == 2, finished.err
    assert finished.out == ""
    assert "Traceback" not in finished.err
    for word in words:
        assert word in finished.err


def test_eval_equals_what_encode_and_pytrec_eval_give_outside(coltrain, data, tmp_path):
    pages = []
    for number in range(100, 105):
        small_page(number).save(tmp_path / f"{number}.png")
        pages.append(f"{number}.png")
    finished = coltrain("eval", "tiny", "--on", data, "--json", "--ranking", "r.trec")
    assert finished.code == 0, finished.err
    document = json.loads(finished.out)
    [result] = results_from_json(document)
    (tmp_path / "q.txt").write_text("".join(f"{q}\n" for q in texts_of(data)), encoding="utf-8")
    assert (
        coltrain("encode", "tiny", "--pages", *pages, "--queries", "q.txt", "--out", "e.npz").code
        == 0
    )
    arrays = np.load(tmp_path / "e.npz")
    outside = {
        f"q{100 + q}": {
            f"p{100 + p}": float((arrays[f"query_{q}"] @ arrays[f"page_{p}"].T).max(1).sum())
            for p in range(5)
        }
        for q in range(5)
    }
    for query, scores in outside.items():
        ranked = sorted(scores, key=scores.get, reverse=True)
        assert result.ranking[query]["page_ids"] == ranked
        assert result.ranking[query]["scores"] == pytest.approx(
            [scores[p] for p in ranked], rel=1e-6
        )
    with (tmp_path / "r.trec").open() as file:
        run = pytrec_eval.parse_run(file)
    qrels = {f"q{n}": {f"p{n}": 1} for n in range(100, 105)}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.5", "map"}).evaluate(run)
    for query, values in result.per_query.items():
        assert values["nDCG@5"] == pytest.approx(theirs[query]["ndcg_cut_5"], abs=1e-9)
        assert values["MAP"] == pytest.approx(theirs[query]["map"], abs=1e-9)
    assert document["encoder"]["weights"]
    assert document["scoring"] == {"dtype": "float32", "padding": "masked", "page_block": 128}
    assert result.intervals["nDCG@5"]["low"] <= result.measures["nDCG@5"]


def texts_of(folder):
    return pq.read_table(folder / "queries.parquet")["text"].to_pylist()


def test_batch_sizes_write_the_same_bytes(coltrain, data, tmp_path):
    files = []
    for size in (1, 3, 32):
        name = f"{size}.trec"
        assert (
            coltrain("eval", "tiny", "--on", data, "--batch-size", size, "--ranking", name).code
            == 0
        )
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_folder_gets_everything_and_goes_on(coltrain, data, tmp_path):
    command = ["eval", "tiny", "--on", data, "--out", "ev", "--json"]
    first = coltrain(*command)
    assert first.code == 0, first.err
    assert "5 pages encoded, 0 found" in first.err
    document = json.loads((tmp_path / "ev" / "evaluation.json").read_text())
    assert document == json.loads(first.out)
    [ranking] = (tmp_path / "ev" / "rankings").glob("*.trec")
    assert len(ranking.read_text().splitlines()) == 25
    page = read((tmp_path / "ev" / "evaluation.html").read_text(encoding="utf-8"))
    assert "95 % interval" in page.text
    again = coltrain(*command, "--html", "other.html")
    assert "0 pages encoded, 5 found" in again.err
    assert json.loads(again.out)["results"] == document["results"]
    assert (tmp_path / "other.html").is_file()
    refused(
        coltrain(*command, "--max-visual-tokens", 16), "UsageError [other-evaluation]", "tiny on"
    )
    assert json.loads((tmp_path / "ev" / "evaluation.json").read_text()) == document


def test_a_cache_is_shared_and_half_precision_says_what_it_moved(coltrain, data):
    assert "5 pages encoded" in coltrain("eval", "tiny", "--on", data, "--cache", "c").err
    assert "0 pages encoded, 5 found" in coltrain("eval", "tiny", "--on", data, "--cache", "c").err
    half = coltrain(
        *["eval", "tiny", "--on", data, "--cache", "c", "--cache-dtype", "float16", "--json"]
    )
    assert "5 pages encoded" in half.err
    assert "float16 on disk moved scores by" in half.err
    [rounding] = json.loads(half.out)["rounding"].values()
    assert 0 < rounding["max_score_change"] < 0.02


def test_top_k_cuts_rankings(coltrain, data, tmp_path):
    finished = coltrain("eval", "tiny", "--on", data, "--top-k", 2, "--ranking", "r", "--json")
    [result] = results_from_json(json.loads(finished.out))
    assert {len(found["page_ids"]) for found in result.ranking.values()} == {2}
    assert len((tmp_path / "r").read_text().splitlines()) == 10


def test_noise_is_printed_and_in_the_document(coltrain, data):
    finished = coltrain("eval", "tiny", "--on", data, "--noise")
    assert finished.code == 0, finished.err
    assert "weights in bfloat16" in finished.out
    document = json.loads(coltrain("eval", "tiny", "--on", data, "--noise", "--json").out)
    [floors] = document["noise"].values()
    assert [floor["name"] for floor in floors][:2] == [
        "batches of 4, padded",
        "batches of 32, padded",
    ]


def test_zero_padding_is_another_scoring(coltrain, data):
    finished = coltrain("eval", "tiny", "--on", data, "--padding", "zero", "--json")
    assert json.loads(finished.out)["scoring"]["padding"] == "zero"


def test_what_cannot_be_written_is_refused_before_anything_is_encoded(coltrain, data, tmp_path):
    command = ["eval", "tiny", "--on", data]
    (tmp_path / "file").write_text("")
    for option, value in (("--ranking", "file/r"), ("--html", "file/p.html"), ("--out", "file")):
        refused(coltrain(*command, option, value), "UsageError [cannot-write]")
    refused(
        coltrain(*command, "--on", "tiny", "--ranking", "r"),
        "UsageError [one-ranking-file]",
        "--out FOLDER",
    )
    refused(coltrain(*command, "--cache", "file"), "RunError [cannot-write-cache]")
    spaced = write_corpus(
        tmp_path / "spaced",
        range(2),
        qrels={"query_id": ["q 0"], "doc_id": ["p0"], "score": [1]},
        queries={"query_id": ["q 0", "q1"], "text": ["red", "blue"]},
    )
    refused(
        coltrain("eval", "tiny", "--on", spaced, "--ranking", "r"),
        "DataError [id-with-space]",
        "'q 0'",
    )
    finished = coltrain("eval", "tiny", "--on", spaced, "--out", "ev")
    assert finished.code == 0
    assert "note: no ranking file" in finished.err


@pytest.mark.parametrize(
    "words",
    [["--batch-size", "0"], ["--top-k", "0"], ["--cache-dtype", "int8"], ["--padding", "x"]],
)
def test_values_that_there_are_not_are_refused(coltrain, data, words):
    finished = coltrain("eval", "tiny", "--on", data, *words)
    assert finished.code == 2
    assert words[0] in finished.err
    assert "Traceback" not in finished.err


def test_explain_takes_a_score_apart(coltrain, tmp_path):
    small_page(1).save(tmp_path / "a.png")
    command = ["explain", "tiny", "--query", "red glass", "--page", "a.png"]
    finished = coltrain(*command, "--html", "e.html")
    assert finished.code == 0, finished.err
    assert "the query" in finished.out
    assert read((tmp_path / "e.html").read_text(encoding="utf-8")).unclosed == []
    document = json.loads(coltrain(*command, "--json").out)
    assert (document["rows"], document["columns"], document["page"]) == (2, 3, "a.png")
    total = sum(token["contribution"] for token in document["tokens"])
    assert total == pytest.approx(document["score"], rel=1e-6)
    for token in document["tokens"]:
        assert token["similarity"] == torch.tensor(token["similarities"]).max().item()


def test_what_explain_cannot_take_is_refused(coltrain, tmp_path):
    small_page(1).save(tmp_path / "a.png")
    refused(coltrain("explain", "tiny", "--query", " ", "--page", "a.png"), "[empty-query]")
    refused(coltrain("explain", "tiny", "--query", "x", "--page", "b.png"), "[file-not-found]")
    (tmp_path / "file").write_text("")
    refused(
        coltrain("explain", "tiny", "--query", "x", "--page", "a.png", "--html", "file/e.html"),
        "UsageError [cannot-write]",
    )
