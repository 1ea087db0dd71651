"""Embeddings on disk: there again, checked, and whole after a kill at any byte."""

import json

import pytest
import torch

from coltrain.errors import RunError
from coltrain.evaluation.store import EmbeddingStore

IDENTITY = {"weights": "abc", "max_visual_tokens": 64}


def embedding(seed, tokens=5):
    return torch.randn(tokens, 8, generator=torch.Generator().manual_seed(seed))


def filled(folder, num=4, **settings):
    with EmbeddingStore(folder, IDENTITY, **settings) as store:
        for seed in range(num):
            store.write(f"page{seed}", embedding(seed, 3 + seed))
    return store


def test_what_is_written_is_read_by_the_next(tmp_path):
    first = filled(tmp_path)
    store = EmbeddingStore(tmp_path, IDENTITY)
    assert len(store) == len(first) == 4
    for seed in range(4):
        assert torch.equal(store.read(f"page{seed}"), embedding(seed, 3 + seed))
        assert torch.equal(first.read(f"page{seed}"), embedding(seed, 3 + seed))
    assert store.read("page9") is None
    assert json.loads((store.folder / "identity.json").read_text())["weights"] == "abc"


@pytest.mark.parametrize("other", [{"weights": "abd"}, {"max_visual_tokens": 65}, {"more": 1}])
def test_another_model_has_another_folder(tmp_path, other):
    filled(tmp_path)
    assert len(EmbeddingStore(tmp_path, IDENTITY | other)) == 0
    assert len(EmbeddingStore(tmp_path, IDENTITY, "float16")) == 0


def test_half_precision_is_half_the_size_and_says_what_it_kept(tmp_path):
    with EmbeddingStore(tmp_path, IDENTITY, "float16") as store:
        kept = store.write("page", embedding(1))
        assert kept.dtype == torch.float16
        assert torch.equal(store.read("page"), kept)
    assert next(store.folder.glob("*.vectors")).stat().st_size == 5 * 8 * 2


def test_every_kill_leaves_a_store_that_can_be_read(tmp_path):
    store = filled(tmp_path / "whole", 3)
    [vectors] = store.folder.glob("*.vectors")
    [index] = store.folder.glob("*.index.jsonl")
    lines, content = index.read_bytes(), vectors.read_bytes()
    ends = [place for place, byte in enumerate(lines, 1) if byte == ord("\n")]
    for cut in range(0, len(lines), 7):
        folder = tmp_path / str(cut)
        other = EmbeddingStore(folder, IDENTITY).folder
        (other / index.name).write_bytes(lines[:cut])
        (other / vectors.name).write_bytes(content)
        found = EmbeddingStore(folder, IDENTITY)
        assert len(found) == sum(end <= cut for end in ends)
        assert found.num_damaged == 0
        with found:
            found.write("page2", embedding(2, 5))
        assert torch.equal(EmbeddingStore(folder, IDENTITY).read("page2"), embedding(2, 5))


def test_a_damaged_embedding_is_noticed_and_can_be_made_again(tmp_path):
    store = filled(tmp_path)
    [vectors] = store.folder.glob("*.vectors")
    content = bytearray(vectors.read_bytes())
    content[3 * 8 * 4 + 5] ^= 1  # in the second embedding
    vectors.write_bytes(content)
    store = EmbeddingStore(tmp_path, IDENTITY)
    assert store.read("page1") is None
    assert store.num_damaged == 1
    assert store.read("page0") is not None
    with store:
        store.write("page1", embedding(1, 4))
    assert torch.equal(EmbeddingStore(tmp_path, IDENTITY).read("page1"), embedding(1, 4))


def test_a_line_of_another_form_is_passed_over(tmp_path):
    store = filled(tmp_path)
    [index] = store.folder.glob("*.index.jsonl")
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join([lines[0], b'{"page": 3}\n', b"\xff\n", *lines[1:]]))
    store = EmbeddingStore(tmp_path, IDENTITY)
    assert (len(store), store.num_damaged) == (4, 2)


def test_several_may_write_at_once(tmp_path):
    with EmbeddingStore(tmp_path, IDENTITY) as one, EmbeddingStore(tmp_path, IDENTITY) as two:
        one.write("a", embedding(1))
        two.write("b", embedding(2))
        one.write("c", embedding(3))
    store = EmbeddingStore(tmp_path, IDENTITY)
    for page, seed in (("a", 1), ("b", 2), ("c", 3)):
        assert torch.equal(store.read(page), embedding(seed))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"\[cannot-write-cache\]") as caught:
        EmbeddingStore(tmp_path / "file", IDENTITY)
    assert caught.value.where == str(tmp_path / "file")
