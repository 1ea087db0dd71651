"""All runs of a study, by one worker or by several processes."""

from __future__ import annotations

import multiprocessing
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from types import FrameType

import torch

from coltrain.reproduction.study.folder import StudyFolder
from coltrain.reproduction.study.plan import Plan, PlannedRun
from coltrain.reproduction.study.running import Ended, work
from coltrain.training.events import Event
from coltrain.training.interruption import Interrupted

_LOOK_SECONDS = 0.5


def run_all(
    folder: StudyFolder,
    plan: Plan,
    device: torch.device,
    *,
    num_jobs: int = 1,
    prepare: Callable[[], None] = lambda: None,
    on_event: Callable[[PlannedRun, Event], None] = lambda run, event: None,
) -> Iterator[Ended]:
    """Train what is missing of a study.

    Args:
        folder: The study's, begun.
        plan: Its runs.
        device: What computes; on a machine with several GPUs each worker gets one in turn.
        num_jobs: Processes at a time. With one, the work is done in this process.
        prepare: Called in each further process before it begins; a function of a module.
        on_event: Told what happens in a run, with one job only.

    Yields:
        Each run as it ends. With several jobs also those that others ended meanwhile.

    Raises:
        Interrupted: A signal asked for it. Nothing is lost: the same command goes on.
    """
    outcomes = {run.identity: folder.outcome(run.identity) for run in plan.runs}
    # What failed before is tried again, once: the reason may have been mended since.
    again = {
        identity: outcome.token
        for identity, outcome in outcomes.items()
        if outcome is not None and not outcome.is_finished
    }
    command = uuid.uuid4().hex
    if num_jobs == 1:
        yield from work(folder, plan, device, again=again, command=command, on_event=on_event)
        return
    yield from _watch(folder, plan, device, num_jobs, again, command, prepare)


def _watch(
    folder: StudyFolder,
    plan: Plan,
    device: torch.device,
    num_jobs: int,
    again: dict[str, str],
    command: str,
    prepare: Callable[[], None],
) -> Iterator[Ended]:
    """Start the workers, tell what ends, start another one where one died."""
    left = {
        run.identity: run
        for run in plan.runs
        if folder.outcome(run.identity) is None or run.identity in again
    }
    processes = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // num_jobs)

    def start(number: int) -> BaseProcess:
        arguments = (folder, plan, _device_of(device, number), again, command, prepare, threads)
        process = processes.Process(target=_worker, args=arguments, name=f"worker {number}")
        process.start()
        return process

    workers: list[BaseProcess] = []
    with _as_stop(signal.SIGTERM):
        try:
            workers = [start(number) for number in range(min(num_jobs, len(left)))]
            while left:
                for identity, run in list(left.items()):
                    outcome = folder.outcome(identity)
                    if outcome is not None and outcome.token != again.get(identity):
                        del left[identity]
                        yield Ended(run, outcome)
                for number, worker in enumerate(workers):
                    # One that died without a word left its claim, which the next one takes over.
                    if left and not worker.is_alive():
                        workers[number] = start(number)
                time.sleep(_LOOK_SECONDS)
        except KeyboardInterrupt:
            raise Interrupted("SIGINT") from None
        finally:
            for worker in workers:
                worker.terminate()  # SIGTERM: a run under way keeps what it has
            for worker in workers:
                worker.join()


class _as_stop:  # noqa: N801 - a context like suppress
    """A signal means Interrupted while inside."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __enter__(self) -> None:
        self._before = signal.signal(self._number, self._stop)

    def __exit__(self, *error: object) -> None:
        signal.signal(self._number, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted(self._number.name)


def _device_of(device: torch.device, number: int) -> torch.device:
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", number % torch.cuda.device_count())


def _worker(
    folder: StudyFolder,
    plan: Plan,
    device: torch.device,
    again: dict[str, str],
    command: str,
    prepare: Callable[[], None],
    num_threads: int,
) -> None:
    """What a further process does: the same as one alone, until its parent is gone."""
    prepare()
    torch.set_num_threads(num_threads)
    parent = multiprocessing.parent_process()
    try:
        for _ in work(
            folder,
            plan,
            device,
            again=again,
            command=command,
            go_on=lambda: parent is None or parent.is_alive(),
        ):
            pass
    except (Interrupted, KeyboardInterrupt):
        return  # the parent says so
