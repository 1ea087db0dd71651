"""One process trains in a run's folder at a time.

The lock is the operating system's (flock), so it dies with its process; the file that it is on may
stay behind, and says who held it last.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from coltrain.errors import RunError

NAME = "run.lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[str | None]:
    """Hold a run's folder.

    Yields:
        A word about a lock that a dead process left, or None.

    Raises:
        RunError: A living process trains there.
    """
    path = folder / NAME
    file = path.open("a+", encoding="utf-8")
    try:
        file.seek(0)
        holder = file.read().strip()
        _hold(file, path, holder)
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        try:
            yield f"a lock of a dead process was ignored: {holder}" if holder else None
        finally:
            path.unlink(missing_ok=True)
    finally:
        file.close()  # which lets go of the lock


def refuse_living(folder: Path) -> None:
    """Say that a run cannot be had, before anything is prepared for it.

    Raises:
        RunError: A living process trains there.
    """
    path = folder / NAME
    if path.is_file():
        with path.open("r+", encoding="utf-8") as file:
            _hold(file, path, file.read().strip())


def _hold(file: TextIO, path: Path, holder: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(
            "run-is-locked",
            "another process trains in this folder.",
            where=str(path),
            received=f"held by {holder or 'an unnamed process'}",
            suggestion="wait for it, stop it, or use another folder",
        ) from error
