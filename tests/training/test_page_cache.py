"""A run with the cache of resized pages, or with draft decoding."""

import json

import pytest
import torch
from jpeg_pages import jpeg_collection

from coltrain.errors import RunError
from coltrain.model.page_cache import PageCache
from coltrain.training.events import Notice, StepResult
from coltrain.training.page_cache import FULL_PAGES
from coltrain.training.resume import resume
from coltrain.training.setup import deviations
from coltrain.training.vision_cache import serves_evaluations

PAGES = 10
RUN = ("data.train=[jpeg]", "train.steps=null", "train.epochs=2", "batch.global_size=5")
CACHED = (*RUN, "data.page_cache.path=pages")


@pytest.fixture(autouse=True)
def jpeg_data(use_small_data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    use_small_data["jpeg"] = jpeg_collection("jpeg", PAGES)


def go(training):
    events = list(training.events())
    losses = [event.loss for event in events if isinstance(event, StepResult)]
    assert len(losses) == 4
    notices = [event.text for event in events if isinstance(event, Notice)]
    trained = {name: one.detach().clone() for name, one in training.setup.trained.items()}
    return losses, trained, notices


def record(training):
    return json.loads((training.run.path / "run.json").read_text())["page_cache"]


def assert_same(left, right):
    assert left[0] == right[0]
    for name, weight in left[1].items():
        assert torch.equal(weight, right[1][name])


def test_a_run_with_the_cache_equals_one_without_to_the_bit(start):
    plain = go(start(*RUN))
    training = start(*CACHED)
    assert_same(go(training), plain)
    assert (record(training)["misses"], record(training)["hits"]) == (PAGES, PAGES)
    again = start(*CACHED)
    assert_same(go(again), plain)
    assert (record(again)["misses"], record(again)["hits"]) == (0, 2 * PAGES)


@pytest.mark.slow
def test_workers_share_the_cache_and_their_counts(start):
    plain = go(start(*RUN))
    training = start(*CACHED, "data.num_workers=2")
    assert_same(go(training), plain)
    found = record(training)
    assert found["misses"] + found["hits"] >= 2 * PAGES
    assert found["misses"] >= PAGES
    assert found["repaired"] == found["not_stored"] == 0


def test_a_full_cache_says_so_once_and_the_run_is_the_same(start):
    plain = go(start(*RUN))
    training = start(*CACHED, "data.page_cache.max_gib=3e-4")
    full = go(training)
    assert_same(full, plain)
    assert 0 < record(training)["not_stored"] < 2 * PAGES
    assert full[2].count(FULL_PAGES) == 1


def test_beside_the_cache_of_visual_tokens_it_is_not_used_and_the_run_says_so(start, tmp_path):
    training = start(*CACHED, "data.vision_cache.path=features")
    _, _, notices = go(training)
    assert any("data.page_cache is not read with data.vision_cache.path" in one for one in notices)
    assert "page_cache" not in training.run.facts
    assert not (tmp_path / "pages").exists()


def test_a_processor_that_gives_no_bytes_is_refused(start, monkeypatch):
    monkeypatch.setattr("coltrain.training.page_cache.is_served", lambda processor: False)
    with pytest.raises(RunError, match=r"page-cache-of-other-processor"):
        start(*CACHED)


def test_a_run_that_goes_on_counts_on(start, tmp_path):
    training = start(*CACHED, "checkpoint.every=2", folder=tmp_path / "run")
    events = training.events()
    while training.progress.step < 2:
        next(events)
    events.close()
    assert record(training)["misses"] > 0
    before = record(training)
    after = resume(tmp_path / "run", torch.device("cpu")).training
    for _ in after.events():
        pass
    assert record(after)["misses"] >= before["misses"]
    assert record(after)["hits"] > before["hits"]


def test_draft_decoding_gives_training_pages_other_pixels_and_says_so(start):
    plain = start(*RUN)
    drafted = start(*RUN, "data.decoding=draft", "eval.data=[jpeg]")
    sizes = [
        (plain.setup.collection.page_pixels(n).size, drafted.setup.collection.page_pixels(n).size)
        for n in range(PAGES)
    ]
    assert any(small[0] < whole[0] for whole, small in sizes)
    assert all(small == whole for n, (whole, small) in enumerate(sizes) if n % 5 == 4)  # PNG
    # An evaluation decodes the same pages exactly.
    [evaluated] = drafted.setup.eval_data
    assert [evaluated.page_pixels(n).size for n in range(PAGES)] == [whole for whole, _ in sizes]
    assert deviations(plain.recipe) == []
    assert [one["what"] for one in deviations(drafted.recipe)] == ["data.decoding = draft"]
    losses = go(start(*RUN, "data.decoding=draft"))[0]
    assert losses != go(plain)[0]
    assert losses == pytest.approx(go(start(*RUN))[0], rel=0.1)


def test_drafted_pages_are_kept_apart_from_exact_ones(start):
    go(start(*CACHED))
    drafted = start(*CACHED, "data.decoding=draft")
    assert_same(go(drafted), go(start(*RUN, "data.decoding=draft")))
    assert record(drafted)["misses"] == PAGES
    vision = ("data.vision_cache.path=features",)
    exact, draft = start(*RUN, *vision), start(*RUN, *vision, "data.decoding=draft")
    assert exact._vision.store.folder != draft._vision.store.folder
    assert serves_evaluations(exact._vision, "exact")
    assert not serves_evaluations(draft._vision, "draft")
    assert isinstance(drafted._pages, PageCache)
