"""Checkpoints that colpali-engine, peft, transformers and sentence-transformers wrote themselves.

Each loads with a clean audit and gives that library's embeddings to 1e-5 in float32. Where a
library drops M-RoPE (transformers' native model, and sentence-transformers over it), it is handed
our positions, so that the networks are compared.
"""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from published_layouts import TARGETS, tiny_adapter, tiny_tensors
from safetensors.torch import load_file
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLModel, Qwen2VLVideoProcessor

from coltrain.model.inputs import Inputs
from coltrain.model.locate import tiny_folder
from coltrain.model.retriever import Retriever, load
from coltrain.model.weights import load_backbone

pytestmark = [
    pytest.mark.reference,
    # peft asks transformers for a name that is on its way out.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

# float32; the libraries pad on the left, ours on the right, and they sum in another order.
CLOSE = {"rtol": 0, "atol": 1e-5}
SHAPES = [(3, 2), (2, 5), (4, 4), (6, 1)]  # visual tokens across and down
QUERIES = ["iron", "a glass of water", "the light of the northern night"]
TEMPLATE = "colqwen2-engine-0.3.13"  # what colpali-engine 0.3.18 renders


@pytest.fixture(scope="module")
def pages() -> list[Image.Image]:
    draws = np.random.default_rng(0)
    return [
        Image.fromarray(draws.integers(0, 256, (28 * rows, 28 * columns, 3), np.uint8))
        for columns, rows in SHAPES
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def tiny() -> Retriever:
    return load("tiny", template=TEMPLATE)


def engine():
    # Imported here, so that collecting the fast tests needs no engine, and a missing one fails.
    from colpali_engine.models.qwen2 import colqwen2

    return colqwen2


def add_processor(folder: Path) -> Path:
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder() / name, folder)
    return folder


@pytest.fixture(scope="module")
def engine_base(root, tiny):
    """A base that colpali-engine saved, with its processor as it saves one; the model as well."""
    model = engine().ColQwen2(copy.deepcopy(tiny.built.model.config)).eval()
    model.load_state_dict(tiny_tensors(), strict=True)
    model.save_pretrained(root / "engine-base")
    image_processor = copy.deepcopy(tiny.built.preparer.image_processor)
    image_processor.size["longest_edge"] = 64 * 784
    processor = engine().ColQwen2Processor(
        image_processor=image_processor,
        tokenizer=copy.deepcopy(tiny.built.preparer.tokenizer),
        video_processor=Qwen2VLVideoProcessor(),
    )
    processor.save_pretrained(root / "engine-base")
    return root / "engine-base", model, processor


@pytest.fixture(scope="module")
def engine_adapter(root, engine_base):
    """An adapter that peft saved over the engine's model; the adapted model as well."""
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.1,
        init_lora_weights="gaussian",
        bias="none",
        task_type="FEATURE_EXTRACTION",
        target_modules=TARGETS,
    )
    base = engine().ColQwen2.from_pretrained(engine_base[0], dtype=torch.float32)
    adapted = get_peft_model(base, config).eval()
    trained = {
        f"base_model.model.{key.replace('.weight', '.default.weight')}": tensor
        for key, tensor in tiny_adapter(tiny_tensors()).items()
    }
    result = adapted.load_state_dict(trained, strict=False)
    assert not result.unexpected_keys
    adapted.save_pretrained(root / "engine-adapter")
    return root / "engine-adapter", adapted


def unpadded(embeddings, mask):
    return [one[kept.bool()] for one, kept in zip(embeddings, mask, strict=True)]


def engine_embeddings(model, batch):
    with torch.no_grad():
        return unpadded(model(**batch), batch["attention_mask"])


def assert_all_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def assert_equals_the_engine(retriever, model, processor, pages):
    batch = processor.process_images(pages)
    assert not batch["attention_mask"].all()
    assert_all_close(retriever.encode_pages(pages), engine_embeddings(model, batch))
    batch = processor.process_queries(QUERIES)
    assert not batch["attention_mask"].all()
    assert_all_close(retriever.encode_queries(QUERIES), engine_embeddings(model, batch))


def test_a_base_that_the_engine_saved(engine_base, pages):
    folder, model, processor = engine_base
    retriever = load(folder, template=TEMPLATE, max_visual_tokens=64)
    assert (retriever.built.report.layout, retriever.built.report.names) == ("colqwen2", "colqwen2")
    assert_equals_the_engine(retriever, model, processor, pages)


def test_an_adapter_that_peft_saved_over_the_engine_s_model(engine_adapter, engine_base, pages):
    folder, adapted = engine_adapter
    retriever = load(folder, template=TEMPLATE, max_visual_tokens=64)
    report = retriever.built.report
    assert (report.layout, report.adapter_names) == ("adapter", "colqwen2")
    assert (report.base.name, report.base.check) == (str(engine_base[0]), "name")
    assert_equals_the_engine(retriever, adapted, engine_base[2], pages)
    [before] = load(engine_base[0], template=TEMPLATE).encode_pages(pages[:1])
    assert (retriever.encode_pages(pages[:1])[0] - before).abs().max() > 0.01


