"""Who works on which run, among processes that share a folder and nothing else.

A claim is a file `claims/RUN/N.json`, made by a hard link, which succeeds for one of several that
try. Its maker keeps its time fresh. A claim whose maker is dead, or has been silent for long, is
stale; to take over is to make N + 1, so that of several who see it stale one succeeds. Numbers are
never used again: N is the number of attempts.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HEARTBEAT_SECONDS = 20.0
SILENT_SECONDS = 600.0
"""A maker on another machine that was silent for so long is taken for dead; far more than a heartbeat,
since a network folder may hide changes for a minute."""


@dataclass(frozen=True)
class Claim:
    """A run that is ours to work on.

    Attributes:
        attempt: Which try this is, from 1.
        deaths: How many earlier makers of the same command died at it. Those of other commands
            were killed with them, as a rule, and tell nothing of the run.
    """

    attempt: int
    deaths: int


@contextmanager
def claimed(folder: Path, command: str = "") -> Iterator[Claim | None]:
    """Try to claim a run; the claim is given back at the end, also where an error passes through.

    Args:
        folder: `claims/RUN`; made where it is missing.
        command: Tells the workers of one command from others.

    Yields:
        The claim, or None where somebody else works on the run.
    """
    claim = _take(folder, command)
    if claim is None:
        yield None
        return
    path = folder / f"{claim.attempt}.json"
    end = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, end), daemon=True)
    beat.start()
    try:
        yield claim
    finally:
        end.set()
        beat.join()
        _write(path, {**_myself(), "is_done": True})


def is_held(folder: Path) -> bool:
    """Whether a living process works on a run."""
    newest = _newest(folder)
    return newest > 0 and _is_alive(folder / f"{newest}.json")


def _take(folder: Path, command: str) -> Claim | None:
    folder.mkdir(parents=True, exist_ok=True)
    newest = _newest(folder)
    if newest and _is_alive(folder / f"{newest}.json"):
        return None
    aside = folder / f"{uuid.uuid4().hex}.part"
    _write(aside, {**_myself(), "command": command})
    try:
        os.link(aside, folder / f"{newest + 1}.json")
    except FileExistsError:
        return None  # somebody was quicker
    finally:
        aside.unlink()
    earlier = [_read(folder / f"{number}.json") for number in range(1, newest + 1)]
    deaths = sum(not one.get("is_done") and one.get("command") == command for one in earlier)
    return Claim(newest + 1, deaths)


def _newest(folder: Path) -> int:
    numbers = [int(file.stem) for file in folder.glob("*.json") if file.stem.isdigit()]
    return max(numbers, default=0)


def _is_alive(path: Path) -> bool:
    holder = _read(path)
    if holder.get("is_done", False):
        return False
    if holder.get("place") == _place():  # the same machine, and the same count of processes
        return _started(int(holder["pid"])) == holder.get("started")
    return _age(path) < SILENT_SECONDS


def _age(path: Path) -> float:
    """Seconds since a claim was fresh, by the clock of the machine that holds the folder."""
    clock = path.with_name(f"{uuid.uuid4().hex}.clock")
    clock.touch()
    try:
        return clock.stat().st_mtime - path.stat().st_mtime
    finally:
        clock.unlink()


def _beat(path: Path, end: threading.Event) -> None:
    while not end.wait(HEARTBEAT_SECONDS):
        os.utime(path)


def _myself() -> dict[str, object]:
    return {"place": _place(), "pid": os.getpid(), "started": _started(os.getpid())}


@cache
def _place() -> str:
    """Where process numbers mean the same: host, start of the system, name space."""
    parts = [socket.gethostname()]
    for name in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(name)
        if path.is_symlink():
            parts.append(os.readlink(path))
        elif path.is_file():
            parts.append(path.read_text(encoding="ascii").strip())
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process began, in the system's own count; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]  # a zombie works no more


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: dict) -> None:
    aside = path.with_name(f"{uuid.uuid4().hex}.writing")
    aside.write_text(json.dumps(content), encoding="utf-8")
    aside.replace(path)
