"""Being asked to stop: finish nothing, lose nothing.

The first signal is noted; the loop meets it between two chunks or two pages, keeps the state after
the last whole step and leaves. A second SIGINT leaves at once, as Python does by itself.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - no error, but a request that was heard
    """The run was asked to stop.

    Args:
        signal_name: Such as SIGTERM.
    """

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class StopRequest:
    """Hears signals; `check` raises where it is safe to stop."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def check(self) -> None:
        """Leave here if a signal came.

        Raises:
            Interrupted: One did.
        """
        if self.signal_name is not None:
            raise Interrupted(self.signal_name)

    @contextmanager
    def listen(self, signals: Sequence[signal.Signals]) -> Iterator[None]:
        """Hear these signals while inside; what was installed before comes back after.

        Outside of the main thread Python installs no handlers, and none is heard.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.signal_name is not None and name == "SIGINT":
            raise KeyboardInterrupt
        self.signal_name = name