def test_an_adapter_with_the_names_of_2024_is_the_same_in_both(
    engine_adapter, engine_base, pages, root
):
    from safetensors.torch import save_file

    folder = shutil.copytree(engine_adapter[0], root / "adapter-2024")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {key.replace("language_model.layers", "model.layers"): t for key, t in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    theirs = engine().ColQwen2.from_pretrained(folder, dtype=torch.float32).eval()
    retriever = load(folder, template=TEMPLATE, max_visual_tokens=64)
    assert retriever.built.report.adapter_names == "released"
    assert_equals_the_engine(retriever, theirs, engine_base[2], pages)


@pytest.fixture(scope="module")
def engine_merged(engine_adapter, root):
    """A merged model that the engine saved."""
    merged = copy.deepcopy(engine_adapter[1]).merge_and_unload()
    merged.save_pretrained(root / "engine-merged")
    return add_processor(root / "engine-merged"), merged.eval()


def test_a_merged_model_that_the_engine_saved(engine_merged, engine_base, pages):
    folder, merged = engine_merged
    retriever = load(folder, template=TEMPLATE, max_visual_tokens=64)
    assert retriever.built.report.layout == "colqwen2"
    assert_equals_the_engine(retriever, merged, engine_base[2], pages)


@pytest.mark.parametrize("shard", ["100KB", "1GB"])
def test_a_base_that_transformers_saved(root, tiny, shard):
    generation = Qwen2VLForConditionalGeneration(copy.deepcopy(tiny.built.model.config)).eval()
    backbone = {k: t for k, t in tiny_tensors().items() if not k.startswith("custom_text_proj")}
    generation.model.load_state_dict(backbone, strict=True)
    folder = root / f"generation-{shard}"
    generation.save_pretrained(folder, max_shard_size=shard)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard == "100KB")
    loaded = load_backbone(folder, dim=128, dtype=torch.float32, projection_std=0.02, seed=0)
    assert set(loaded.found.created) == {"custom_text_proj.weight", "custom_text_proj.bias"}
    for name, tensor in backbone.items():
        assert torch.equal(loaded.model.get_parameter(name), tensor), name


@pytest.fixture(scope="module")
def native(root, tiny, engine_merged):
    """transformers' own ColQwen2, saved by it; the model as well."""
    from transformers import ColQwen2Config, ColQwen2ForRetrieval
    from transformers.models.colqwen2 import ColQwen2Processor

    config = copy.deepcopy(tiny.built.model.config)
    model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=config.to_dict())).eval()
    state = {
        key.replace("custom_text_proj", "embedding_proj_layer")
        if key.startswith("custom")
        else f"vlm.{key}": tensor
        for key, tensor in engine_merged[1].state_dict().items()
    }
    model.load_state_dict(state, strict=True)
    model.save_pretrained(root / "native")
    ColQwen2Processor(
        image_processor=copy.deepcopy(tiny.built.preparer.image_processor),
        tokenizer=copy.deepcopy(tiny.built.preparer.tokenizer),
    ).save_pretrained(root / "native")
    return root / "native", model


def inputs_of(retriever, pages):
    preparer = retriever.built.preparer
    return [
        *(preparer.collate_pages([preparer.prepare_page(page)]) for page in pages),
        *(preparer.collate_queries([query]) for query in QUERIES),
    ]


def native_inputs(inputs: Inputs, *, with_positions: bool = True) -> dict[str, torch.Tensor]:
    """Ours, as transformers' forward pass takes them: one sample, no padding."""
    found = {"input_ids": inputs.input_ids, "attention_mask": inputs.mask.long()}
    if with_positions:
        found["position_ids"] = inputs.position_ids
    if inputs.pixel_values is not None:
        found["pixel_values"] = inputs.pixel_values[None]
        found["image_grid_thw"] = inputs.grid_thw
    return found


def test_a_model_of_transformers_own_with_our_positions(native, pages):
    folder, theirs = native
    retriever = load(folder, template=TEMPLATE, max_visual_tokens=64)
    assert retriever.built.report.layout == "transformers-native"
    assert retriever.built.report.names == "native-5"
    found = [*retriever.encode_pages(pages), *retriever.encode_queries(QUERIES)]
    for ours, inputs in zip(found, inputs_of(retriever, pages), strict=True):
        with torch.no_grad():
            expected = theirs(**native_inputs(inputs)).embeddings[0]
            as_shipped = theirs(**native_inputs(inputs, with_positions=False)).embeddings[0]
        torch.testing.assert_close(ours, expected, **CLOSE)
        # As it ships, it drops M-RoPE: pages are another function, queries are not.
        is_page = inputs.pixel_values is not None
        assert ((ours - as_shipped).abs().max() > 1e-3) == is_page


