"""Embeddings and scores equal colpali-engine's and transformers' as they ship, by switches alone.

From the same small weights, with uneven pages that have to be resized, in one batch there and one by
one here: what differs is which of our settings reproduce which library.
"""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ColQwen2Config,
    ColQwen2ForRetrieval,
    ColQwen2Processor,
    Qwen2VLImageProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
)

from coltrain.late_interaction import maxsim_zero_padded
from coltrain.model.retriever import load

pytestmark = pytest.mark.reference

CLASSES = {"pil": Qwen2VLImageProcessorPil, "torchvision": Qwen2VLImageProcessor}
BUDGET = 20
QUERIES = ["iron", "a glass of water", "the light of the northern night", ""]
# Width and height in pixels; none is a multiple of 28.
SIZES = [(301, 199), (90, 310), (175, 177), (401, 70), (33, 41)]
CLOSE = {"rtol": 0, "atol": 1e-5}  # float32, summed in another order and padded on the left


@pytest.fixture(autouse=True)
def _plain_torch(monkeypatch):
    # Never the fused kernel, should it be installed: it is not what is compared.
    monkeypatch.setenv("COLPALI_SCORES_BACKEND", "torch")


@pytest.fixture(scope="module")
def pages():
    draws = np.random.default_rng(3)
    return [
        Image.fromarray(
            draws.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3), np.uint8)
        ).resize((width, height), Image.Resampling.NEAREST)
        for width, height in SIZES
    ]


@pytest.fixture(params=CLASSES)
def backend(request):
    return request.param


def ours(**settings):
    return load("tiny", max_visual_tokens=BUDGET, **settings)


def processor_of(kind, backend, **more):
    """A library's processor over our tokenizer and the settings of our image processor."""
    preparer = ours(image_backend=backend).built.preparer
    image_processor = copy.deepcopy(preparer.image_processor)
    image_processor.size["longest_edge"] = BUDGET * 784
    tokenizer = copy.deepcopy(preparer.tokenizer)
    assert type(image_processor) is CLASSES[backend]
    return kind(image_processor=image_processor, tokenizer=tokenizer, **more)


def unpadded(embeddings, batch):
    masks = batch["attention_mask"].bool()
    assert not masks.all()
    return [embedding[mask] for embedding, mask in zip(embeddings, masks, strict=True)]


def assert_all_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def largest_difference(found, expected):
    return max((one - other).abs().max().item() for one, other in zip(found, expected, strict=True))


class Engine:
    """colpali-engine 0.3.18 with the tiny base."""

    def __init__(self, backend):
        from colpali_engine.models.qwen2 import colqwen2

        built = ours().built
        self.model = colqwen2.ColQwen2(copy.deepcopy(built.model.config)).eval()
        self.model.load_state_dict(built.model.state_dict(), strict=True)
        self.processor = processor_of(
            colqwen2.ColQwen2Processor, backend, video_processor=Qwen2VLVideoProcessor()
        )

    @torch.no_grad()
    def embed(self, batch):
        return unpadded(self.model(**batch), batch)


def test_the_engine_is_reproduced_with_either_back_end(backend, pages):
    engine = Engine(backend)
    retriever = ours(template="engine-0.3.13", image_backend=backend)
    queries = engine.embed(engine.processor.process_queries(QUERIES))
    documents = engine.embed(engine.processor.process_images(pages))
    assert_all_close(retriever.encode_queries(QUERIES), queries)
    assert_all_close(retriever.encode_pages(pages), documents)
    scores = engine.processor.score_multi_vector(queries, documents, device="cpu")
    found = maxsim_zero_padded(retriever.encode_queries(QUERIES), retriever.encode_pages(pages))
    # 30 query tokens of at most 1e-5 each, and most of them far less.
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-4)
    # The case bites: the other back end is another model input.
    other = ours(
        template="engine-0.3.13",
        image_backend={"pil": "torchvision", "torchvision": "pil"}[backend],
    )
    assert largest_difference(other.encode_pages(pages), documents) > 3e-5


class Native:
    """transformers' own ColQwen2 with the tiny base."""

    def __init__(self, backend):
        built = ours().built
        vlm = built.model.config.to_dict()
        config = ColQwen2Config(vlm_config=vlm, embedding_dim=built.model.dim)
        self.model = ColQwen2ForRetrieval(config).eval()
        renamed = {}
        for name, tensor in built.model.state_dict().items():
            head, _, rest = name.partition(".")
            prefix = "embedding_proj_layer." if head == "custom_text_proj" else f"vlm.{head}."
            renamed[prefix + rest] = tensor
        self.model.load_state_dict(renamed, strict=True)
        self.processor = processor_of(ColQwen2Processor, backend)

    @torch.no_grad()
    def embed(self, batch, **more):
        return unpadded(self.model(**batch, **more).embeddings, batch)


def test_transformers_is_reproduced_as_it_ships(backend, pages):
    native = Native(backend)
    settings = {"template": "transformers-native", "image_backend": backend, "alpha": "white"}
    retriever = ours(positions="sequential", **settings)
    queries = native.embed(native.processor.process_queries(QUERIES))
    documents = native.embed(native.processor.process_images(pages))
    assert_all_close(retriever.encode_queries(QUERIES), queries)
    assert_all_close(retriever.encode_pages(pages), documents)
    scores = native.processor.score_retrieval(queries, documents)
    found = maxsim_zero_padded(retriever.encode_queries(QUERIES), retriever.encode_pages(pages))
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-4)
    assert largest_difference(ours(**settings).encode_pages(pages), documents) > 0.01


def test_transformers_with_our_positions_is_the_published_model(backend, pages):
    native = Native(backend)
    retriever = ours(template="transformers-native", image_backend=backend)
    preparer = retriever.built.preparer
    batch = native.processor.process_images(pages)
    inputs = preparer.collate_pages([preparer.prepare_page(page) for page in pages])
    # Both pad on the right here, so that our positions stand where its tokens do.
    assert torch.equal(batch["attention_mask"].bool(), inputs.mask)
    documents = native.embed(batch, position_ids=inputs.position_ids)
    assert_all_close(retriever.encode_pages(pages), documents)


def test_a_transparent_page_is_reproduced_by_the_rule_for_alpha(backend, pages):
    glass = pages[0].copy()
    glass.putalpha(Image.new("L", glass.size, 100))
    batch = [glass, pages[1]]
    engine = Engine(backend)
    dropped = engine.embed(engine.processor.process_images(batch))
    retriever = ours(template="engine-0.3.13", image_backend=backend)
    assert_all_close(retriever.encode_pages(batch), dropped)
    native = Native(backend)
    on_white = native.embed(native.processor.process_images(batch))
    white = ours(
        template="transformers-native", image_backend=backend, alpha="white", positions="sequential"
    )
    assert_all_close(white.encode_pages(batch), on_white)
    as_dropped = ours(template="transformers-native", image_backend=backend, positions="sequential")
    assert largest_difference(as_dropped.encode_pages(batch)[:1], on_white[:1]) > 0.01
