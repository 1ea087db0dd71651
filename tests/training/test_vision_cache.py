"""A run with the cache of visual tokens: the same result, whatever the cache holds."""

import json
from itertools import islice

import pytest
import torch

from coltrain.errors import RunError
from coltrain.model.inputs import Preparer
from coltrain.model.vision_cache import FeatureStore
from coltrain.training.events import EvaluationResult, Notice, StepResult, Stopped

PAGES = 40  # of small-train
# float32: pages pass the vision tower alone, so its products have other shapes than for a chunk, which some
# processors round otherwise.
ROUNDING = 1e-5
CACHED = ("data.vision_cache.path=features", "train.steps=null", "train.epochs=2")


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def go(training):
    """Losses, scores, notices, and the trained weights at the end."""
    losses, scores, notices = [], [], []
    for event in training.events():
        assert not isinstance(event, Stopped), f"a signal from outside ended the run: {event}"
        if isinstance(event, StepResult):
            losses.append(event.loss)
        elif isinstance(event, EvaluationResult):
            scores.append((event.result.per_query, event.loss))
        elif isinstance(event, Notice):
            notices.append(event.text)
    trained = {name: one.detach().clone() for name, one in training.setup.trained.items()}
    return losses, scores, notices, trained


def record(training):
    return json.loads((training.run.path / "run.json").read_text())["vision_cache"]


def assert_same(left, right):
    assert left[0] == right[0]
    for name, weight in left[3].items():
        torch.testing.assert_close(weight, right[3][name], rtol=0, atol=0)


def test_a_run_with_the_cache_equals_one_without(start):
    plain = go(start(*CACHED, "data.vision_cache.path=null"))
    training = start(*CACHED)
    cached = go(training)
    assert cached[0] == pytest.approx(plain[0], rel=ROUNDING)
    # Of whole tensors (of B, which began at zero, all is update): where a gradient is next to nothing, Adam makes
    # a step of rounding, 3.7e-5 in one number of .46.
    for name, weight in plain[3].items():
        assert (cached[3][name] - weight).norm() < 1e-3 * weight.norm(), name
    assert plain[0][0] > 1.001 * plain[0][-1]  # it learns
    found = record(training)
    assert (found["misses"], found["hits"]) == (PAGES, PAGES)
    assert found["bytes_written"] == found["bytes_read"] > 0
    assert (found["repaired"], found["not_stored"], found["stored_as"]) == (0, 0, "float32")


def test_a_run_does_not_depend_on_what_the_cache_held_to_the_bit(start, monkeypatch):
    first = go(start(*CACHED))

    def prepared(*_):
        raise AssertionError("a page was decoded and prepared though its visual tokens are known")

    again = start(*CACHED)
    with monkeypatch.context() as patched:
        patched.setattr(Preparer, "prepare_page", prepared)
        patched.setattr(again.setup.built.model, "encode_vision", prepared)
        second = go(again)
    assert_same(second, first)
    assert (record(again)["misses"], record(again)["hits"]) == (0, 2 * PAGES)
    half = start(*CACHED, "data.vision_cache.path=half", "train.epochs=0.4")
    go(half)
    assert 0 < record(half)["misses"] < PAGES
    mixed = start(*CACHED, "data.vision_cache.path=half")
    assert_same(go(mixed), first)
    assert 0 < record(mixed)["misses"] < PAGES


@pytest.mark.slow
def test_workers_look_up_and_the_run_is_the_same(start):
    first = go(start(*CACHED))
    with_workers = start(*CACHED, "data.num_workers=2", "data.vision_cache.path=others")
    assert_same(go(with_workers), first)
    assert record(with_workers)["hits"] + record(with_workers)["misses"] == 2 * PAGES
    assert record(with_workers)["misses"] == PAGES  # what is looked up too early is asked again


def test_damaged_entries_are_noticed_counted_and_made_again(start, tmp_path):
    first = go(start(*CACHED))
    [segment] = (tmp_path / "features").glob("*/*.features")
    content = bytearray(segment.read_bytes())
    content[100] ^= 1
    content[-100] ^= 1
    segment.write_bytes(content)
    training = start(*CACHED)
    assert_same(go(training), first)
    found = record(training)
    assert (found["repaired"], found["misses"], found["hits"]) == (2, 2, 2 * PAGES - 2)
    later = start(*CACHED)
    assert_same(go(later), first)
    assert (record(later)["repaired"], record(later)["hits"]) == (0, 2 * PAGES)