def test_an_adapter_that_peft_saved_over_transformers_own_model(native, root, pages):
    targets = r".*language_model.*(q_proj|o_proj|up_proj)|embedding_proj_layer"
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets)
    adapted = get_peft_model(copy.deepcopy(native[1]), config).eval()
    adapted.peft_config["default"].base_model_name_or_path = str(native[0])
    generator = torch.Generator().manual_seed(6)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=generator)
    adapted.save_pretrained(root / "native-adapter")
    retriever = load(root / "native-adapter", template=TEMPLATE, max_visual_tokens=64)
    report = retriever.built.report
    assert (report.layout, report.adapter_names) == ("adapter", "native-5")
    assert report.coverage["language_model"] == (6, 14)
    assert report.coverage["projection"] == (1, 1)
    found = [*retriever.encode_pages(pages), *retriever.encode_queries(QUERIES)]
    for ours, inputs in zip(found, inputs_of(retriever, pages), strict=True):
        with torch.no_grad():
            expected = adapted(**native_inputs(inputs)).embeddings[0]
        torch.testing.assert_close(ours, expected, **CLOSE)


@pytest.fixture(scope="module")
def sentence_transformers():
    import sentence_transformers

    return sentence_transformers


def test_a_wrapped_model_that_sentence_transformers_saved(
    native, sentence_transformers, root, pages
):
    written = sentence_transformers.MultiVectorEncoder(str(native[0]), device="cpu")
    written.save_pretrained(str(root / "st-wrapped"))
    retriever = load(root / "st-wrapped", template=TEMPLATE, max_visual_tokens=64)
    assert retriever.built.report.layout == "sentence-transformers"
    assert retriever.built.report.names == "native-5"
    found = [*retriever.encode_pages(pages), *retriever.encode_queries(QUERIES)]
    for ours, inputs in zip(found, inputs_of(retriever, pages), strict=True):
        modality = "text" if inputs.pixel_values is None else "image"
        with torch.no_grad():
            features = written(native_inputs(inputs) | {"modality": modality})
        torch.testing.assert_close(ours, features["token_embeddings"][0], **CLOSE)


@pytest.fixture(scope="module")
def flat(sentence_transformers, engine_merged, root, tiny):
    """Makes a flat encoder: Qwen2VLModel, Dense with or without bias, mask, norm."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize
    from transformers import Qwen2VLProcessor

    backbone = Qwen2VLModel(copy.deepcopy(tiny.built.model.config)).eval()
    state = engine_merged[1].state_dict()
    weight, bias = state.pop("custom_text_proj.weight"), state.pop("custom_text_proj.bias")
    backbone.load_state_dict(state, strict=True)
    backbone.save_pretrained(root / "flat-base")
    Qwen2VLProcessor(
        image_processor=copy.deepcopy(tiny.built.preparer.image_processor),
        tokenizer=copy.deepcopy(tiny.built.preparer.tokenizer),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template="{% for message in messages %}{{ message['content'] }}{% endfor %}",
    ).save_pretrained(root / "flat-base")

    def make(with_bias: bool):
        dense = Dense(
            128,
            128,
            bias=with_bias,
            activation_function=torch.nn.Identity(),
            module_input_name="token_embeddings",
        )
        dense.linear.weight.data.copy_(weight)
        if with_bias:
            dense.linear.bias.data.copy_(bias)
        modules = [
            Transformer(str(root / "flat-base")),
            dense,
            MultiVectorMask(),
            Normalize(module_input_name="token_embeddings"),
        ]
        return sentence_transformers.MultiVectorEncoder(modules=modules, device="cpu").eval()

    return make


def assert_equals_a_flat_encoder(retriever, written, pages):
    found = [*retriever.encode_pages(pages), *retriever.encode_queries(QUERIES)]
    for ours, inputs in zip(found, inputs_of(retriever, pages), strict=True):
        features = native_inputs(inputs, with_positions=False)
        if inputs.pixel_values is not None:
            features["pixel_values"] = inputs.pixel_values  # flat, as Qwen2-VL takes them
            is_visual = inputs.input_ids == retriever.built.preparer.image_token_id
            features["mm_token_type_ids"] = is_visual.long()
        with torch.no_grad():
            output = written(features | {"modality": "message"})
        torch.testing.assert_close(ours, output["token_embeddings"][0], **CLOSE)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_flat_model_that_sentence_transformers_saved(flat, root, pages, with_bias):
    written = flat(with_bias)
    folder = root / f"st-flat-{with_bias}"
    written.save_pretrained(str(folder))
    retriever = load(folder, template=TEMPLATE, max_visual_tokens=64)
    assert retriever.built.report.layout == "sentence-transformers"
    assert ("custom_text_proj.bias" in retriever.built.report.created) == (not with_bias)
    assert_equals_a_flat_encoder(retriever, written, pages)


def test_a_flat_model_with_an_adapter_that_sentence_transformers_saved(flat, root, pages):
    written = flat(True)
    targets = r".*language_model.*(q_proj|v_proj|down_proj)"
    written.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    generator = torch.Generator().manual_seed(6)
    for name, parameter in written.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=generator)
    folder = root / "st-adapter"
    written.save_pretrained(str(folder))
    assert not (folder / "model.safetensors").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    retriever = load(folder, template=TEMPLATE, max_visual_tokens=64)
    report = retriever.built.report
    assert report.layout == "sentence-transformers-adapter"
    assert report.coverage["language_model"] == (6, 14)
    assert_equals_a_flat_encoder(retriever, written, pages)
