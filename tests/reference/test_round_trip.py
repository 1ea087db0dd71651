"""Train, export, evaluate in each library, come back: nDCG@5 stays the same to 1e-3."""

from itertools import islice

import pytest
import torch
from transformers import Qwen2VLImageProcessorPil

from coltrain.data import load_collection
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.measures import measure
from coltrain.model.export import export_model
from coltrain.model.retriever import load
from coltrain.recipe import Source, load_recipe, template_named
from coltrain.training.loop import Training

pytestmark = [
    pytest.mark.reference,
    pytest.mark.slow,
    # peft asks transformers for a name that is on its way out.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
STEPS, PAGES = 6, 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run, with the template of the published models."""
    folder = tmp_path_factory.mktemp("round") / "run"
    recipe = load_recipe("tiny", [f"train.steps={STEPS}", "eval.data=[]", "eval.every=null"])
    list(Training(recipe, folder, torch.device("cpu")).events())
    return folder


@pytest.fixture(scope="module")
def data():
    """Sixty drawn pages that were not trained on, and their queries."""
    whole = load_collection(Source.model_validate("tiny:test"), "test")
    queries = list(islice(whole.queries, PAGES))
    names = {page for query in queries for page in whole.qrels[query.id]}
    places = [place for place, name in enumerate(whole.page_ids) if name in names]
    pages = {whole.page_ids[place]: whole.page_image(place) for place in places}
    assert len(pages) == PAGES
    return pages, queries, {query.id: whole.qrels[query.id] for query in queries}


def ndcg(data, queries, pages):
    """nDCG@5 of a plain MaxSim over embeddings, outside coltrain's own evaluation."""
    names, asked, judged = data
    found = {
        query.id: {
            name: (embedding @ page.T).amax(dim=1).sum().item()
            for name, page in zip(names, pages, strict=True)
        }
        for query, embedding in zip(asked, queries, strict=True)
    }
    return measure(judged, found).measures["nDCG@5"]


def ours(data, retriever):
    pages, queries, _ = data
    embedded = retriever.encode_queries([query.text for query in queries])
    return ndcg(data, embedded, retriever.encode_pages(pages.values()))


@pytest.fixture(scope="module")
def expected(run, data):
    trained = ours(data, load(run))
    assert 0.3 < trained < 0.999
    assert abs(trained - ours(data, load("tiny"))) > 0.05
    return trained


def unpadded(embeddings, batch):
    masks = batch["attention_mask"].bool()
    return [embedding[mask] for embedding, mask in zip(embeddings, masks, strict=True)]


@pytest.mark.parametrize("merge", [False, True])
def test_colpali_engine_and_back(merge, run, data, expected, tmp_path):
    from colpali_engine.models import ColQwen2, ColQwen2Processor

    export_model(run, "colpali-engine", tmp_path / "out", merge=merge)
    model = ColQwen2.from_pretrained(str(tmp_path / "out"), dtype=torch.float32).eval()
    processor = ColQwen2Processor.from_pretrained(str(tmp_path / "out"))
    processor.query_prefix = "Query: "  # as the model card says
    pages, queries, judged = data
    with torch.no_grad():
        texts = processor.process_queries([query.text for query in queries])
        texts = unpadded(model(**texts), texts)
        images = processor.process_images(list(pages.values()))
        images = unpadded(model(**images), images)
    scores = processor.score_multi_vector(texts, images, device="cpu")
    by_engine = {
        query.id: dict(zip(pages, row.tolist(), strict=True))
        for query, row in zip(queries, scores, strict=True)
    }
    assert abs(measure(judged, by_engine).measures["nDCG@5"] - expected) < 1e-3
    assert abs(ours(data, load(tmp_path / "out")) - expected) < 1e-3


def test_sentence_transformers_and_back(run, data, expected, tmp_path):
    from sentence_transformers import MultiVectorEncoder

    export_model(run, "sentence-transformers", tmp_path / "out")
    model = MultiVectorEncoder(str(tmp_path / "out"), device="cpu")
    pages, queries, _ = data
    texts = model.encode_query([query.text for query in queries])
    images = model.encode_document(list(pages.values()))
    assert abs(ndcg(data, texts, images) - expected) < 1e-3
    assert abs(ours(data, load(tmp_path / "out")) - expected) < 1e-3


def test_transformers_and_back(run, data, expected, tmp_path, capsys):
    from transformers import ColQwen2ForRetrieval, ColQwen2Processor

    export_model(run, "transformers", tmp_path / "out")
    model = ColQwen2ForRetrieval.from_pretrained(str(tmp_path / "out"), dtype=torch.float32).eval()
    processor = ColQwen2Processor.from_pretrained(str(tmp_path / "out"), backend="pil")
    assert isinstance(processor.image_processor, Qwen2VLImageProcessorPil)
    pages, queries, _ = data
    back = load(tmp_path / "out")
    assert abs(ours(data, back) - expected) < 1e-3
    preparer = back.built.preparer
    # Its own template on both sides, with a line break after the query.
    preparer.template = template_named("transformers-native")
    shipped, positioned, texts = [], [], []
    with torch.no_grad():
        for page in pages.values():
            batch = processor(images=[page])
            shipped += model(**batch).embeddings
            inputs = preparer.collate_pages([preparer.prepare_page(page)])
            positioned += model(**batch, position_ids=inputs.position_ids).embeddings
        for query in queries:
            texts += model(**processor(text=[query.text])).embeddings
    same_template = ours(data, back)
    assert abs(ndcg(data, texts, positioned) - same_template) < 1e-3
    with capsys.disabled():
        print(
            f"\ntransformers, nDCG@5: as it ships {ndcg(data, texts, shipped):.4f}, with "
            f"position_ids {same_template:.4f}, and with the model's template {expected:.4f}"
        )


def test_coltrain_s_own_evaluation_of_what_came_back_is_the_run_s(run, tmp_path):
    export_model(run, "sentence-transformers", tmp_path / "out")
    dev = load_collection(Source.model_validate("tiny:dev"), "dev")
    before = evaluate(load(run), dev).result.measures["nDCG@5"]
    after = evaluate(load(tmp_path / "out"), dev).result.measures["nDCG@5"]
    assert abs(before - after) < 1e-3
    assert before > 0.3
