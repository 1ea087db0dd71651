"""`model.start_from` a published adapter: the first evaluation is the adapter's own."""

import json
from pathlib import Path

import pytest
import torch
from published_layouts import LAYOUTS, tiny_adapter, tiny_tensors, write_adapter, write_network
from safetensors.torch import load_file, save_file
from small_pages import small_collection, small_page

from coltrain.errors import ModelError
from coltrain.evaluation.evaluate import evaluate
from coltrain.model.build import build_for_training
from coltrain.model.retriever import Retriever, load
from coltrain.model.start import StartedFrom
from coltrain.recipe import load_recipe
from coltrain.training import setup as set_up_module
from coltrain.training.events import EvaluationResult, Notice
from coltrain.training.loop import Training

CPU = torch.device("cpu")
QUERIES = ["iron", "a glass of water"]


def overrides(adapter: Path, base: Path | str | None = None) -> list[str]:
    base = base or f"{adapter}-base"
    return [f"model.start_from={adapter}", f"model.base={base}", "lora.r=4", "lora.alpha=8"]


def build(*given: str):
    return build_for_training(load_recipe("tiny", given), CPU)


# The modules that the adapter has are those of the recipe, but for one.
CASES = {
    "adapter of 2024": [],
    "adapter of today": [],
    "adapter over a whole model": [],
    "adapter over native-5": [],
    "sentence-transformers, adapter": ["projection.start=normal"],
}


@pytest.mark.parametrize("layout", CASES)
def test_the_function_before_the_first_step_is_the_adapter_s(tmp_path, layout):
    adapter = LAYOUTS[layout](tmp_path / "adapter")
    start = Retriever(build(*overrides(adapter), *CASES[layout]))
    expected = load(adapter, max_visual_tokens=64)
    pages = [small_page(number) for number in range(3)]
    base = load("tiny").encode_pages(pages)
    for one, other, bare in zip(
        start.encode_pages(pages), expected.encode_pages(pages), base, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        assert (one - bare).abs().max() > 0.01
    for one, other in zip(
        start.encode_queries(QUERIES), expected.encode_queries(QUERIES), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    report = start.built.report
    assert report.adapter_names == expected.built.report.adapter_names
    assert report.base.check == "name"


@pytest.mark.parametrize("layout", ["adapter of 2024", "sentence-transformers, adapter"])
def test_the_first_evaluation_is_that_of_the_adapter(tmp_path, small_data, layout):
    adapter = LAYOUTS[layout](tmp_path / "adapter")
    recipe = load_recipe(
        "tiny",
        [
            *overrides(adapter),
            *CASES[layout],
            "train.steps=1",
            "batch.global_size=4",
            "batch.chunk_size=2",
            "eval.data=[tiny:dev]",
        ],
    )
    training = Training(recipe, tmp_path / "run", CPU)
    events = training.events()
    [first] = [next(event for event in events if isinstance(event, EvaluationResult))]
    expected = evaluate(load(adapter, max_visual_tokens=64), small_data).result
    assert first.step == 0
    assert first.result.measures == expected.measures
    assert 0 < expected.measures["nDCG@5"] < 1
    list(events)
    # And the run that came of it is whole: it has another projection than its base's.
    load(tmp_path / "run")


@pytest.fixture
def small_data(monkeypatch):
    collection = small_collection("small", 12)
    monkeypatch.setattr(set_up_module, "load_collection", lambda source, split: collection)
    return collection


def in_half(adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The adapter's file in another type; the new tensors."""
    file = adapter / "adapter_model.safetensors"
    tensors = {key: tensor.to(dtype) for key, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return tensors


def test_an_adapter_stored_in_half_is_trained_in_float32_and_the_run_says_so(tmp_path, small_data):
    adapter = LAYOUTS["adapter of 2024"](tmp_path / "adapter")
    stored = in_half(adapter, torch.float16)
    given = [*overrides(adapter), "train.steps=1", "batch.global_size=4", "eval.data=[]"]
    training = Training(load_recipe("tiny", given), tmp_path / "run", CPU)
    trained = training.setup.trained
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    for key, tensor in stored.items():  # the same numbers
        name = key.removeprefix("base_model.model.").removesuffix(".weight")
        [one] = [
            p
            for n, p in trained.items()
            if n.endswith(name.split("layers.")[-1] + ".default.weight")
        ]
        assert torch.equal(one, tensor.float())
    said = [event.text for event in training.events() if isinstance(event, Notice)]
    sentence = (
        f"the adapter of model.start_from = {adapter} is stored in float16 and trained in float32 "
        "(lora.dtype), which holds its values exactly"
    )
    assert said.count(sentence) == 1
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert sentence in facts["warnings"]
    assert facts["start_from"] == {
        "name": str(adapter),
        "revision": None,
        "stored_as": {"float16": len(stored)},
        "trained_as": "float32",
    }


@pytest.mark.parametrize(
    ("stored", "trained", "word"),
    [
        ("float32", "float32", None),
        ("bfloat16", "bfloat16", None),
        ("bfloat16", "float32", "exactly"),
        ("float32", "bfloat16", "rounded"),
        ("float16", "bfloat16", "rounded"),
    ],
)
def test_what_is_said_of_an_adapter_s_type(stored, trained, word):
    sentence = StartedFrom("a", None, {stored: 30}, trained).sentence
    assert sentence is None if word is None else word in sentence


def test_a_base_without_the_adapter_s_projection_is_refused(tmp_path):
    tensors = {k: t for k, t in tiny_tensors().items() if "custom_text_proj" not in k}
    base = write_network(tmp_path / "base", "released", tensors)
    adapter = write_adapter(
        tmp_path / "adapter", "released", tiny_adapter(tiny_tensors()), str(base)
    )
    with pytest.raises(ModelError) as caught:
        build(*overrides(adapter, base), "projection.start=normal")
    assert caught.value.code == "start-from-without-projection"
    assert caught.value.where == f"model.start_from = {adapter}"


def test_another_base_than_the_adapter_s_is_refused(tmp_path):
    adapter = LAYOUTS["adapter of 2024"](tmp_path / "adapter")
    with pytest.raises(ModelError) as caught:
        build(*overrides(adapter, "tiny"))  # the adapter's has another bias
    assert caught.value.code == "other-base"


def test_a_whole_network_is_no_start(tmp_path):
    model = LAYOUTS["native-5"](tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        build(*overrides(model, "tiny"))
    assert str(caught.value) == (
        "ModelError [start-from-no-adapter]: training starts from an adapter, and this is none.\n"
        f"  where     model.start_from = {model}\n"
        "  received  layout transformers-native\n"
        "  expected  an adapter, or a run that trained one\n"
        f"  try       model.base={model} for a whole network"
    )


@pytest.mark.parametrize("layout", ["native-4.53", "sentence-transformers, flat", "transformers"])
def test_a_whole_network_of_any_layout_is_a_base(tmp_path, layout):
    model = LAYOUTS[layout](tmp_path / "model")
    built = build(f"model.base={model}")
    expected = load(model, max_visual_tokens=64).encode_queries(QUERIES)
    for one, other in zip(Retriever(built).encode_queries(QUERIES), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
