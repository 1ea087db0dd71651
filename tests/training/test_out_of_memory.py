"""Memory that runs out halves the chunk, and nothing else."""

import json

import pytest
import torch
from small_device import SmallDevice, tell_which_pass

from coltrain.errors import TrainingError
from coltrain.losses import softmax
from coltrain.recipe import load_recipe
from coltrain.training.events import Notice, StepResult
from coltrain.training.gradient_cache import cached_gradients
from coltrain.training.out_of_memory import ChunkLimit, explained

QUERIES, CHUNK = 7, 4  # chunks of 4 and 3, of queries and of pages
SAME = {"rtol": 1e-12, "atol": 1e-14}  # float64: the same sums in another order


@pytest.fixture(autouse=True)
def told_which_pass(monkeypatch):
    tell_which_pass(monkeypatch.setattr)


def batch_loss(embeddings):
    queries, pages = embeddings["query"], embeddings["page"]
    return softmax(queries.vectors, pages.vectors, queries.mask, pages.mask, temperature=0.1)


def run(built, make_chunks, limit=None):
    chunks = make_chunks(built, QUERIES, CHUNK)
    step = cached_gradients(built.model, chunks, batch_loss, seed=3, step=11, limit=limit)
    return step, gradients(built.model)


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 1e-9, f"{name} has no gradient to compare"
        torch.testing.assert_close(found[name], gradient, **SAME, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("during", ["first", "second"])
@pytest.mark.parametrize("failing", range(4))
def test_whichever_chunk_fails_the_gradient_is_the_same(
    float64_built, uneven_chunks, during, failing
):
    whole, expected = run(float64_built, uneven_chunks)
    float64_built.model.zero_grad()
    device = SmallDevice(float64_built.model, [during], lambda number, _: number != failing)
    limit = ChunkLimit()
    step, found = run(float64_built, uneven_chunks, limit)
    assert_same(found, expected)
    assert step.loss == pytest.approx(whole.loss, rel=1e-12)
    # The last chunk keeps its graph, and is the first whose gradient is pushed back.
    sizes = {"first": [4, 3, 4, 3], "second": [3, 4, 3, 4]}[during]
    failed = sizes[failing]
    [shortage] = limit.shortages
    assert (shortage.during, shortage.num_samples) == (during, failed)
    assert limit.most == shortage.chunk_size == failed // 2
    assert shortage.said == "CUDA out of memory. Tried to allocate 2.00 GiB."
    # In the second pass gradients stood there already when it failed: the case bites.
    assert device.half_done == (during == "second")
    # Samples that passed before the failure are as they were; later ones are fewer together.
    later = device.passed[during][failing:]
    assert max(later) == limit.most
    assert sum(later) == {"first": sum(sizes[failing:]), "second": 2 * QUERIES}[during]


def test_a_smaller_device_from_the_first_chunk_to_single_samples(float64_built, uneven_chunks):
    _, expected = run(float64_built, uneven_chunks)
    float64_built.model.zero_grad()
    passes = ["first", "second"]
    device = SmallDevice(float64_built.model, passes, lambda _, samples: samples == 1)
    limit = ChunkLimit()
    step, found = run(float64_built, uneven_chunks, limit)
    assert_same(found, expected)
    assert [s.chunk_size for s in limit.shortages] == [2, 1]
    assert step.num_chunks == 2 * QUERIES
    assert device.passed == {during: [1] * 2 * QUERIES for during in passes}
    # The next step does not try again.
    float64_built.model.zero_grad()
    _, again = run(float64_built, uneven_chunks, limit)
    assert_same(again, expected)
    assert len(limit.shortages) == 2


def test_pixels_are_cut_where_the_vision_tower_is_trained(float64_built, uneven_chunks):
    for parameter in float64_built.model.visual.parameters():
        parameter.requires_grad_(True)
    _, expected = run(float64_built, uneven_chunks)
    assert any(name.startswith("visual.") for name in expected)
    float64_built.model.zero_grad()
    SmallDevice(float64_built.model, ["second"], lambda _, samples: samples < 3)
    _, found = run(float64_built, uneven_chunks, limit := ChunkLimit())
    assert limit.most == 1  # the last chunk, of 3, comes first
    assert_same(found, expected)


def test_checkpointed_layers_fail_in_the_backward_pass_and_go_on(float64_built, uneven_chunks):
    _, expected = run(float64_built, uneven_chunks)
    float64_built.model.zero_grad()
    float64_built.model.checkpoint_activations()
    SmallDevice(float64_built.model, ["second"], lambda _, samples: samples < 3)
    _, found = run(float64_built, uneven_chunks, limit := ChunkLimit())
    assert limit.most == 1
    assert_same(found, expected)


def test_gradients_that_stood_there_before_are_kept(float64_built, uneven_chunks):
    _, once = run(float64_built, uneven_chunks)
    SmallDevice(float64_built.model, ["second"], lambda _, samples: samples < 3)
    _, found = run(float64_built, uneven_chunks, ChunkLimit())
    assert_same(found, {name: 2 * gradient for name, gradient in once.items()})


@pytest.mark.parametrize("during", ["first", "second"])
def test_a_single_sample_that_does_not_fit_is_the_end(float64_built, uneven_chunks, during):
    SmallDevice(float64_built.model, [during], lambda *_: False)
    limit = ChunkLimit()
    with pytest.raises(torch.OutOfMemoryError):
        run(float64_built, uneven_chunks, limit)
    assert limit.most == 1


def test_without_a_limit_nothing_is_tried_again(float64_built, uneven_chunks):
    SmallDevice(float64_built.model, ["first"], lambda _, samples: samples < 4)
    with pytest.raises(torch.OutOfMemoryError):
        run(float64_built, uneven_chunks)


def test_nothing_of_a_failed_pass_is_alive_when_it_is_tried_again(monkeypatch):
    """Or there would be no more room than before."""
    from coltrain.training import out_of_memory

    alive = []

    class Activation:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def work(part):
        activation = Activation()
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        del activation

    class Part(list):
        def part(self, start, stop):
            return Part(self[start:stop])

    seen = []
    monkeypatch.setattr(out_of_memory, "_free_caches", lambda: seen.append(len(alive)))
    limit = ChunkLimit()
    list(limit.first_passes([Part([1, 2, 3])], work))
    limit = ChunkLimit()
    limit.second_passes([Part([1, 2, 3])], work, lambda: None)
    assert seen == [0, 0]


def test_a_run_goes_on_says_so_and_ends_the_same(start):
    whole = [e for e in start().events() if isinstance(e, StepResult)]
    training = start()
    SmallDevice(training.setup.built.model, ["second"], lambda _, samples: samples < 4)
    events = list(training.events())
    steps = [event for event in events if isinstance(event, StepResult)]
    for ours, theirs in zip(steps, whole, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert (ours.chunk_size, theirs.chunk_size) == (2, None)
    [said] = [e.text for e in events if isinstance(e, Notice) and "memory" in e.text]
    assert said == (
        "memory ran out in step 1, in the second pass of 4 samples together: 2 at most from here on. "
        "The result stays what it is; batch.chunk_size=2 spares the next run the trial"
    )
    assert events.index(Notice(said)) == events.index(steps[0]) + 1
    facts = json.loads((training.run.path / "run.json").read_text())
    assert said in facts["warnings"]
    assert facts["state"] == "finished"
    lines = [json.loads(x) for x in (training.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["chunk_size"] for line in lines if line["kind"] == "step"] == [2, 2, 2]


def test_a_run_that_cannot_go_on_says_what_to_do(start):
    training = start()
    SmallDevice(training.setup.built.model, ["first"], lambda number, _: number < 6)
    with pytest.raises(TrainingError) as caught:
        list(training.events())
    path = training.run.path
    assert str(caught.value) == (
        "TrainingError [out-of-memory]: the device's memory is too small for what has to be there at "
        "once.\n"
        f"  where     {path}\n"
        "  received  CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        "  expected  room for one sample's pass, the optimiser's state and an evaluation's pages\n"
        f"  try       coltrain resume {path} model.activation_checkpointing=true; coltrain plan tiny, "
        "which says what this card holds and by which settings; (this moves the number) "
        "model.max_visual_tokens below 64"
    )
    facts = json.loads((path / "run.json").read_text())
    assert facts["state"] == "stopped"
    assert "out-of-memory" in facts["stopped_by"]


def test_checkpointing_is_not_proposed_to_a_run_that_has_it(tmp_path):
    recipe = load_recipe("tiny", ["model.activation_checkpointing=true"])
    with pytest.raises(TrainingError) as caught, explained(recipe, tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    assert caught.value.suggestion.startswith("coltrain plan tiny")
