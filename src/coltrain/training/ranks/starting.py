"""Ranks on this machine, started from here: for checks and tests. A run is started by torchrun."""

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

from coltrain.training.ranks.leaving import leave_group
from coltrain.training.ranks.ranks import Ranks

_LOOPBACK = "127.0.0.1"
_PATIENCE = timedelta(minutes=10)  # of one rank for another, in one exchange


def on_ranks(
    num_ranks: int,
    work: Callable[..., Iterator[Any]],
    *arguments: Any,
    on_item: Callable[[], None] | None = None,
) -> list[list[Any]]:
    """Run a generator on each of several processes that are each other's ranks, over gloo.

    They are forked from a server that has imported coltrain once, so that sixteen of them start in
    seconds. As always with processes, a script that calls this does so under
    `if __name__ == "__main__"`.

    Args:
        num_ranks: How many; each computes with one thread.
        work: Called with this rank's `Ranks` and the arguments; of a module that can be imported.
        arguments: Must pickle.
        on_item: Called for every item that rank 0 yields.

    Returns:
        For each rank what it yielded.

    Raises:
        RuntimeError: A rank failed or died; its number and its traceback are in the words.
    """
    # Under torch 2.7.1 importing bitsandbytes starts a pool to compile with, whose threads and locks
    # would be forked with the server, and now and then hold up a rank that ends. Nothing compiles here.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coltrain.training.ranks.self_check"])
    store = dist.TCPStore(_LOOPBACK, 0, is_master=True, wait_for_workers=False)
    processes, connections = [], []
    for rank in range(num_ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_as_rank,
            args=(rank, num_ranks, store.port, theirs, work, arguments),
            daemon=True,
        )
        process.start()
        theirs.close()
        processes.append(process)
        connections.append(ours)
    found: list[list[Any]] = [[] for _ in connections]
    try:
        for rank, item in _items(connections):
            found[rank].append(item)
            if rank == 0 and on_item is not None:
                on_item()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    return found


def _items(connections: list[Connection]) -> Iterator[tuple[int, Any]]:
    """Whatever the ranks send, as it comes."""
    open_ones = {connection: rank for rank, connection in enumerate(connections)}
    while open_ones:
        for connection in wait(list(open_ones)):
            rank = open_ones[connection]
            try:
                kind, value = pickle.loads(connection.recv_bytes())
            except EOFError:
                raise RuntimeError(f"rank {rank} of {len(connections)} died") from None
            if kind == "failed":
                raise RuntimeError(f"rank {rank} of {len(connections)} failed:\n{value}")
            if kind == "done":
                del open_ones[connection]
            else:
                yield rank, value


def _as_rank(
    rank: int,
    num_ranks: int,
    port: int,
    connection: Connection,
    work: Callable[..., Iterator[Any]],
    arguments: tuple,
) -> None:
    torch.set_num_threads(1)
    # By the machine's name gloo might take an address that other processes cannot reach.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        store = dist.TCPStore(_LOOPBACK, port, is_master=False)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=num_ranks, timeout=_PATIENCE
        )
        for item in work(Ranks(rank, num_ranks, rank), *arguments):
            connection.send_bytes(_by_value(("item", item)))
        dist.barrier()  # nobody leaves while others still talk to it
        connection.send_bytes(_by_value(("done", None)))
        leave_group()
    except Exception:
        with suppress(OSError):
            connection.send_bytes(_by_value(("failed", traceback.format_exc())))


def _by_value(message: tuple[str, Any]) -> bytes:
    """torch would send a tensor's place in shared memory, which may go with the process."""
    return pickle.dumps(message)