def test_a_full_cache_says_so_once_and_the_run_is_the_same(start):
    first = go(start(*CACHED))
    training = start(*CACHED, "data.vision_cache.path=small", "data.vision_cache.max_gib=4e-5")
    full = go(training)
    assert_same(full, first)
    found = record(training)
    assert 0 < found["hits"] < PAGES
    assert found["misses"] + found["hits"] == 2 * PAGES
    assert found["not_stored"] > PAGES - found["hits"] >= 0
    [room, word] = full[2]
    assert "no room for all pages" in room
    assert "max_gib = 4e-05" in room
    assert "is full" in word
    assert training.run.facts["warnings"] == [room, word]


def test_evaluations_use_it_too_and_give_the_same_scores_to_the_bit(start, monkeypatch):
    evaluated = ("eval.data=[small-test]", "train.steps=2", "train.epochs=null")
    plain = go(start(*CACHED, *evaluated, "data.vision_cache.path=null", "batch.chunk_size=1"))
    training = start(*CACHED, *evaluated, "batch.chunk_size=1")
    cached = go(training)
    assert_same(cached, plain)
    assert cached[1] == plain[1]
    assert len(cached[1]) == 2
    assert record(training)["misses"] == 16 + 6
    assert record(training)["hits"] == 6


def test_an_evaluation_never_takes_rounded_visual_tokens(start):
    rounded = ("data.vision_cache.dtype=bfloat16", "eval.data=[small-test]", "train.epochs=1")
    plain = start(*CACHED, "eval.data=[small-test]", "train.epochs=1")
    training = start(*CACHED, *rounded)
    scores, expected = (next(go(one)[1][0][0] for one in (run,)) for run in (training, plain))
    assert scores == expected  # before the first step, where the weights are the same
    assert record(training)["misses"] == PAGES  # none of the evaluation's
    assert record(training)["stored_as"] == "bfloat16"
    [deviation] = training.run.facts["deviations"]
    assert deviation["what"] == "data.vision_cache.dtype = bfloat16"


@pytest.mark.parametrize(("dtype", "moves"), [("bfloat16", 4e-3), ("float16", 5e-4)])
def test_rounding_moves_embeddings_and_gradients_by_no_more_than_the_type_s_precision(
    start, dtype, moves
):
    exact = go(start(*CACHED, "train.epochs=1"))
    rounded = go(start(*CACHED, "train.epochs=1", f"data.vision_cache.dtype={dtype}"))
    assert rounded[0] != exact[0]
    assert rounded[0][0] == pytest.approx(exact[0][0], rel=moves)


def test_a_run_that_goes_on_counts_on(start, tmp_path):
    training = start(*CACHED, "checkpoint.every=2")
    events = training.events()
    steps = (event for event in events if isinstance(event, StepResult))
    assert [event.step for event in islice(steps, 3)] == [1, 2, 3]
    training._stop.request = None
    events.close()
    assert record(training)["misses"] == 3 * 8


def test_a_trained_vision_tower_is_refused_with_one_clear_error(start, tmp_path):
    trained = "lora.target_modules=.*(qkv|q_proj|custom_text_proj)"
    with pytest.raises(RunError, match=r"\[vision-cache-of-a-trained-tower\]") as caught:
        start(*CACHED, trained, "lora.dropout=0.0")
    assert "data.vision_cache.path=null" in str(caught.value)
    assert not list(tmp_path.glob("run-*"))
    assert not (tmp_path / "features").exists()


def test_every_step_says_how_long_it_waited_for_its_pages(start):
    training = start(*CACHED, "data.vision_cache.path=null", "train.epochs=1")
    waits = [event.wait_seconds for event in training.events() if isinstance(event, StepResult)]
    lines = [line for line in training.run.lines() if line["kind"] == "step"]
    assert all(0 < line["wait_seconds"] < line["seconds"] for line in lines)
    assert [line["wait_seconds"] for line in lines] == pytest.approx(waits, abs=1e-4)


def test_the_store_s_type_is_what_the_tower_computes_in(start, tmp_path):
    training = start(*CACHED, "precision.compute=bfloat16", "train.epochs=0.2")
    go(training)
    assert record(training)["stored_as"] == "bfloat16"
    assert training.run.facts["deviations"] == []
    [identity] = (tmp_path / "features").glob("*/identity.json")
    assert json.loads(identity.read_text())["computed_in"] == "bfloat16"
    assert isinstance(training._vision.store, FeatureStore)
