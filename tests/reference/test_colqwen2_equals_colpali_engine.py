"""Embeddings, ids and adapters equal colpali-engine 0.3.18's ColQwen2, given the same weights."""

import copy

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2VLVideoProcessor

from coltrain.model.adapter import ADAPTER_NAME, adapter_tensors, lora_layers, save_adapter
from coltrain.model.build import BuiltModel
from coltrain.model.locate import tiny_folder
from coltrain.model.retriever import Retriever, load

pytestmark = [
    pytest.mark.reference,
    # peft asks transformers for a name that is on its way out.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

# float32; both sides sum in another order, and the engine pads on the left.
CLOSE = {"rtol": 0, "atol": 5e-6}
SHAPES = [(3, 2), (2, 5), (4, 4), (6, 1)]  # visual tokens across and down
QUERIES = ["iron", "a glass of water", "the light of the northern night"]


@pytest.fixture(scope="module")
def newest() -> Retriever:
    """The tiny base with the template that the engine has today."""
    return load("tiny", template="engine-0.3.13")


@pytest.fixture(scope="module")
def pages() -> list[Image.Image]:
    """Pages of noise whose grids differ."""
    draws = np.random.default_rng(0)
    return [
        Image.fromarray(draws.integers(0, 256, (28 * rows, 28 * columns, 3), np.uint8))
        for columns, rows in SHAPES
    ]


@pytest.fixture(scope="module")
def processor(newest):
    """The engine's processor over our tokenizer and image processor."""
    preparer = newest.built.preparer
    image_processor = copy.deepcopy(preparer.image_processor)
    image_processor.size["longest_edge"] = preparer.max_visual_tokens * 784
    return colqwen2_of_the_engine().ColQwen2Processor(
        image_processor=image_processor,
        tokenizer=copy.deepcopy(preparer.tokenizer),
        video_processor=Qwen2VLVideoProcessor(),
    )


def colqwen2_of_the_engine():
    # Imported here, so that collecting the fast tests needs no engine, and a missing one fails.
    from colpali_engine.models.qwen2 import colqwen2

    return colqwen2


def engine_model(model, dtype=torch.float32):
    theirs = colqwen2_of_the_engine().ColQwen2(copy.deepcopy(model.config)).to(dtype).eval()
    theirs.load_state_dict(model.state_dict(), strict=True)
    return theirs


@pytest.fixture
def theirs(newest):
    return engine_model(newest.built.model)


def embed(theirs, batch):
    """The engine's embeddings without their padding, which is on the left."""
    with torch.no_grad():
        embeddings = theirs(**batch)
    masks = batch["attention_mask"].bool()
    return [embedding[mask] for embedding, mask in zip(embeddings, masks, strict=True)]


def assert_all_close(found, expected, **tolerance):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **(tolerance or CLOSE))


def test_pages_have_the_same_ids_and_embeddings(newest, theirs, processor, pages):
    batch = processor.process_images(pages)
    assert not batch["attention_mask"].all()
    inputs = newest.built.preparer.collate_pages(
        [newest.built.preparer.prepare_page(page) for page in pages]
    )
    for number in range(len(pages)):
        expected = batch["input_ids"][number][batch["attention_mask"][number].bool()]
        assert torch.equal(inputs.input_ids[number, inputs.mask[number]], expected)
    assert torch.equal(inputs.grid_thw, batch["image_grid_thw"])
    parts = inputs.pixel_values.split(inputs.grid_thw.prod(-1).tolist())
    assert torch.equal(pad_sequence(parts, batch_first=True), batch["pixel_values"])
    assert_all_close(newest.encode_pages(pages), embed(theirs, batch))


def test_queries_have_the_same_ids_and_embeddings(newest, theirs, processor):
    queries = [*QUERIES, "where is <|endoftext|> or <|im_end|>"]
    batch = processor.process_queries(queries)
    for number, query in enumerate(queries):
        expected = batch["input_ids"][number][batch["attention_mask"][number].bool()]
        assert newest.query_ids(query) == expected.tolist()
    assert_all_close(newest.encode_queries(queries), embed(theirs, batch))


