"""On which page each worker process is, so that one that dies can be asked.

A worker that is killed, or whose decoder crashes, says nothing any more. So each writes down what
it takes up, in memory that the training process shares with it.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from coltrain.errors import DataError

_IDLE = -1
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


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
            _end_workers(loading)
            items = self.of([int(pid) for pid in dead[1].split(",")])
            raise DataError(
                "worker-died",
                "a worker process that prepares pages died: the machine's memory ran out, or a "
                "page's decoder crashed.",
                where=f"{where}, {', '.join(map(name, items))}" if items else where,
                received=str(error).splitlines()[0],
                suggestion="a smaller data.num_workers or batch.chunk_size; look at that page where "
                "it comes again",
            ) from error


def _end_workers(loading: Iterator) -> None:
    # The signal handler would raise once more for each further worker that ends, wherever the
    # process is by then. Ending them all takes them off its list.
    with suppress(RuntimeError):
        loading._shutdown_workers()
