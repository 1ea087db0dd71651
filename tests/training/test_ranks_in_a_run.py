"""What happens on one rank of a run, and all have to know: too little memory, a cache of its own."""

import json

import pytest
import torch
from small_device import SmallDevice, tell_which_pass
from small_pages import small_collection

from coltrain.recipe import load_recipe
from coltrain.training import setup as set_up_module
from coltrain.training.events import Notice, StepResult
from coltrain.training.loop import Training
from coltrain.training.ranks import self_check
from coltrain.training.ranks.self_check import Case, counted_exchanges
from coltrain.training.ranks.starting import on_ranks

CASE = Case("softmax", 0.1, 4)


def steps_on_small_devices(ranks, room, during):
    """A step of the self-check; rank by rank, how many samples there is room for together."""
    from coltrain.training.out_of_memory import ChunkLimit

    limit = ChunkLimit()
    tell_which_pass(setattr)
    model_as_if_trained, really = self_check.model_as_if_trained, self_check.cached_gradients

    def on_a_small_device(*arguments):
        built = model_as_if_trained(*arguments)
        SmallDevice(built.model, [during], lambda _, samples: samples <= room[ranks.rank])
        return built

    self_check.model_as_if_trained = on_a_small_device
    self_check.cached_gradients = lambda *a, **more: really(*a, **more, limit=limit)
    yield from self_check.steps_of_a_rank(ranks, 14, [CASE])
    yield [(one.during, one.num_samples) for one in limit.shortages]


@pytest.mark.reference
def test_a_rank_whose_memory_is_too_small_gives_the_gradient_of_all():
    def steps(room, during):
        (one, first), (other, second) = on_ranks(2, steps_on_small_devices, room, during)
        assert (one.loss, one.gradient.tolist()) == (other.loss, other.gradient.tolist())
        return one, first, second

    plain, *nothing = steps((9, 9), "first")
    assert nothing == [[], []]
    # Chunks of 4 and 3 on each; that of 3 comes first in the second pass.
    for room, during, number in (
        ((9, 2), "first", (0, 1)),
        ((9, 1), "second", (0, 1)),
        ((2, 1), "second", (1, 1)),
    ):
        found, *shortages = steps(room, during)
        assert tuple(map(len, shortages)) == number
        assert all(kind == during for of_rank in shortages for kind, _ in of_rank)
        assert found.loss == pytest.approx(plain.loss, rel=1e-12)
        apart = torch.tensor(found.gradient - plain.gradient).norm()
        assert apart <= 1e-12 * torch.tensor(plain.gradient).norm()
        assert found.exchanges == plain.exchanges


def training_of(ranks, folder, *overrides):
    """A run of three small steps, of global batches of eight; one that is there goes on."""
    data = {
        "small-train": small_collection("small-train", 12),
        "small-test": small_collection("small-test", 5, first=200),
    }
    set_up_module.load_collection = lambda source, _: data[source.path]
    given = [
        *("data.train=[small-train]", "eval.data=[]", "eval.every=null", "train.steps=3"),
        *("batch.global_size=8", "batch.chunk_size=4", "optimizer.warmup_steps=0", *overrides),
    ]
    recipe, cpu = load_recipe("tiny", given), torch.device("cpu")
    if folder.exists():
        return Training.resume(recipe, folder, cpu, None, ranks=ranks)
    return Training(recipe, folder, cpu, ranks=ranks)


def run_with_little_memory(ranks, folder, room):
    training = training_of(ranks, folder)
    tell_which_pass(setattr)
    SmallDevice(
        training.setup.built.model,
        ["first", "second"],
        lambda _, samples: samples <= room[ranks.rank],
    )
    events = training.events()
    while True:
        with counted_exchanges() as counts:
            event = next(events, None)
        if event is None:
            return
        if isinstance(event, StepResult):
            yield event.loss, event.chunk_size, dict(counts)
        elif isinstance(event, Notice):
            yield event.text


@pytest.mark.slow
def test_every_rank_s_halving_is_in_the_run(tmp_path):
    plain, _ = on_ranks(2, run_with_little_memory, tmp_path / "plain", (9, 9))
    first, second = on_ranks(2, run_with_little_memory, tmp_path / "run", (9, 1))
    assert first == second
    losses = [item for item in first if not isinstance(item, str)]
    assert [loss for loss, _, _ in losses] == pytest.approx([one[0] for one in plain], rel=1e-5)
    assert [size for _, size, _ in losses] == [1, 1, 1]
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    said = [word for word in facts["warnings"] if word.startswith("memory ran out")]
    assert [word.partition(":")[0] for word in said] == [
        "memory ran out on rank 1 in step 1, in the first pass of 4 samples together",
        "memory ran out on rank 1 in step 1, in the first pass of 2 samples together",
    ]
    assert said == [item for item in first if isinstance(item, str) and item in said]
    # More is exchanged in the step in which memory ran out, and in no other.
    assert [counts for _, _, counts in losses[1:]] == [counts for _, _, counts in plain[1:]]
    assert losses[0][2] == plain[0][2] | {"all_gather_object": 1}


def run_with_a_cache(ranks, folder, cache, *overrides):
    training = training_of(ranks, folder, f"data.vision_cache.path={cache}", *overrides)
    for event in training.events():
        yield type(event).__name__
    yield training._vision.counts


@pytest.mark.slow
@pytest.mark.parametrize("evaluated", [(), ("eval.data=[small-test]",)], ids=["", "evaluated"])
def test_what_the_cache_did_on_all_ranks_is_counted(tmp_path, evaluated):
    def counted(name):
        return json.loads((tmp_path / name / "run.json").read_text())["vision_cache"]

    of_ranks = on_ranks(2, run_with_a_cache, tmp_path / "two", tmp_path / "features", *evaluated)
    (*_, first), (*_, second) = of_ranks
    assert min(first.misses, second.misses) > 0
    found = counted("two")
    assert found["misses"] == first.misses + second.misses
    assert found["hits"] == first.hits + second.hits
    assert found["bytes_written"] == first.bytes_written + second.bytes_written
    # Batches of 8, 8 and 8 of 12 pages; two evaluations of 5.
    num_pages = 24 + bool(evaluated) * 2 * 5
    assert found["misses"] + found["hits"] == num_pages
    # A run that goes on counts on, and what was counted before once, not once for each rank.
    if not evaluated:
        on_ranks(2, run_with_a_cache, tmp_path / "two", tmp_path / "features")
        again = counted("two")
        assert again["misses"] == found["misses"]
        assert again["hits"] == found["hits"] + num_pages
