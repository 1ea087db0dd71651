"""Ranks of a run: from what torchrun says in the environment to processes that know each other.

    RANK, WORLD_SIZE            which of how many this process is; without both it is one by itself
    LOCAL_RANK                  which of those on this machine: the number of its GPU
    LOCAL_WORLD_SIZE            how many there are on this machine
    MASTER_ADDR, MASTER_PORT    where they meet

torchrun sets them all; so may SLURM or Kubernetes scripts (docs/how-to/ranks.md).
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from coltrain.errors import ColtrainError, RecipeError, RunError, TrainingError
from coltrain.evaluation.together import RanksApart
from coltrain.training.ranks.gone import Leaving
from coltrain.training.ranks.leaving import leave_group
from coltrain.training.ranks.pulse import Pulse
from coltrain.training.ranks.ranks import SINGLE, Ranks

CONNECT_SECONDS = 60.0
"""How long a rank looks for the place where they meet; for the others it waits longer."""

_OTHERS = 5  # times as long: they may still be loading libraries from a shared disk

_FOREVER = timedelta(days=30)
"""No exchange times out: an evaluation of hours on one rank is no fault. Pulses tell who is gone."""


@dataclass(frozen=True)
class Place:
    """What the environment says.

    Attributes:
        rank: From 0.
        size: Of all ranks.
        local_rank: Among those on this machine.
        local_size: How many are on this machine.
        address: Where they meet.
        port: Likewise.
        is_host: Whether this process opens that place; torchrun does it itself.
        attempt: Of torchrun, which may start all ranks again.
    """

    rank: int
    size: int
    local_rank: int = 0
    local_size: int = 1
    address: str = ""
    port: int = 0
    is_host: bool = False
    attempt: str = "0"


def place_of(environment: Mapping[str, str]) -> Place | None:
    """Read it; None for a process by itself.

    Raises:
        RunError: [ranks-environment] A variable is missing or is not what it must be.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return None
    size = _number(environment, "WORLD_SIZE", 1, None)
    rank = _number(environment, "RANK", 0, size - 1)
    if size == 1:
        return None
    local_size = _number(environment, "LOCAL_WORLD_SIZE", 1, size, default=1)
    local_rank = _number(environment, "LOCAL_RANK", 0, None, default=0)
    return Place(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=max(local_size, local_rank + 1),
        address=_word(environment, "MASTER_ADDR"),
        port=_number(environment, "MASTER_PORT", 1, 65535),
        is_host=rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def _word(environment: Mapping[str, str], name: str, default: str | None = None) -> str:
    value = environment.get(name, default)
    if not value:
        raise RunError(
            "ranks-environment",
            f"the environment has no {name}, which several ranks need.",
            where=name,
            received="nothing" if value is None else repr(value),
            expected="RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them",
            suggestion="torchrun --nproc-per-node 2 -m coltrain train …; for one process unset "
            "RANK and WORLD_SIZE",
        )
    return value


def _number(
    environment: Mapping[str, str],
    name: str,
    lowest: int,
    highest: int | None,
    default: int | None = None,
) -> int:
    value = _word(environment, name, None if default is None else str(default))
    if (
        value.isdecimal() and lowest <= int(value) <= (highest or int(value))
    ) or value == "0" == str(lowest):
        return int(value)
    raise RunError(
        "ranks-environment",
        f"{name} in the environment is not what it must be.",
        where=name,
        received=repr(value),
        expected=f"a number from {lowest}" + ("" if highest is None else f" to {highest}"),
        suggestion="torchrun sets it; for one process unset RANK and WORLD_SIZE",
    )


def refuse_uneven(global_size: int, num_ranks: int) -> None:
    """Say that ranks cannot share a global batch, before anything is loaded.

    Raises:
        RecipeError: [batch-not-divisible]
    """
    if global_size % num_ranks == 0:
        return
    below = global_size // num_ranks * num_ranks
    near = [size for size in (below, below + num_ranks) if size >= max(2, num_ranks)]
    numbers = [str(n) for n in range(1, global_size + 1) if global_size % n == 0]
    raise RecipeError(
        "batch-not-divisible",
        "the global batch cannot be shared evenly by the ranks.",
        where="batch.global_size",
        received=f"global_size = {global_size} on {num_ranks} ranks "
        f"({global_size / num_ranks:.4g} queries each)",
        expected=f"{', '.join(numbers)} ranks, or a multiple of {num_ranks}",
        suggestion=" or ".join(f"batch.global_size={size}" for size in near)
        + ", which changes the result; another number of ranks does not",
    )


def device_of(place: Place, name: str | None, num_gpus: int) -> torch.device:
    """What a rank computes on: the GPU of its local number, or the CPU.

    Args:
        place: Whose.
        name: `--device`; None for a GPU where there are any.
        num_gpus: On this machine.

    Raises:
        RunError: [more-ranks-than-gpus]; [device-of-ranks] a single GPU is named.
    """
    if name == "cpu" or (name is None and num_gpus == 0):
        return torch.device("cpu")
    if name not in (None, "cuda"):
        raise RunError(
            "device-of-ranks",
            "each of several ranks takes the GPU of its own number.",
            where="--device",
            received=name,
            expected="cpu, cuda, or nothing",
            suggestion="CUDA_VISIBLE_DEVICES says which GPUs torchrun's ranks share",
        )
    if place.local_size > num_gpus:
        raise RunError(
            "more-ranks-than-gpus",
            "there are more ranks on this machine than GPUs.",
            where=f"rank {place.rank}, number {place.local_rank} on {socket.gethostname()}",
            received=f"{place.local_size} ranks, {num_gpus} GPUs",
            expected="a GPU for each rank",
            suggestion=f"torchrun --nproc-per-node {max(1, num_gpus)}, or --device cpu; one rank "
            "reaches the same gradients by gradient caching",
        )
    return torch.device("cuda", place.local_rank)


@contextmanager
def joined(
    place: Place | None, device: torch.device, seconds: float = CONNECT_SECONDS
) -> Iterator[Ranks]:
    """Be one of the ranks while inside; all others hear of an error that ends it.

    Args:
        place: Of `place_of`; None for a process by itself.
        device: What this rank computes on; decides what carries exchanges, gloo or NCCL.
        seconds: How long to look for the place where ranks meet; five times as long for the
            others to come.

    Raises:
        RunError: [ranks-unreachable], [ranks-incomplete].
        TrainingError: [rank-lost] Another rank is gone.
    """
    if place is None:
        yield SINGLE
        return
    ranks = _join(place, device, timedelta(seconds=seconds))
    pulse = ranks.pulse
    try:
        yield ranks
    except RanksApart as apart:
        error = ranks.apart()
        pulse.leave(Leaving(str(error), error.exit_code, is_own=False))
        raise error from apart
    except BaseException as error:
        is_own = not (isinstance(error, ColtrainError) and error.code in _HEARD)
        code = getattr(error, "exit_code", TrainingError.exit_code)
        pulse.leave(Leaving(str(error) or type(error).__name__, code, is_own))
        raise
    pulse.leave()
    leave_group()


_HEARD = ("rank-failed", "rank-lost", "ranks-differ")
"""Errors that a rank heard of, or that all have: they say nothing of the rank that ends by them."""


def _join(place: Place, device: torch.device, patience: timedelta) -> Ranks:
    store = dist.PrefixStore(f"coltrain/{place.attempt}", _store(place, patience, place.is_host))
    here = {"host": socket.gethostname(), "pid": os.getpid(), "size": place.size}
    store.set(f"here/{place.rank}", json.dumps(here))
    names = [f"here/{rank}" for rank in range(place.size)]
    try:
        store.wait(names, patience * _OTHERS)
    except RuntimeError as error:
        absent = [str(rank) for rank, name in enumerate(names) if not store.check([name])]
        raise RunError(
            "ranks-incomplete",
            "not all ranks came.",
            where=f"rank {place.rank} of {place.size}, at {place.address}:{place.port}",
            received=f"no word of rank {', '.join(absent)} in {_OTHERS * patience.total_seconds():g} s",
            expected=f"{place.size} processes, RANK 0 to {place.size - 1}",
            suggestion="look at what they say; --connect-seconds waits longer",
        ) from error
    everyone = [json.loads(store.get(name)) for name in names]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.size,
        timeout=_FOREVER,
    )
    own_store = dist.PrefixStore(
        f"coltrain/{place.attempt}/pulse", _store(place, patience, is_host=False)
    )
    places = tuple(f"rank {n}, process {one['pid']} on {one['host']}" for n, one in
                   enumerate(everyone))  # fmt: skip
    return Ranks(
        rank=place.rank,
        size=place.size,
        local_rank=place.local_rank,
        hosts=tuple(one["host"] for one in everyone),
        backend="nccl" if device.type == "cuda" else "gloo",
        pulse=Pulse(own_store, place.rank, places),
    )


def _store(place: Place, patience: timedelta, is_host: bool) -> dist.TCPStore:
    try:
        return dist.TCPStore(
            place.address,
            place.port,
            is_master=is_host,
            timeout=patience,
            wait_for_workers=False,
        )
    except RuntimeError as error:
        raise RunError(
            "ranks-unreachable",
            "the place where the ranks meet cannot be reached.",
            where=f"rank {place.rank}, MASTER_ADDR and MASTER_PORT",
            received=f"{place.address}:{place.port}, {patience.total_seconds():g} s: "
            f"{str(error).splitlines()[0]}",
            expected="the address of rank 0's machine, and a port that is open there",
            suggestion="look at both on every machine, and at firewalls; --connect-seconds waits "
            "longer",
        ) from error
