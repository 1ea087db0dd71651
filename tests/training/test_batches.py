import gc
import os
import signal
import threading
import time
from multiprocessing import resource_sharer

import numpy as np
import pytest
import torch
from small_pages import SmallPages, small_collection
from torch.utils.data import get_worker_info
from torch.utils.data._utils import signal_handling
from torch.utils.data._utils.pin_memory import pin_memory

from coltrain.data import whereabouts
from coltrain.errors import DataError
from coltrain.training.batches import Batch, ChunkPlan, ChunkReader, ChunkStream, chunk_plans
from coltrain.training.interruption import Interrupted, StopRequest


@pytest.fixture
def reader(tiny_retriever):
    return ChunkReader(small_collection("pages", 12), tiny_retriever.built.preparer)


def batch(*rows, negatives=()):
    return Batch(np.array(rows), negatives)


def stream(reader, batches, chunk_size=2, num_workers=0):
    return ChunkStream(
        reader, batches, chunk_size=chunk_size, num_workers=num_workers, pin_memory=False
    )


def test_chunks_are_pinned_with_all_their_tensors(reader, monkeypatch):
    """torch's loader asks a chunk itself, and pins nothing of what has no such method."""
    pinned = []

    def pin(tensor):
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    for plan in chunk_plans(batch(5, 3), reader.collection, 2):
        pinned.clear()
        chunk = reader.read(plan)
        moved = pin_memory(chunk)
        assert len(pinned) == (3 if plan.side == "query" else 5)
        assert moved.inputs.input_ids is not chunk.inputs.input_ids
        assert torch.equal(moved.inputs.input_ids, chunk.inputs.input_ids)
        assert moved.samples == chunk.samples


def test_queries_come_first_and_then_their_pages_in_the_order_of_the_batch():
    collection = small_collection("pages", 4, copies=2)  # rows 4 and 5 ask for page 0 again
    assert chunk_plans(batch(5, 3, 1), collection, 2) == [
        ChunkPlan("query", ((5, 0), (3, 3))),
        ChunkPlan("query", ((1, 1),)),
        ChunkPlan("page", ((5, 0), (3, 3))),
        ChunkPlan("page", ((1, 1),)),
    ]


def test_hard_negatives_come_last_each_under_its_query(reader):
    plans = chunk_plans(batch(5, 3, negatives=[(7, 8), (7, 2)]), reader.collection, 3)
    assert plans == [
        ChunkPlan("query", ((5, 5), (3, 3))),
        ChunkPlan("page", ((5, 5), (3, 3))),
        ChunkPlan("negative", ((5, 7), (5, 8), (3, 7))),
        ChunkPlan("negative", ((3, 2),)),
    ]
    chunk = reader.read(plans[2])
    # The same page under two queries is two samples: their dropout differs.
    assert chunk.samples == ("5, page 7", "5, page 8", "3, page 7")
    pages = [reader.preparer.prepare_page(reader.collection.page_image(n)) for n in (7, 8, 7)]
    assert torch.equal(chunk.inputs.pixel_values, torch.cat([p.pixel_values for p in pages]))


def test_a_sample_is_its_row_whatever_the_chunk(reader):
    chunks = [reader.read(plan) for plan in chunk_plans(batch(5, 3, 8), reader.collection, 2)]
    assert [chunk.samples for chunk in chunks] == [("5", "3"), ("8",)] * 2
    assert [chunk.side for chunk in chunks] == ["query", "query", "page", "page"]


def test_a_chunk_holds_the_text_and_the_page_of_its_rows(reader):
    preparer, collection = reader.preparer, reader.collection
    queries = reader.read(ChunkPlan("query", ((4, 4), (1, 1))))
    ids = [queries.inputs.input_ids[n][queries.inputs.mask[n]].tolist() for n in range(2)]
    assert ids == [preparer.query_ids(collection.queries[row].text) for row in (4, 1)]
    pages = reader.read(ChunkPlan("page", ((4, 4), (1, 1))))
    expected = [preparer.prepare_page(collection.page_image(row)) for row in (4, 1)]
    assert torch.equal(pages.inputs.pixel_values, torch.cat([p.pixel_values for p in expected]))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_gives_batch_after_batch(reader, num_workers):
    chunks = stream(reader, [batch(5, 3, 8), batch(0, 1)], num_workers=num_workers)
    found = [[chunk.samples for chunk in chunks.batch()] for _ in range(2)]
    assert found == [[("5", "3"), ("8",), ("5", "3"), ("8",)], [("0", "1"), ("0", "1")]]


def test_workers_prepare_the_same_bytes(reader):
    here, there = (
        stream(reader, [batch(*range(6))], num_workers=number).batch() for number in (0, 1)
    )
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours.inputs.input_ids, theirs.inputs.input_ids)
        if ours.side == "page":
            assert torch.equal(ours.inputs.pixel_values, theirs.inputs.pixel_values)


def message(chunks) -> str:
    """Of the error on the way, which is let go at once: while it lives, so do the workers."""
    try:
        list(chunks)
    except DataError as error:
        return str(error)
    return "none"


class BrokenPages(SmallPages):
    def __getitem__(self, index):
        if index == 1:
            raise DataError("not-an-image", "a page's image cannot be read.", received="garbage")
        return super().__getitem__(index)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_page_that_cannot_be_read_is_named_also_from_a_worker(reader, num_workers):
    object.__setattr__(reader.collection, "images", BrokenPages(list(range(12))))
    assert message(stream(reader, [batch(0, 1, 2, 3)], num_workers=num_workers).batch()) == (
        "DataError [not-an-image]: a page's image cannot be read.\n"
        "  where     pages, page 'p1'\n"
        "  received  garbage"
    )


