"""Half precision with exceptions: what stays in float32, in weights and in computing."""

import copy

import pytest
import torch
from scaled_base import scaled_base

from coltrain.errors import ModelError
from coltrain.model.build import build_for_training
from coltrain.model.dropout import keep_rows
from coltrain.model.folder import load_model_folder, save_model
from coltrain.model.half import Half, compute_in_weights
from coltrain.model.lora import LoraLinear, _DroppedProduct
from coltrain.recipe import load_recipe

CPU = torch.device("cpu")
UP = "language_model.layers.1.mlp.up_proj"


def build(*keep, more=()):
    overrides = ["precision.compute=float16", f"precision.keep_float32=[{','.join(keep)}]", *more]
    return build_for_training(load_recipe("tiny", overrides), CPU)


def embed(model, built, text="one query"):
    inputs = built.preparer.collate_queries([text])
    with torch.no_grad():
        return model(inputs.input_ids, inputs.mask, inputs.position_ids)


@pytest.fixture(scope="module")
def plain():
    return build_for_training(load_recipe("tiny"), CPU)


def test_the_base_is_float16_and_what_is_trained_is_float32():
    model = build("language_model.layers.0.mlp").model
    for name, parameter in model.named_parameters():
        is_kept = parameter.requires_grad or any(
            part in name for part in ("layers.0.mlp", "custom_text_proj", "norm1", "norm2", "ln_q")
        )
        assert parameter.dtype == (torch.float32 if is_kept else torch.float16), name
    assert model.dtype == torch.float16


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_kept_weights_are_those_of_the_file_and_never_pass_through_float16(stored, plain):
    found = build(UP, more=[f"model.dtype={stored}"]).model.get_submodule(UP).base_layer.weight
    expected = plain.model.get_submodule(UP).base_layer.weight
    if stored == "bfloat16":
        expected = expected.bfloat16().float()
    assert torch.equal(found, expected)
    assert not torch.equal(found, expected.half().float())


def test_all_modules_in_float32_are_the_float32_model(plain):
    built = build("visual", "language_model")
    assert torch.equal(embed(built.model, built), embed(plain.model, plain))
    half = build()
    assert not torch.equal(embed(half.model, half), embed(plain.model, plain))


def test_a_kept_module_computes_in_float32_and_the_stream_follows():
    kinds = {}
    built = build(UP)
    for name in ("layers.0", "layers.1.mlp.gate_proj", "layers.1.mlp.up_proj", "layers.1", "norm"):
        module = built.model.language_model.get_submodule(name)
        module.register_forward_hook(
            lambda m, i, output, name=name: kinds.update({name: output.dtype})
        )
    assert embed(built.model, built).dtype == torch.float32
    half, full = torch.float16, torch.float32
    # down_proj turns the product into float16 again: what overflows there is kept as well.
    assert kinds == {
        "layers.0": half,
        "layers.1.mlp.gate_proj": half,
        "layers.1.mlp.up_proj": full,
        "layers.1": half,
        "norm": half,
    }
    built = build("language_model.layers.1.mlp.down_proj")
    built.model.language_model.norm.register_forward_hook(
        lambda m, i, output: kinds.update({"norm": output.dtype})
    )
    embed(built.model, built)
    assert kinds["norm"] == full


