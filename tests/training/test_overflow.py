"""The overflow finder: what it names and keeps for each place in which a network can overflow."""

import pytest
import torch
from scaled_base import scaled_base
from small_pages import small_collection

from coltrain.errors import RunError
from coltrain.model.build import build_for_training
from coltrain.model.half import Half, narrowed
from coltrain.recipe import load_recipe
from coltrain.training.precision import overflow as subject
from coltrain.training.precision.overflow import chosen, find_overflow
from coltrain.training.precision.ranges import Range, ranges, run, samples_of, spread

CPU = torch.device("cpu")
LAYER = "language_model.layers.1"
FIRST = "language_model.layers.0"


def build(*overrides):
    return build_for_training(load_recipe("tiny", overrides), CPU)


@pytest.fixture(scope="module")
def collection():
    return small_collection("pages", 4)


@pytest.fixture
def look(tmp_path, collection):
    """Finds the overflow of a base with some weights multiplied; gives the model as well."""

    def find(factors, **settings):
        built = build(f"model.base={scaled_base(tmp_path / 'base', factors)}")
        samples = list(samples_of(collection, built.preparer))
        return built, samples, find_overflow(built.model, samples, **settings)

    return find


PLANTED = {
    "down_proj": ({f"{LAYER}.mlp.down_proj.weight": 1e6}, [f"{LAYER}.mlp.down_proj"]),
    "the product before down_proj": (
        {f"{LAYER}.mlp.up_proj.weight": 1.2e4, f"{LAYER}.mlp.down_proj.weight": 1 / 1.2e4},
        [f"{LAYER}.mlp.up_proj", f"{LAYER}.mlp.down_proj"],
    ),
    "a gate": (
        {f"{LAYER}.mlp.gate_proj.weight": 1e5, f"{LAYER}.mlp.down_proj.weight": 1e-5},
        [f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.down_proj"],
    ),
    "a weight": ({f"{LAYER}.mlp.up_proj.weight": 1e7}, None),
    "values of attention": (
        {f"{LAYER}.self_attn.v_proj.weight": 1e6, f"{LAYER}.self_attn.o_proj.weight": 1e-6},
        [f"{LAYER}.self_attn"],
    ),
    "what attention adds": (
        {f"{LAYER}.self_attn.o_proj.weight": 1e6},
        [f"{LAYER}.self_attn.o_proj"],
    ),
    "embeddings": (
        {"language_model.embed_tokens.weight": 1e6},
        ["language_model.embed_tokens"],
    ),
    "a norm": (
        {f"{LAYER}.post_attention_layernorm.weight": 1e5}
        | {f"{LAYER}.mlp.{name}_proj.weight": 1e-5 for name in ("gate", "up")},
        None,
    ),
    "the vision tower": ({"visual.blocks.0.mlp.fc2.weight": 1e6}, ["visual.blocks.0.mlp.fc2"]),
    "vision attention": ({"visual.blocks.1.attn.qkv.weight": 1e6}, ["visual.blocks.1.attn"]),
    "patches": ({"visual.patch_embed.proj.weight": 1e6}, ["visual.patch_embed"]),
    "visual tokens": ({"visual.merger.mlp.2.weight": 1e6}, ["visual.merger.mlp.2"]),
    "within the merger": (
        {"visual.merger.mlp.0.weight": 1e6},
        ["visual.merger.mlp.0", "visual.merger.mlp.2"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLANTED)
def test_what_overflows_is_found_and_float16_is_float32_again(look, place):
    factors, expected = PLANTED[place]
    built, samples, found = look(factors)
    assert found.overflow_in_float16 is not None
    if expected is not None:
        assert list(found.keep_float32) == expected
    half = narrowed(built.model, Half(torch.float16, tuple(found.keep_float32)))
    for inputs in samples:
        exact, ours = run(built.model, inputs), run(half, inputs)
        assert ours.isfinite().all()
        cosines = (exact * ours).sum(-1)[inputs.mask]
        assert cosines.min() > 0.999
    # The fewest: without any one of them something is not finite, or weights are lost.
    for name, reason in found.keep_float32.items():
        others = tuple(other for other in found.keep_float32 if other != name)
        less = narrowed(built.model, Half(torch.float16, others))
        is_needed = any(not run(less, inputs).isfinite().all() for inputs in samples)
        assert is_needed or "float16 rounds" in reason or place == "a norm"


def test_a_sum_of_the_residual_stream_is_blamed_on_what_adds_to_it():
    # No module's output is too large; what they have added up to is.
    found = {
        "language_model.embed_tokens": Range(output=1.0, weight=1.0),
        f"{FIRST}.self_attn.o_proj": Range(1.0, 20_000.0, 1.0),
        f"{FIRST}.post_attention_layernorm": Range(20_001.0, 1.0, 1.0),
        f"{FIRST}.mlp.down_proj": Range(1.0, 20_000.0, 1.0),
        f"{LAYER}.input_layernorm": Range(40_001.0, 1.0, 1.0),
        f"{LAYER}.self_attn.o_proj": Range(1.0, 20_000.0, 1.0),
        f"{LAYER}.post_attention_layernorm": Range(60_001.0, 1.0, 1.0),
    }
    assert list(chosen(found, 0.5)) == [f"{FIRST}.mlp.down_proj"]  # float32 from there on
    assert list(chosen(found, 0.9)) == [f"{LAYER}.self_attn.o_proj"]
    assert list(chosen(found, 1.0)) == []


def test_a_margin_counts_what_only_comes_near():
    one = {f"{FIRST}.mlp.down_proj": Range(1.0, 40_000.0, 1.0)}
    assert list(chosen(one, 0.5)) == [f"{FIRST}.mlp.down_proj"]
    assert list(chosen(one, 0.7)) == []


def test_weights_that_float16_rounds_away_are_kept():
    one = {f"{FIRST}.mlp.down_proj": Range(1.0, 1.0, 1e-6, weight_error=0.02)}
    assert chosen(one, 0.5) == {f"{FIRST}.mlp.down_proj": "float16 rounds 2.0% of its weights away"}


def test_a_network_within_the_range_keeps_nothing(look):
    _, _, found = look({})
    assert found.keep_float32 == {}
    assert found.overflow_in_float16 is None
    assert found.near() == {}
    assert found.sentence == (
        "float16: no module's numbers go beyond 0.5 x 65,504; none is kept in float32"
    )


def test_what_the_rules_miss_a_run_in_float16_finds(look, monkeypatch):
    monkeypatch.setattr(subject, "chosen", lambda found, margin: {})
    factors, expected = PLANTED["the vision tower"]
    _, _, found = look(factors)
    assert list(found.keep_float32) == expected
    assert found.keep_float32[expected[0]].startswith("met in a run in float16")


def test_a_network_that_is_not_finite_in_float32_is_refused(look):
    with pytest.raises(RunError) as caught:
        look({f"{LAYER}.mlp.down_proj.weight": 3e38, f"{FIRST}.mlp.down_proj.weight": 3e38})
    assert caught.value.code == "float16-overflows"


def test_bfloat16_names_the_same_modules(look):
    built, samples, found = look(PLANTED["the product before down_proj"][0])
    rounded = ranges(built.model.bfloat16(), samples)
    limit = 0.5 * 65504
    assert {name for name, one in rounded.items() if one.largest > limit} == set(found.near())


def test_ranges_are_those_that_the_modules_met(tiny_retriever, collection):
    built = tiny_retriever.built
    samples = list(samples_of(collection, built.preparer))
    seen = []
    layer = built.model.get_submodule(f"{LAYER}.mlp.down_proj")
    hook = layer.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].abs().max(), output.abs().max()))
    )
    found = ranges(built.model, samples)[f"{LAYER}.mlp.down_proj"]
    assert found.input == max(one for one, _ in seen)
    assert found.output == max(one for _, one in seen)
    hook.remove()
    assert found.weight == layer.weight.abs().max()
    assert 1e-5 < found.weight_error < 1e-3
    assert len(seen) == len(samples)


def test_samples_are_spread_over_the_data(collection, tiny_built):
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 16) == [0, 1, 2]
    samples = list(samples_of(collection, tiny_built.preparer, num_pages=2, num_queries=3))
    assert [inputs.pixel_values is not None for inputs in samples] == [True, True, False]
    assert samples[-1].input_ids.shape[0] == 3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_narrowed_model_is_the_one_that_is_read_from_the_file(collection, dtype):
    keep = [f"{LAYER}.mlp.down_proj", "visual.blocks.0"]
    wide = build("lora.dropout=0.0")
    made = narrowed(wide.model, Half(torch.float16, tuple(keep)))
    read = build(
        *("lora.dropout=0.0", "precision.compute=float16", f"model.dtype={dtype}"),
        f"precision.keep_float32=[{','.join(keep)}]",
    )
    for (name, one), (_, other) in zip(
        made.named_parameters(), read.model.named_parameters(), strict=True
    ):
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    for inputs in samples_of(collection, read.preparer):
        assert torch.equal(run(made, inputs), run(read.model, inputs))
