"""Visual tokens on disk: the same to the bit, checked, bounded, and shared."""

import multiprocessing
import pickle

import pytest
import torch
from small_pages import small_collection

from coltrain.errors import ModelError
from coltrain.model.vision_cache import (
    FeatureStore,
    PageLookup,
    VisionFeatures,
    size_of,
    vision_identity,
)
from coltrain.model.vision_cache.store import PageFeatures

IDENTITY = {"tower": "1", "stored_as": "float32"}


def features(number: int, rows: int = 6) -> PageFeatures:
    generator = torch.Generator().manual_seed(number)
    return PageFeatures(torch.randn(rows, 8, generator=generator), 4, 6)


def store_in(folder, max_gib=1.0, **identity):
    return FeatureStore(folder, IDENTITY | identity, max_gib)


def damage(store, page, byte=3):
    """Another byte where a page's visual tokens lie."""
    entry = store._entries[page][-1]
    file = store.folder / entry.segment
    content = bytearray(file.read_bytes())
    content[entry.offset + byte] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_is_what_was_written_to_the_bit_whatever_the_type(tmp_path, dtype):
    name = str(dtype).removeprefix("torch.")
    written = [
        PageFeatures(features(number, 4 + number).tokens.to(dtype), 4, 2 * number)
        for number in range(3)
    ]
    with_writer = store_in(tmp_path, stored_as=name)
    for number, page in enumerate(written):
        assert with_writer.add(f"page {number}", page) == "added"
    for store in (with_writer, store_in(tmp_path, stored_as=name)):  # and after it was opened again
        for number, page in enumerate(written):
            found, num_damaged = store.read(f"page {number}")
            assert torch.equal(found.tokens, page.tokens)
            assert found.tokens.dtype == dtype
            assert (found.grid_height, found.grid_width, num_damaged) == (4, 2 * number, 0)


def test_another_tower_type_or_budget_has_pages_of_its_own(tmp_path):
    store_in(tmp_path).add("page", features(1))
    assert store_in(tmp_path).read("page")[0] is not None
    assert store_in(tmp_path, tower="2").read("page") == (None, 0)
    assert store_in(tmp_path, stored_as="bfloat16").read("page") == (None, 0)


@pytest.mark.parametrize("byte", [0, 3, 6 * 8 * 4 - 1])
def test_a_damaged_page_is_noticed_and_can_be_made_again(tmp_path, byte):
    store = store_in(tmp_path)
    for number in range(3):
        store.add(f"page {number}", features(number))
    damage(store, "page 1", byte)
    store = store_in(tmp_path)
    assert store.read("page 1") == (None, 1)
    assert store.add("page 1", features(1), is_repair=True) == "added"
    found, num_damaged = store_in(tmp_path).read("page 1")
    assert torch.equal(found.tokens, features(1).tokens)
    assert num_damaged == 0  # the newest is read first
    assert all(store.read(f"page {number}")[0] is not None for number in (0, 2))


def test_a_segment_that_is_cut_off_or_gone_loses_its_pages_only(tmp_path):
    first, second = store_in(tmp_path), store_in(tmp_path)
    first.add("page 0", features(0))
    second.add("page 1", features(1))
    second.add("page 2", features(2))
    assert second.read("page 2")[0] is not None  # mapped: the cut comes under an open mapping
    file = second.folder / second._entries["page 2"][-1].segment
    file.write_bytes(file.read_bytes()[:-1])
    assert second.read("page 2") == (None, 1)
    assert second.read("page 1")[0] is not None
    file.unlink()
    fresh = store_in(tmp_path)
    assert fresh.read("page 1") == (None, 1)
    assert fresh.read("page 0")[0] is not None


def test_half_a_line_is_not_read_and_a_broken_one_is_counted(tmp_path):
    store = store_in(tmp_path)
    store.add("page 0", features(0))
    store.add("page 1", features(1))
    [index] = store.folder.glob("*.index.jsonl")
    whole = index.read_bytes()
    first = whole.splitlines(keepends=True)[0]
    index.write_bytes(first + whole[len(first) : -5])  # as a kill leaves it
    fresh = store_in(tmp_path)
    assert (len(fresh), fresh.num_broken_lines) == (1, 0)
    index.write_bytes(first + b'{"page": 3}\n')
    assert (len(store_in(tmp_path)), store_in(tmp_path).num_broken_lines) == (1, 1)


def test_a_full_folder_keeps_what_it_has_and_takes_no_more(tmp_path):
    room = 2.5 * features(0).tokens.nbytes / 2**30
    store, other = store_in(tmp_path, room), store_in(tmp_path, room, tower="2")
    assert [store.add("a", features(0)), other.add("b", features(1))] == ["added", "added"]
    assert [store.add("c", features(2)), other.add("c", features(2))] == ["full", "full"]
    assert size_of(tmp_path) == 2 * features(0).tokens.nbytes
    assert store.read("a")[0] is not None
    assert store.read("c") == (None, 0)


