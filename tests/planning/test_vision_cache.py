"""What the cache of visual tokens is said to cost and to save."""

import json

import pytest

from coltrain.planning.gpus import this_cpu
from coltrain.planning.plan import make_plan
from coltrain.planning.vision_cache import vision_cache_plan
from coltrain.recipe import load_recipe


def planned(*overrides):
    recipe = load_recipe("tiny", ["train.steps=null", "train.epochs=2", *overrides])
    return make_plan(recipe, this_cpu())


def test_a_page_takes_its_visual_tokens_times_their_width_times_their_type():
    found = vision_cache_plan(planned(), rows=100)
    assert found.mib_per_page * 2**20 == 64 * 128 * 4  # the tiny base's budget and width, float32
    assert found.gib * 2**30 == 100 * 64 * 128 * 4
    assert found.fits
    path = "data.vision_cache.path=./features"
    half = vision_cache_plan(
        planned(path, "data.vision_cache.dtype=float16", "data.vision_cache.max_gib=1e-4"), rows=100
    )
    assert half.gib == found.gib / 2
    assert (half.is_used, half.fits, found.is_used) == (True, False, False)


def test_two_epochs_save_one_of_two_passes_of_the_vision_tower_and_one_saves_nothing():
    two = vision_cache_plan(planned(), rows=100)
    assert 0.1 < two.vision_share < 0.9
    vision = two.teraflop_per_page - two.teraflop_per_page_found
    assert two.vision_share == pytest.approx(vision / two.teraflop_per_page)
    assert two.saved_share == pytest.approx(two.vision_share / 2)
    assert vision_cache_plan(planned("train.epochs=1"), rows=100).saved_share == 0


def test_nothing_is_said_of_a_trained_vision_tower():
    trained = ("lora.target_modules=.*(qkv|q_proj|custom_text_proj)", "lora.dropout=0.0")
    assert vision_cache_plan(planned(*trained), rows=100) is None


def test_the_command_says_it(coltrain):
    code, out, _ = coltrain("plan", "tiny", "--gpu", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["vision_cache"]["pages"] > 100
    code, out, _ = coltrain("plan", "tiny", "--gpu", "cpu")
    assert "visual tokens on disk (data.vision_cache, off)" in out
    assert "in a further run over the same base" in out