class PagesThatSayWhere(SmallPages):
    def __getitem__(self, index):
        raise DataError("where", "in a worker" if get_worker_info() else "in this process")


@pytest.mark.parametrize(("num_workers", "where"), [(0, "in this process"), (1, "in a worker")])
def test_pages_are_decoded_where_the_recipe_says(reader, num_workers, where):
    object.__setattr__(reader.collection, "images", PagesThatSayWhere(list(range(12))))
    assert where in message(stream(reader, [batch(0, 1)], num_workers=num_workers).batch())


class DeadlyPages(SmallPages):
    """Page 3 ends the process that decodes it; others take their time."""

    def __getitem__(self, index):
        if index == 3:
            os._exit(9)
        return super().__getitem__(index)


@pytest.fixture
def torch_forgets():
    """torch's handler of SIGCHLD speaks of a dead worker again whenever any child ends: not here."""
    yield
    gc.collect()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal_handling._SIGCHLD_handler_set = False


@pytest.fixture
def torch_hears_nothing(torch_forgets, monkeypatch):
    """Without that handler, whose word may come after the test, in the middle of pytest."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", True)


@pytest.mark.slow
@pytest.mark.usefixtures("torch_hears_nothing")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_dies_says_on_which_row(reader, num_workers):
    object.__setattr__(reader.collection, "images", DeadlyPages(list(range(12))))
    started = time.monotonic()
    chunks = stream(reader, [batch(7, 5, 3, 8)], num_workers=num_workers).batch()
    with pytest.raises(DataError, match=r"\[worker-died\]: a worker process") as caught:
        list(chunks)
    assert caught.value.where == "pages, row 3, page 'p3'"
    assert "data.num_workers" in caught.value.suggestion
    assert time.monotonic() - started < 60  # and not never


class PagesInWork(SmallPages):
    """A worker begins with a page and is never done with it."""

    reached = threading.Event()

    def __getitem__(self, index):
        self.reached.set()
        time.sleep(60)


def no_door(sharer):
    sharer._listener.close()


def closed_door(sharer):
    sharer._listener._listener._socket.close()


def no_word(sharer):
    sharer._listener._listener.accept().close()


def no_answer(sharer):
    with sharer._listener.accept() as connection:
        connection.poll(10)  # asked for the tensor, and not a word back


@pytest.mark.usefixtures("torch_hears_nothing")
@pytest.mark.parametrize("last_act", [no_door, closed_door, no_word, no_answer])
def test_a_worker_that_dies_before_its_tensor_arrived_says_on_which_row(
    reader, monkeypatch, last_act
):
    def die(sharer):
        last_act(sharer)
        PagesInWork.reached.wait(10)
        time.sleep(0.2)  # the training process has its error, while this one still counts as alive
        os._exit(9)

    # In the worker, which is forked: the thread that hands out what it has sent.
    monkeypatch.setattr(resource_sharer._ResourceSharer, "_serve", die)
    object.__setattr__(reader.collection, "images", PagesInWork(list(range(12))))
    chunks = stream(reader, [batch(7, 5)], num_workers=1).batch()
    with pytest.raises(DataError, match=r"\[worker-died\]: a worker process") as caught:
        next(chunks)
    assert isinstance(caught.value.__cause__, whereabouts.LOST_WORKER)  # and torch saw no death
    assert caught.value.where == "pages, row 7, page 'p7'"


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("error", whereabouts.LOST_WORKER)
def test_the_same_error_from_elsewhere_stays_what_it_is(reader, monkeypatch, num_workers, error):
    monkeypatch.setattr(whereabouts, "_DYING_SECONDS", 0.1)
    chunks = stream(reader, [batch(0, 1)], num_workers=num_workers)
    with pytest.raises(error, match="a file of ours"), chunks.watched():
        raise error("a file of ours")


def kill_the_worker(chunks):
    """And let the model compute: torch hears of it in a signal handler, in whatever line this is."""
    [worker] = chunks._chunks._workers
    with chunks.watched():
        os.kill(worker.pid, signal.SIGKILL)
        for _ in range(1000):
            time.sleep(0.01)


@pytest.mark.usefixtures("torch_forgets")
def test_a_worker_that_is_killed_while_the_model_computes_is_one_clear_error(reader):
    chunks = stream(reader, [batch(*range(8))] * 4, num_workers=1)
    next(chunks.batch())
    with pytest.raises(DataError, match=r"\[worker-died\]"):
        kill_the_worker(chunks)


@pytest.mark.usefixtures("torch_forgets")
def test_a_signal_that_ends_the_workers_too_is_a_signal_and_no_dead_worker(reader):
    stop = StopRequest()
    chunks = ChunkStream(
        reader,
        [batch(*range(8))] * 4,
        chunk_size=2,
        num_workers=1,
        pin_memory=False,
        check=stop.check,
    )
    next(chunks.batch())
    stop.signal_name = "SIGTERM"
    with pytest.raises(Interrupted):
        kill_the_worker(chunks)


def test_a_stream_looks_up_before_each_chunk(reader):
    asked = []
    chunks = ChunkStream(
        reader,
        [batch(0, 1, 2, 3)],
        chunk_size=2,
        num_workers=0,
        pin_memory=False,
        check=lambda: asked.append(None),
    )
    assert len(list(chunks.batch())) == len(asked) == 4
