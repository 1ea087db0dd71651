"""A registered ViDoRe task from a folder, through mteb itself and through our evaluator.

Importing mteb takes ten seconds of a processor, so this is one module with one import.
"""

from pathlib import Path

import pytest
from evaluation_data import PART, image, write, write_beir, write_v2

from coltrain.errors import DataError, UsageError
from coltrain.evaluation.benchmarks.loading import load_tasks
from coltrain.evaluation.benchmarks.names import asked_for
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.protocols.protocol import protocol_named

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Please use a different"),
]

README = (
    "---\nconfigs:\n"
    + "".join(
        f"- config_name: {table}\n  data_files:\n  - split: test\n    path: {table}/*.parquet\n"
        for table in ("corpus", "queries", "qrels")
    )
    + "---\n"
)


@pytest.fixture(scope="module", autouse=True)
def offline(_cache_of_datasets):
    import datasets
    import huggingface_hub

    assert datasets.config.HF_HUB_OFFLINE
    assert huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.fixture(scope="module")
def tabfquad(tmp_path_factory) -> Path:
    """Twelve pages of which two are alike, so that scores tie; two queries share a page."""
    folder = tmp_path_factory.mktemp("data") / "tabfquad"
    write_beir(folder, num_pages=12, num_queries=9)
    pages = [*range(10), 9, 1]  # pages 10 and 11 are 9 and 1 again
    write(folder / "corpus" / PART, corpus__id=list(range(12)), image=[image(p) for p in pages])
    write(
        folder / "qrels" / PART,
        query__id=[0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        corpus__id=[1, 4, 9, 10, 11, 2, 3, 5, 10, 0],
        score=[1.0] * 10,
    )
    (folder / "README.md").write_text(README)
    return folder


def load(name: str, folder: Path):
    [data] = load_tasks(asked_for(name).tasks, data_dir=folder, allow_other_counts=True)
    return data


@pytest.fixture(scope="module")
def search_model(tiny_retriever):
    from coltrain.mteb import SearchModel, model_meta

    return SearchModel(tiny_retriever, model_meta(tiny_retriever, "coltrain/tiny", "0"))


def test_a_registered_task_has_the_same_numbers_through_mteb(
    tabfquad, tiny_retriever, search_model, tmp_path
):
    import json

    from coltrain.evaluation.mteb_run import evaluate_through_mteb

    data = load("tabfquad", tabfquad)
    ours = evaluate(tiny_retriever, data.collection, top_k=12)
    theirs = evaluate_through_mteb(search_model, data, tmp_path)
    assert len(theirs.measures) > 20
    for name in ("nDCG@1", "nDCG@5", "nDCG@10", "Recall@1", "Recall@5", "Recall@10", "MRR@10"):
        assert theirs.measures[name] == pytest.approx(ours.result.measures[name], abs=5.1e-6)
    assert 0 < theirs.measures["nDCG@5"] < 1
    # The rankings are the same to the last page, on scores that tie.
    rankings = {q: list(found) for q, found in theirs.rankings["default"].items()}
    assert rankings == {q: best["page_ids"] for q, best in ours.result.ranking.items()}
    assert any(len(set(best["scores"])) < 12 for best in ours.result.ranking.values())

    # What a leaderboard takes.
    folder = tmp_path / "results" / "coltrain__tiny" / "0"
    written = json.loads((folder / "VidoreTabfquadRetrieval.json").read_text())
    [scores] = written["scores"]["test"]
    assert scores["ndcg_at_5"] == theirs.measures["nDCG@5"] == scores["main_score"]
    assert written["dataset_revision"] == data.task.editions["mteb"].revision
    meta = json.loads((folder / "model_meta.json").read_text())
    assert (meta["name"], meta["revision"], meta["embed_dim"]) == ("coltrain/tiny", "0", 128)
    assert meta["modalities"] == ["image", "text"]
    assert meta["model_type"] == ["late-interaction"]


def test_the_task_reads_the_hub_again_afterwards(tabfquad, search_model):
    import mteb

    from coltrain.evaluation.mteb_run import evaluate_through_mteb

    evaluate_through_mteb(search_model, load("tabfquad", tabfquad))
    task = mteb.get_task("VidoreTabfquadRetrieval")
    assert task.metadata.dataset["path"] == "mteb/tabfquad_test_subsampled_beir"


def test_languages_are_subsets_and_the_score_is_their_mean(tmp_path, tiny_retriever, search_model):
    from coltrain.evaluation.benchmarks.scores import task_result
    from coltrain.evaluation.mteb_run import evaluate_through_mteb

    folder = write_v2(tmp_path / "v2-esg")
    (folder / "README.md").write_text(README)
    data = load("v2-esg", folder)
    ours = task_result(data, evaluate(tiny_retriever, data.collection).result)
    theirs = evaluate_through_mteb(search_model, data)
    assert list(theirs.per_subset) == ["french", "spanish", "english", "german"]
    for language, scores in theirs.per_subset.items():
        assert scores["nDCG@5"] == pytest.approx(ours.subsets[language]["nDCG@5"], abs=5.1e-6)
    assert theirs.measures["nDCG@5"] == pytest.approx(ours.measures["nDCG@5"], abs=5.1e-6)
    assert 0 < theirs.measures["nDCG@5"] < 1


def test_our_protocol_is_mteb_s_own_wrapper(tabfquad, tiny_retriever):
    """The same embeddings through mteb's encoder wrapper: padded, in one tensor, its similarity."""
    import mteb
    import torch
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor
    from mteb.types import PromptType

    from coltrain.evaluation.mteb_run import _our_names, _reading_from
    from coltrain.mteb import model_meta

    class Wrapper:
        """`ColPaliEngineWrapper` around our model: its padding and its similarity."""

        mteb_model_meta = model_meta(tiny_retriever, "coltrain/wrapped", "0")

        def encode(self, inputs, *, prompt_type, **_):
            rows = []
            for batch in inputs:
                if prompt_type == PromptType.query:
                    rows += tiny_retriever.encode_queries(batch["text"])
                else:
                    pages = [page.convert("RGB") for page in batch["image"]]
                    rows += tiny_retriever.encode_pages(pages)
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

        def similarity(self, queries, pages):
            return BaseVisualRetrieverProcessor.score_multi_vector(queries, pages, device="cpu")

        def similarity_pairwise(self, queries, pages):
            raise NotImplementedError

    data = load("tabfquad", tabfquad)
    task = mteb.get_task(data.task.name)
    with _reading_from(task, tabfquad):
        found = mteb.evaluate(
            Wrapper(), task, cache=None, co2_tracker=False, overwrite_strategy="always"
        )
    theirs = _our_names(found.task_results[0].scores["test"][0])
    scoring = protocol_named("mteb-2.19.2").scoring
    ours = evaluate(tiny_retriever, data.collection, scoring=scoring).result.measures
    for name in ("nDCG@1", "nDCG@5", "nDCG@10", "Recall@5", "MRR@10"):
        assert theirs[name] == pytest.approx(ours[name], abs=5.1e-6)


def test_data_that_mteb_does_not_read_are_refused(tmp_path, tabfquad, search_model):
    from coltrain.evaluation.mteb_run import evaluate_through_mteb

    bare = write_beir(tmp_path / "bare")
    with pytest.raises(DataError) as caught:
        evaluate_through_mteb(search_model, load("tabfquad", bare))
    assert caught.value.code == "mteb-needs-readme"


def test_a_task_with_text_beside_its_pages_is_refused(search_model):
    from types import SimpleNamespace

    from datasets import Dataset

    corpus = Dataset.from_dict({"id": ["a"], "image": [None], "text": ["words"]})
    task = SimpleNamespace(name="Vidore3HrRetrieval.v2")
    with pytest.raises(UsageError, match="documents with id, image, text"):
        search_model.index(corpus, task_metadata=task)


def test_meta_has_what_somebody_says_and_refuses_what_mteb_does_not_know(tiny_retriever):
    from coltrain.errors import ModelError
    from coltrain.mteb import load, model_meta

    meta = model_meta(
        tiny_retriever, "me/model", license="mit", training_datasets={"VidoreDocVQARetrieval"}
    )
    assert (meta.license, meta.training_datasets) == ("mit", {"VidoreDocVQARetrieval"})
    assert meta.loader is load
    assert meta.use_instructions
    with pytest.raises(ModelError, match="licence"):
        model_meta(tiny_retriever, "me/model", licence="mit")
    with pytest.raises(UsageError, match="organisation/name"):
        model_meta(tiny_retriever, "model")


def test_the_command_runs_through_mteb_and_leaves_its_files(
    tabfquad, tmp_path, monkeypatch, capsys
):
    import json
    import sys

    from coltrain import cli

    def run(*more):
        where = ("--on", "tabfquad", "--data-dir", tabfquad, "--allow-other-counts", "--json")
        monkeypatch.setattr(sys, "argv", ["coltrain", "eval", "tiny", *map(str, (*where, *more))])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code
        return json.loads(capsys.readouterr().out)

    monkeypatch.chdir(tmp_path)
    ours = run()
    theirs = run("--mteb", "--mteb-results", tmp_path / "r", "--mteb-name", "me/tiny")
    assert theirs["evaluator"].startswith("mteb 2.")
    [mine], [other] = ours["results"], theirs["results"]
    for name in ("nDCG@5", "Recall@5", "MRR@10"):
        assert other["measures"][name] == pytest.approx(mine["measures"][name], abs=5.1e-6)
    assert other["per_query"] == {q: pytest.approx(v) for q, v in mine["per_query"].items()}
    assert other["ranking"] == mine["ranking"]
    assert list((tmp_path / "r" / "results" / "me__tiny").rglob("VidoreTabfquadRetrieval.json"))