def test_a_full_disk_is_as_a_full_folder_and_leaves_no_half_page(tmp_path, monkeypatch):
    store = store_in(tmp_path)
    store.add("a", features(0))

    def full(file, content):
        file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("coltrain.model.vision_cache.store.write_whole", full)
        assert store.add("b", features(1)) == "full"
    assert store.add("c", features(2)) == "added"  # there is room again
    fresh = store_in(tmp_path)
    assert fresh.read("b") == (None, 0)
    for page, number in (("a", 0), ("c", 2)):
        assert torch.equal(fresh.read(page)[0].tokens, features(number).tokens)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"\[cannot-write-vision-cache\]") as caught:
        store_in(tmp_path / "file")
    assert "data.vision_cache.path" in str(caught.value)


def add_pages(folder, numbers, start):
    start.wait()
    store = store_in(folder, 400 * features(0).tokens.nbytes / 2**30)
    for number in numbers:
        store.add(f"page {number % 60}", features(number % 60))


@pytest.mark.reference
def test_processes_write_at_once_no_page_twice_and_none_is_lost(tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    writers = [
        context.Process(target=add_pages, args=(tmp_path, range(first, first + 60), start))
        for first in (0, 20, 40)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    store = store_in(tmp_path)
    assert len(list(store.folder.glob("*.features"))) == 3
    assert size_of(tmp_path) == 60 * features(0).tokens.nbytes
    for number in range(60):
        assert torch.equal(store.read(f"page {number}")[0].tokens, features(number).tokens)


def test_a_page_that_another_process_added_is_seen_without_opening_again(tmp_path):
    one, other = store_in(tmp_path), store_in(tmp_path)
    assert other.read("page") == (None, 0)
    one.add("page", features(4))
    assert torch.equal(other.read("page")[0].tokens, features(4).tokens)
    assert other.add("page", features(4)) == "there already"


def test_a_store_travels_to_a_worker(tmp_path):
    store = store_in(tmp_path)
    store.add("page", features(4))
    store.read("page")
    travelled = pickle.loads(pickle.dumps(store))
    assert torch.equal(travelled.read("page")[0].tokens, features(4).tokens)
    assert travelled.add("another", features(5)) == "added"
    assert store.add("a third", features(6)) == "added"
    assert len(list(store.folder.glob("*.features"))) == 2  # each appends to its own


@pytest.fixture
def collection():
    return small_collection("pages", 7)


@pytest.fixture
def vision(tiny_built, tmp_path):
    identity = vision_identity(tiny_built.model, tiny_built.preparer, torch.float32, torch.float32)
    return VisionFeatures(tiny_built.model, FeatureStore(tmp_path, identity, 1.0))


def test_a_page_that_is_found_equals_one_that_is_made_and_is_not_decoded(
    vision, collection, tiny_built
):
    lookup = PageLookup(vision.store, collection, tiny_built.preparer)
    made = [vision.page(lookup, index) for index in range(7)]
    assert (vision.counts.misses, vision.counts.hits) == (7, 0)
    for index, page in enumerate(made):
        prepared = tiny_built.preparer.prepare_page(collection.page_image(index))
        grid = torch.tensor([[1, prepared.grid_height, prepared.grid_width]])
        alone = tiny_built.model.encode_vision(prepared.pixel_values, grid)
        assert torch.equal(page.visual_tokens, alone)
        assert (page.grid_height, page.grid_width) == tuple(grid[0, 1:].tolist())
    again = PageLookup(vision.store, collection, tiny_built.preparer)
    for index in range(7):
        again.hash(index)  # of pages that are drawn when asked for
    type(collection.images).__getitem__, kept = None, type(collection.images).__getitem__
    try:
        found = [vision.page(again, index) for index in range(7)]
    finally:
        type(collection.images).__getitem__ = kept
    assert (vision.counts.misses, vision.counts.hits) == (7, 7)
    for page, before in zip(found, made, strict=True):
        assert torch.equal(page.visual_tokens, before.visual_tokens)
        assert page.pixel_values is None


def test_the_identity_sees_what_moves_visual_tokens_and_nothing_else(tiny_built):
    def identity(computed_in=torch.float32, stored_as=torch.float32, **switches):
        return vision_identity(
            tiny_built.model, tiny_built.preparer.using(**switches), computed_in, stored_as
        )

    first = identity()
    assert identity(positions="sequential") == first
    assert identity(max_visual_tokens=32) != first
    assert identity(alpha="white") != first
    assert identity(stored_as=torch.bfloat16) != first
    assert identity(torch.bfloat16, torch.bfloat16) != identity(stored_as=torch.bfloat16)
    with torch.no_grad():
        tiny_built.model.custom_text_proj.weight.add_(1)
        assert identity() == first
        _, weight = next(iter(tiny_built.model.visual.named_parameters()))
        weight.view(-1)[0].add_(1e-3)
        assert identity() != first
    tiny_built.preparer.image_processor.image_mean = [0.5] * 3
    assert identity()["processor"] != first["processor"]
