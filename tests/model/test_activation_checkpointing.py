"""Checkpointed activations: same gradients, and a frozen vision tower that stays out of it."""

import copy
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2VLModel

from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.dropout import stable_key
from coltrain.model.tiny.architecture import tiny_config

KEYS = [stable_key("page", number) for number in range(5)]


def step(built, inputs):
    """One step with dropout; how often each tower's first layer ran, and the gradients."""
    model = built.model
    calls = {"vision": 0, "language": 0}
    seen = []

    def count(tower):
        def hook(*_):
            calls[tower] += 1

        return hook

    hooks = [
        model.visual.blocks[0].attn.register_forward_hook(count("vision")),
        model.language_model.layers[0].self_attn.register_forward_hook(count("language")),
    ]
    model.zero_grad()
    with model.sample_keys.use(KEYS, model.device):
        visual = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        seen.append(visual.requires_grad)
        vectors = model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
        (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    for hook in hooks:
        hook.remove()
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return calls, seen[0], gradients


@pytest.fixture
def both(float64_built, page_inputs):
    """The step without and with checkpointing."""
    checkpointed = copy.deepcopy(float64_built)
    checkpointed.model.checkpoint_activations(kept_layers=0)
    inputs = page_inputs(float64_built)
    return step(float64_built, inputs), step(checkpointed, inputs)


def test_gradients_are_the_same_dropout_included(both):
    (_, _, plain), (_, _, checkpointed) = both
    assert plain.keys() == checkpointed.keys()
    assert len(plain) == 30  # A and B of 15 modules
    for name, gradient in plain.items():
        assert gradient.abs().max() > 1e-9, name
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(("kept", "expected"), [(0, 0), (1, 1), (2, 2), (None, 1)])
def test_last_layers_that_are_kept_change_nothing_but_what_runs_again(
    float64_built, page_inputs, both, kept, expected
):
    model = float64_built.model
    model.checkpoint_activations(kept_layers=kept)
    layers = model.language_model.layers
    assert [layer.gradient_checkpointing for layer in layers] == (2 - expected) * [True] + (
        expected * [False]
    )
    assert [layer.mlp.is_made_again for layer in layers] == [True, expected == 0]
    assert model.is_checkpointed == (expected < 2)
    calls, _, gradients = step(float64_built, page_inputs(float64_built))
    assert calls["language"] == (2 if expected < 2 else 1)
    (_, _, plain), _ = both
    assert plain.keys() == gradients.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(("layers", "kept"), [(1, 0), (2, 1), (4, 2), (28, 2)])
def test_two_layers_are_kept_but_half_of_them_at_most(layers, kept):
    config = tiny_config()
    config.text_config.num_hidden_layers = layers
    config.text_config.layer_types = layers * ["full_attention"]
    with torch.device("meta"):
        model = ColQwen2(config)
    model.checkpoint_activations()
    again = [layer.gradient_checkpointing for layer in model.language_model.layers]
    assert again == (layers - kept) * [True] + kept * [False]
    # Of those that are kept, only the very last keeps its gate and up too.
    wide = [layer.mlp.is_made_again for layer in model.language_model.layers]
    assert wide == (layers - min(1, kept)) * [True] + min(1, kept) * [False]


def test_the_language_model_runs_again_and_the_vision_tower_does_not(both):
    (plain, plain_needs_gradient, _), (checkpointed, needs_gradient, _) = both
    assert plain == {"vision": 1, "language": 1}
    assert checkpointed == {"vision": 1, "language": 2}
    assert not plain_needs_gradient
    assert not needs_gradient


def test_no_parameter_of_the_base_and_no_embedding_gets_a_gradient(both):
    for _, _, gradients in both:
        assert all(".lora_A." in name or ".lora_B." in name for name in gradients)


def test_transformers_own_switch_on_the_whole_model_hooks_the_vision_tower(
    tiny_retriever, page_inputs
):
    # The reason for switching on the language model alone (facts of transformers 5.23).
    whole = Qwen2VLModel(tiny_config()).train()
    whole.requires_grad_(False)
    if hasattr(whole, "activation_checkpointing_enable"):
        whole.activation_checkpointing_enable({"use_reentrant": False})
    else:
        whole.gradient_checkpointing_enable({"use_reentrant": False})
    inputs = page_inputs(tiny_retriever.built, 0)
    output = whole.visual(inputs.pixel_values, grid_thw=inputs.grid_thw).pooler_output
    assert output.requires_grad


def test_the_input_embeddings_are_not_hooked_either(float64_built):
    float64_built.model.checkpoint_activations()
    embeddings = float64_built.model.language_model.embed_tokens(torch.tensor([[1, 2]]))
    assert not embeddings.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_encoding_is_the_same_with_the_switch_on(float64_built, page_inputs, context):
    inputs = page_inputs(float64_built)
    results = []
    for switch in (False, True):
        if switch:
            float64_built.model.checkpoint_activations()
        with context():
            visual = float64_built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            results.append(
                float64_built.model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
            )
    assert torch.equal(*results)


def test_a_vision_tower_that_is_trained_keeps_its_graph(float64_built, page_inputs):
    for parameter in float64_built.model.visual.parameters():
        parameter.requires_grad_(True)
    inputs = page_inputs(float64_built)
    _, needs_gradient, gradients = step(float64_built, inputs)
    assert needs_gradient
    assert gradients["visual.patch_embed.proj.weight"].abs().max() > 0


def test_a_layers_last_product_is_not_computed_again(float64_built, page_inputs):
    """Its inputs are all that a gradient needs, and the layer stops there when it runs again."""
    model = float64_built.model
    model.checkpoint_activations(kept_layers=0)
    inputs = page_inputs(float64_built)
    done = Counter()

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.addmm_.default:  # a frozen product, added to an update
                done[args[2].shape] += 1
            return function(*args, **(kwargs or {}))

    with Products():
        step(float64_built, inputs)
    layer = model.language_model.layers[0].mlp
    num_layers = len(model.language_model.layers)
    up, down = layer.up_proj.base_layer.weight.T.shape, layer.down_proj.base_layer.weight.T.shape
    assert done[up] == 2 * 2 * num_layers  # gate and up, in both passes
    # down's, once; of the same shape is up's part of the gradient that goes on to the input.
    assert done[down] == num_layers + num_layers
