"""On which page each worker process is, so that one that dies can be asked.

A worker that is killed, or whose decoder crashes, says nothing any more. So each writes down what
it takes up, in memory that the training process shares with it.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import NoReturn

import torch

from coltrain.errors import DataError

_IDLE = -1
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
# A tensor comes as a number of a file, which its worker hands out through a socket: what the other
# end of that socket says when the worker dies in between. torch looks for dead workers, too, but a
# process closes its sockets a moment before it counts as dead.
LOST_WORKER = (ConnectionRefusedError, ConnectionResetError, EOFError, FileNotFoundError)
_DYING_SECONDS = 5.0


class Whereabouts:
    """A line for each worker: its process, and the number of the item it works on.

    Args:
        num_workers: Of the loader.
    """

    def __init__(self, num_workers: int) -> None:
        self._lines = torch.full((max(1, num_workers), 2), _IDLE, dtype=torch.int64)
        self._lines.share_memory_()

    def at(self, number: int | None) -> None:
        """Write down what this worker works on; None when it is done with it.

        In the training process itself it does nothing: an error there names its page.
        """
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self._lines[worker.id, 0] = os.getpid()
            self._lines[worker.id, 1] = _IDLE if number is None else number

    def of(self, pids: list[int]) -> list[int]:
        """What these processes were on, as far as they wrote it down."""
        return [number for pid, number in self._lines.tolist() if pid in pids and number != _IDLE]

    @contextmanager
    def watched(self, loading: Iterator, name: Callable[[int], str], where: str) -> Iterator[None]:
        """Say which item a worker died on.

        torch raises from a signal handler, so this may come out of any line of the training process.

        Args:
            loading: The loader's iterator; its other workers are ended, too.
            name: An item's name for a person, from its number.
            where: Of what data the workers work on.

        Raises:
            DataError: [worker-died]
        """
        try:
            yield
        except RuntimeError as error:
            dead = _DEAD_WORKER.search(str(error))
            if dead is None:
                raise
            self._fail(loading, [int(pid) for pid in dead[1].split(",")], name, where, error)
        except LOST_WORKER as error:
            pids = _dying_workers(loading)
            if not pids:
                raise
            self._fail(loading, pids, name, where, error)

    def _fail(
        self,
        loading: Iterator,
        pids: list[int],
        name: Callable[[int], str],
        where: str,
        error: Exception,
    ) -> NoReturn:
        _end_workers(loading)
        items = self.of(pids)
        raise DataError(
            "worker-died",
            "a worker process that prepares pages died: the machine's memory ran out, or a "
            "page's decoder crashed.",
            where=f"{where}, {', '.join(map(name, items))}" if items else where,
            received=str(error).splitlines()[0] if str(error) else type(error).__name__,
            suggestion="a smaller data.num_workers or batch.chunk_size; look at that page where "
            "it comes again",
        ) from error


def _dying_workers(loading: Iterator) -> list[int]:
    """The processes of a loader that ended, or do within seconds, though none was told to."""
    workers = {worker.sentinel: worker for worker in getattr(loading, "_workers", ())}
    if not workers:
        return []
    ended = [workers[sentinel] for sentinel in wait(workers, timeout=_DYING_SECONDS)]
    for worker in ended:
        worker.join(_DYING_SECONDS)  # a process ends its sentinel before it can be collected
    return [worker.pid for worker in ended]


def _end_workers(loading: Iterator) -> None:
    # The signal handler would raise once more for each further worker that ends, wherever the
    # process is by then. Ending them all takes them off its list.
    with suppress(RuntimeError):
        loading._shutdown_workers()
