"""An evaluation over two ranks equals one of a single process, to the last bit."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_pages import small_collection

from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.sharding import gathered, own_share
from coltrain.model.retriever import load


def test_one_process_does_it_all():
    assert list(own_share(5, over_ranks=False)) == [0, 1, 2, 3, 4]
    assert gathered([3, 4], 2, over_ranks=False) == [3, 4]


def a_rank(rank, world_size, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    items = []
    found = evaluate(
        load("tiny"), small_collection("pages", 7), lambda: items.append(None), over_ranks=True
    )
    torch.save(
        (found.scores, found.result.measures, len(found.pages), len(items)), f"{folder}/{rank}"
    )
    dist.destroy_process_group()


@pytest.mark.reference
def test_two_ranks_share_the_pages_and_both_have_the_whole(tmp_path, tiny_retriever):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(a_rank, (2, port, str(tmp_path)), nprocs=2)
    alone = evaluate(tiny_retriever, small_collection("pages", 7))
    items = 0
    for rank in range(2):
        scores, measures, num_pages, num_items = torch.load(tmp_path / str(rank))
        assert torch.equal(scores, alone.scores)
        assert measures == alone.result.measures
        assert num_pages == 7
        items += num_items
    assert items == 7 + 7  # each page and query encoded once, by one of them
