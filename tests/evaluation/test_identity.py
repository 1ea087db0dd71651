"""When an embedding on disk is no longer the right one."""

import copy
import dataclasses

import torch

from coltrain.evaluation.identity import adapter_hash, encoder_identity
from coltrain.model.adapter import lora_layers
from coltrain.model.retriever import Retriever


def test_the_same_model_is_the_same(tiny_retriever):
    assert encoder_identity(tiny_retriever) == encoder_identity(tiny_retriever)
    assert adapter_hash(tiny_retriever) is None


def test_an_adapter_s_every_number_counts(tiny_built):
    first = encoder_identity(Retriever(tiny_built))
    layer = next(iter(lora_layers(tiny_built.model).values()))
    with torch.no_grad():
        layer.lora_B["default"].weight[0, 0] += 1e-6
    second = encoder_identity(Retriever(tiny_built))
    assert first["adapter"] != second["adapter"]
    assert {key for key in first if first[key] != second[key]} == {"adapter"}
    scaled = dataclasses.replace(
        tiny_built, lora=dataclasses.replace(tiny_built.lora, alpha=tiny_built.lora.alpha / 2)
    )
    assert encoder_identity(Retriever(scaled))["adapter"] != second["adapter"]


def test_budget_batches_and_template_count(tiny_retriever):
    first = encoder_identity(tiny_retriever)
    assert encoder_identity(tiny_retriever, is_padded=True) != first
    preparer = copy.copy(tiny_retriever.built.preparer)
    preparer.max_visual_tokens = 32
    other = Retriever(dataclasses.replace(tiny_retriever.built, preparer=preparer))
    assert encoder_identity(other)["max_visual_tokens"] == 32
    assert {"query_prefix", "query_suffix", "page_prompt", "dtype", "device", "attention"} <= set(
        first
    )


def test_the_library_that_resizes_pages_counts(tiny_retriever):
    identity = encoder_identity(tiny_retriever)
    assert identity["image_library"].startswith("Pillow ")
    assert {"positions", "image_backend", "alpha"} <= set(identity)