def test_the_templates_of_older_versions_are_the_engines_with_a_prefix(newest, processor):
    older = load("tiny")
    [ids] = processor.process_texts(["Query: iron" + processor.query_augmentation_token * 10])[
        "input_ids"
    ]
    assert older.query_ids("iron") == ids.tolist()
    preparer = older.built.preparer
    assert preparer.page_ids(6) == newest.built.preparer.page_ids(6)


def test_a_real_page_gets_the_same_visual_tokens_and_pixels(newest, processor):
    page = Image.fromarray(np.random.default_rng(1).integers(0, 256, (440, 340), np.uint8))
    batch = processor.process_images([page])
    ours = newest.built.preparer.prepare_page(page)
    assert batch["image_grid_thw"].tolist() == [[1, ours.grid_height, ours.grid_width]]
    assert torch.equal(batch["pixel_values"][0], ours.pixel_values)


def test_embeddings_are_equal_in_float64_too(newest, processor, pages):
    built = copy.deepcopy(newest.built)
    built.model.double()
    batch = processor.process_images(pages)
    batch["pixel_values"] = batch["pixel_values"].double()
    found = Retriever(built).encode_pages(pages)
    assert_all_close(
        found, embed(engine_model(built.model, torch.float64), batch), rtol=0, atol=1e-12
    )


@pytest.fixture
def adapted(tiny_built: BuiltModel) -> BuiltModel:
    """The tiny base with an adapter that is not zero."""
    generator = torch.Generator().manual_seed(5)
    for layer in lora_layers(tiny_built.model).values():
        up = layer.lora_B[ADAPTER_NAME].weight
        up.data.copy_(torch.empty(up.shape).normal_(std=0.02, generator=generator))
    return tiny_built


def test_an_adapter_that_coltrain_saved_does_the_same_in_the_engine(
    adapted, newest, theirs, processor, pages, tmp_path
):
    save_adapter(adapted.model, adapted.lora, "tiny", tmp_path)
    before = embed(theirs, processor.process_images(pages))
    opened = PeftModel.from_pretrained(theirs, str(tmp_path)).eval()
    expected = embed(opened, processor.process_images(pages))
    assert_all_close(Retriever(adapted).encode_pages(pages), expected)
    assert (expected[0] - before[0]).abs().max() > 0.01
    batch = processor.process_texts(
        [f"Query: {query}" + processor.query_augmentation_token * 10 for query in QUERIES]
    )
    assert_all_close(Retriever(adapted).encode_queries(QUERIES), embed(opened, batch))


def test_the_engine_opens_the_base_and_the_adapter_by_folder(
    adapted, newest, processor, pages, tmp_path
):
    whole = (
        colqwen2_of_the_engine()
        .ColQwen2.from_pretrained(str(tiny_folder()), dtype=torch.float32)
        .eval()
    )
    assert_all_close(newest.encode_pages(pages), embed(whole, processor.process_images(pages)))
    save_adapter(adapted.model, adapted.lora, str(tiny_folder()), tmp_path)
    opened = (
        colqwen2_of_the_engine().ColQwen2.from_pretrained(str(tmp_path), dtype=torch.float32).eval()
    )
    expected = embed(opened, processor.process_images(pages))
    assert_all_close(Retriever(adapted).encode_pages(pages), expected)


def test_an_adapter_that_the_engine_saved_loads_in_coltrain(adapted, theirs, tmp_path):
    (tmp_path / "ours").mkdir()
    save_adapter(adapted.model, adapted.lora, str(tiny_folder()), tmp_path / "ours")
    PeftModel.from_pretrained(theirs, str(tmp_path / "ours")).save_pretrained(tmp_path / "theirs")
    loaded = load(tmp_path / "theirs", max_visual_tokens=64)
    expected = adapter_tensors(adapted.model)
    for key, tensor in adapter_tensors(loaded.built.model).items():
        assert torch.equal(tensor, expected[key])