def test_patterns_name_modules_and_the_outermost_counts():
    model = build_for_training(load_recipe("tiny", ["precision.compute=float32"]), CPU).model
    kept = Half(torch.float16, ("language_model.layers.*.mlp", UP)).kept(model)
    layers = [name for name in kept if name.startswith("language_model")]
    assert layers == ["language_model.layers.0.mlp", "language_model.layers.1.mlp"]
    assert "custom_text_proj" in kept


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [
        ("language_model.layers.1.mlp.downproj", "language_model.layers.1.mlp.down_proj"),
        ("layers.*.mlp.down_proj", "mlp.down_proj"),
        ("xyz", "visual"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names(pattern, nearest):
    with pytest.raises(ModelError) as caught:
        build(pattern)
    text = str(caught.value)
    assert text.startswith("ModelError [no-such-module]: ")
    assert f"received  {pattern}\n" in text
    assert nearest in text.partition("try ")[2]


def test_a_weight_beyond_float16_is_refused_by_name_unless_it_is_kept(tmp_path):
    name = "language_model.layers.1.mlp.up_proj"
    folder = scaled_base(tmp_path / "base", {f"{name}.weight": 1e7})
    base = [f"model.base={folder}"]
    with pytest.raises(ModelError) as caught:
        build(more=base)
    assert caught.value.code == "weight-not-finite"
    assert "mlp.up_proj.weight" in caught.value.where
    kept = build(name, more=base).model.get_submodule(name).base_layer.weight
    assert kept.abs().max() > 65504
    assert kept.isfinite().all()


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_a_saved_model_keeps_weights_beyond_float16_in_any_type(tmp_path, dtype):
    name = "language_model.layers.1.mlp.up_proj"
    folder = scaled_base(tmp_path / "base", {f"{name}.weight": 1e7})
    built = build(
        "language_model.layers.1.mlp", more=[f"model.base={folder}", "model.dtype=float16"]
    )
    save_model(built, tmp_path / "model")
    loaded = load_model_folder(tmp_path / "model", CPU, dtype)
    assert loaded.model.computes_in == (torch.float16 if dtype is None else None)
    weight = loaded.model.get_submodule(name).base_layer.weight
    expected = built.model.get_submodule(name).base_layer.weight.to(dtype or torch.float32)
    assert torch.equal(weight, expected)
    assert embed(loaded.model, loaded).isfinite().all()


def test_copies_compute_for_themselves_and_the_scope_can_be_taken_back(plain):
    built = build(UP)
    before = embed(built.model, built)
    other = copy.deepcopy(built.model)
    with torch.no_grad():
        other.get_submodule(UP).base_layer.weight.zero_()
    assert torch.equal(embed(built.model, built), before)
    assert not torch.equal(embed(other, built), before)
    compute_in_weights(built.model)
    built.model.float()
    wide = embed(built.model, built)
    assert not torch.equal(wide, before)
    # Weights were rounded to 11 bits, and nothing else.
    torch.testing.assert_close(wide, embed(plain.model, plain), rtol=0, atol=2e-3)


@pytest.mark.parametrize("drops", [False, True])
def test_the_product_of_an_adapter_is_that_of_float32_and_keeps_half_of_the_memory(drops):
    generator = torch.Generator().manual_seed(1)
    half = torch.randn((5, 7), generator=generator).half().requires_grad_()
    down = torch.randn((3, 7), generator=generator).requires_grad_()
    starts, p = (torch.arange(5), 0.25) if drops else (None, 0.0)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.append((t.dtype, t.shape)), t)[1], lambda t: t
    ):
        ours = _DroppedProduct.apply(half, down, starts, p, 2)
    assert kept[:2] == [(torch.float16, half.shape), (torch.float32, down.shape)]
    assert all(shape != half.shape for _, shape in kept[2:])
    wide = half.detach().float().requires_grad_()
    mask = keep_rows(starts, 7, p).float() / (1 - p) if drops else torch.ones(5, 7)
    exact = (wide * mask) @ down.T
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6)
    probe = torch.linspace(-1, 1, exact.numel()).view_as(exact)
    found = torch.autograd.grad((ours * probe).sum(), [half, down])
    expected = torch.autograd.grad((exact * probe).sum(), [wide, down])
    assert (found[0] == 0).sum() == (mask == 0).sum()
    torch.testing.assert_close(found[0], expected[0].half(), rtol=2e-3, atol=1e-6)  # one rounding
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-6)  # order of sums


def test_the_adapter_computes_in_float32(monkeypatch):
    kinds = set()
    built = build()
    update = LoraLinear._update

    def watched(layer, *args):
        found = update(layer, *args)
        kinds.add(found.dtype)
        return found

    monkeypatch.setattr(LoraLinear, "_update", watched)
    parts = [part for part in built.model.modules() if isinstance(part, LoraLinear)]
    embed(built.model, built)
    assert kinds == {torch.float32}
    assert len(parts) > 10
