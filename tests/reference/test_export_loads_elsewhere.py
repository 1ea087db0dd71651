"""Exported folders in the libraries that they are for: no warning, the same embeddings.

colpali-engine 0.3.18, sentence-transformers 6.2.0, transformers 5.23, peft: each opens the folder by
its own `from_pretrained`, with its own processor; float32, 1e-5. Pages that need no resizing go
through each library's default (torchvision) image processor, and others through Pillow's.
"""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from coltrain.model.adapter import ADAPTER_NAME, lora_layers
from coltrain.model.export import export_model
from coltrain.model.export.model_card import write_model_card
from coltrain.model.folder import save_model
from coltrain.model.retriever import load
from coltrain.recipe import template_named

pytestmark = [
    pytest.mark.reference,
    # peft asks transformers for a name that is on its way out.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

CLOSE = {"rtol": 0, "atol": 1e-5}
SHAPES = [(3, 2), (2, 5), (4, 4), (6, 1)]  # visual tokens across and down
QUERIES = ["iron", "a glass of water ", " two\nlines", "the light of the northern night"]
ERAS = ["engine-0.3.13", "engine-0.3.12", "engine-0.3.3"]


def noise(seed, height, width):
    draws = np.random.default_rng(seed)
    return Image.fromarray(draws.integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def pages():
    """Uneven pages within the budget, on the grid."""
    return [noise(number, 28 * rows, 28 * columns) for number, (columns, rows) in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def large_pages():
    """Pages that have to be resized to 64 visual tokens."""
    return [noise(11, 340, 260), noise(12, 300, 500)]


@pytest.fixture(autouse=True)
def _a_logged_warning_is_an_error(caplog):
    """Libraries warn through logging as well; a load report is such a warning."""
    names = ("transformers", "sentence_transformers", "peft", "colpali_engine")
    for name in names:
        logging.getLogger(name).propagate = True
    yield
    said = [
        record.getMessage()
        for record in caplog.records
        if record.name.split(".")[0] in names and record.levelno >= logging.WARNING
    ]
    assert said == []


@pytest.fixture
def trained(tiny_built, tmp_path):
    """Writes a model's folder as a run does, with an adapter as if trained, of an era."""

    def make(era):
        generator = torch.Generator().manual_seed(5)
        for layer in lora_layers(tiny_built.model).values():
            up = layer.lora_B[ADAPTER_NAME].weight
            up.data.copy_(torch.empty(up.shape).normal_(std=0.02, generator=generator))
        built = replace(
            tiny_built, preparer=load("tiny", template=era, max_visual_tokens=64).built.preparer
        )
        save_model(built, tmp_path / "trained")
        return tmp_path / "trained"

    return make


def assert_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def unpadded(embeddings, batch):
    """Without the padding, which is on the left in colpali-engine."""
    masks = batch["attention_mask"].bool()
    return [embedding[mask] for embedding, mask in zip(embeddings, masks, strict=True)]


def engine_embeddings(model, processor, template, queries, pages):
    processor.query_prefix = template.query_prefix
    processor.visual_prompt_prefix = template.page_prompt
    with torch.no_grad():
        texts = processor.process_queries(queries, suffix=template.query_suffix)
        images = processor.process_images(pages)
        return unpadded(model(**texts), texts), unpadded(model(**images), images)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("era", ERAS)
def test_colpali_engine(era, merge, trained, pages, large_pages, tmp_path):
    from colpali_engine.models import ColQwen2, ColQwen2Processor

    folder, out = trained(era), tmp_path / "out"
    export_model(folder, "colpali-engine", out, merge=merge)
    model = ColQwen2.from_pretrained(str(out), dtype=torch.float32).eval()
    processor = ColQwen2Processor.from_pretrained(str(out))
    ours, template = load(folder), template_named(era)
    queries, found = engine_embeddings(model, processor, template, QUERIES, pages)
    assert_close(queries, ours.encode_queries(QUERIES))
    assert_close(found, ours.encode_pages(pages))
    processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(out)
    _, found = engine_embeddings(model, processor, template, QUERIES[:1], large_pages)
    assert_close(found, ours.encode_pages(large_pages))
    if era == "engine-0.3.13":  # what it does by itself
        processor = ColQwen2Processor.from_pretrained(str(out))
        batch = processor.process_queries(QUERIES)
        with torch.no_grad():
            assert_close(unpadded(model(**batch), batch), ours.encode_queries(QUERIES))


@pytest.mark.parametrize("target", ["coltrain", "colpali-engine"])
def test_peft_puts_the_adapter_over_its_base(target, trained, pages, tmp_path):
    from colpali_engine.models import ColQwen2, ColQwen2Processor
    from peft import PeftModel

    folder, out = trained("engine-0.3.13"), tmp_path / "out"
    export_model(folder, "colpali-engine", tmp_path / "base-of")
    export_model(folder, target, out)
    base = ColQwen2.from_pretrained(str(tmp_path / "base-of" / "base"), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(out)).eval()
    processor = ColQwen2Processor.from_pretrained(str(out))
    template = template_named("engine-0.3.13")
    queries, found = engine_embeddings(model, processor, template, QUERIES, pages)
    ours = load(folder)
    assert_close(queries, ours.encode_queries(QUERIES))
    assert_close(found, ours.encode_pages(pages))


def test_auto_classes_do_not_take_another_library_s_processor(trained, tmp_path):
    from transformers import AutoProcessor, Qwen2VLProcessor

    export_model(trained("engine-0.3.13"), "colpali-engine", tmp_path / "out", merge=True)
    processor = AutoProcessor.from_pretrained(str(tmp_path / "out"))
    assert type(processor) is Qwen2VLProcessor
    # transformers' ColQwen2Processor would have put a prefix and a line break around it.
    ids = processor(text=["iron"])["input_ids"][0]
    assert list(ids) == load("tiny").built.preparer.tokenizer("iron")["input_ids"]


@pytest.mark.parametrize("era", ERAS)
def test_sentence_transformers(era, trained, pages, large_pages, tmp_path):
    from sentence_transformers import MultiVectorEncoder

    folder, out = trained(era), tmp_path / "out"
    export_model(folder, "sentence-transformers", out)
    model = MultiVectorEncoder(str(out), device="cpu")
    ours = load(folder)
    queries, found = ours.encode_queries(QUERIES), ours.encode_pages(pages)
    assert_close(model.encode_query(QUERIES), queries)
    assert_close(model.encode_query(QUERIES, batch_size=1), queries)
    assert_close(model.encode_document(pages), found)
    model[0].processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(out)
    assert_close(model.encode_document(large_pages), ours.encode_pages(large_pages))
    scores = model.similarity(model.encode_query(QUERIES), model.encode_document(pages))
    by_hand = [[(q @ p.T).amax(1).sum().item() for p in found] for q in queries]
    torch.testing.assert_close(scores, torch.tensor(by_hand), rtol=0, atol=1e-4)


def test_sentence_transformers_saves_what_coltrain_reads(trained, pages, tmp_path):
    from sentence_transformers import MultiVectorEncoder

    folder, out = trained("engine-0.3.12"), tmp_path / "out"
    export_model(folder, "sentence-transformers", out)
    MultiVectorEncoder(str(out), device="cpu").save_pretrained(str(tmp_path / "saved"))
    again = load(tmp_path / "saved", template="engine-0.3.12", max_visual_tokens=64)
    assert_close(again.encode_pages(pages), load(folder).encode_pages(pages))


def test_sentence_transformers_in_bfloat16(trained, pages, tmp_path):
    from sentence_transformers import MultiVectorEncoder

    folder, out = trained("engine-0.3.12"), tmp_path / "out"
    export_model(folder, "sentence-transformers", out, dtype=torch.bfloat16)
    model = MultiVectorEncoder(str(out), device="cpu", model_kwargs={"dtype": torch.float32})
    expected = load(out, dtype=torch.float32)
    assert_close(model.encode_document(pages), expected.encode_pages(pages))
    assert_close(model.encode_query(QUERIES), expected.encode_queries(QUERIES))


@pytest.mark.parametrize("era", ["engine-0.3.12", "engine-0.3.3"])
def test_transformers(era, trained, pages, large_pages, tmp_path):
    from transformers import ColQwen2ForRetrieval, ColQwen2Processor

    folder, out = trained(era), tmp_path / "out"
    exported, _ = export_model(folder, "transformers", out)
    model = ColQwen2ForRetrieval.from_pretrained(str(out), dtype=torch.float32).eval()
    processor = ColQwen2Processor.from_pretrained(str(out), backend="pil")
    ours = load(folder)
    shipped, positioned = [], []
    for page in [*pages, *large_pages]:
        batch = processor(images=[page])
        inputs = ours.built.preparer.collate_pages([ours.built.preparer.prepare_page(page)])
        assert torch.equal(batch["input_ids"], inputs.input_ids)
        with torch.no_grad():
            shipped.append(model(**batch).embeddings[0])
            positioned.append(model(**batch, position_ids=inputs.position_ids).embeddings[0])
    expected = ours.encode_pages([*pages, *large_pages])
    assert_close(positioned, expected)
    # As it ships, M-RoPE is dropped: far off, as the export said.
    assert max((a - b).abs().max() for a, b in zip(shipped, expected, strict=True)) > 0.05
    assert exported.native.pages_as_shipped > 0.05
    # Its own template on both sides, by its own processor and by ours.
    theirs = load(folder).built.preparer
    native = theirs.template.model_copy(
        update={"name": "native", "query_suffix": theirs.template.query_suffix + "\n"}
    )
    ours.built.preparer.template = native
    for query in QUERIES:
        batch = processor(text=[query])
        assert batch["input_ids"][0].tolist() == ours.query_ids(query)
        with torch.no_grad():
            [found] = model(**batch).embeddings
        assert_close([found], ours.encode_queries([query]))


def test_the_position_ids_of_the_model_card_are_ours(trained, pages, tmp_path):
    out = tmp_path / "out"
    exported, built = export_model(trained("engine-0.3.12"), "transformers", out)
    write_model_card(exported, built, "m", None, str(out))
    card = (out / "README.md").read_text()
    [code] = [c for c in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "vlm" in c]
    for page in pages:
        names = {"page": page}
        with torch.no_grad():
            exec(code, names)
        assert_close(list(names["pages"]), load(out).encode_pages([page]))


@pytest.mark.parametrize("target", ["colpali-engine", "sentence-transformers"])
@pytest.mark.parametrize("merge", [False, True])
def test_the_code_of_the_model_card_runs(target, merge, trained, pages, tmp_path):
    folder, out = trained("engine-0.3.3"), tmp_path / "out"
    exported, built = export_model(folder, target, out, merge=merge)
    write_model_card(exported, built, "m", None, str(out))
    card = (out / "README.md").read_text()
    names = {"page": pages[0]}
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(code, names)
    expected = load(folder).encode_queries(["…"])
    assert_close([torch.as_tensor(names["queries"][0]).detach()], expected)
