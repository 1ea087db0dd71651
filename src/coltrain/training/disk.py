"""What is on the disk, and a full one said in one way whoever writes."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SYSTEM_ERROR = re.compile(r"(?:os error |code: )(\d+)")


@contextmanager
def system_errors() -> Iterator[None]:
    """Raise as OSError what the libraries written in Rust raise instead.

    safetensors and tokenizers wrap what the system said in errors of their own (SafetensorError, a
    bare Exception) and keep its number in the text only.

    Raises:
        OSError: The disk is full, read-only or gone.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = _SYSTEM_ERROR.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from error


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
