"""Who of the ranks is alive, and what those that left said.

Each rank counts on in a store that all can reach (torchrun's own, or rank 0's), and leaves a word
when it ends by an error. So the others can say who is missing and why: a broken connection alone
names nobody, and a machine that falls silent breaks none.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from torch.distributed import Store

from coltrain.errors import ColtrainError
from coltrain.training.ranks.gone import Leaving, Missing, error_of

BEAT_SECONDS = 1.0
LATE_SECONDS = 5.0
"""A rank whose connection broke and that was silent so long is gone."""
SILENT_SECONDS = 30.0
"""A rank that was silent so long is gone, whatever its connections say."""
GRACE_SECONDS = 15.0
"""How long this process may take to end by itself once a rank is gone."""
_NAMING_SECONDS = 12.0


class Pulse:
    """This rank's beat, and an ear for the others'.

    Args:
        store: A connection of its own: a store serves one call at a time.
        rank: This one.
        places: For each rank where it runs, for people.
    """

    def __init__(self, store: Store, rank: int, places: tuple[str, ...]) -> None:
        self._store = store
        self._rank = rank
        self.places = places
        self._lock = threading.Lock()
        self._beats: dict[int, bytes] = {}
        self._heard: dict[int, float] = {}
        self._ended = threading.Event()
        self._store_is_gone = False
        self.on_stuck: Callable[[ColtrainError], None] = lambda error: None
        """Called once a rank is gone and this process does not end by itself."""
        self._store.set(f"beat/{rank}", "0")
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def leave(self, leaving: Leaving | None = None) -> None:
        """Beat no longer; with a word for the others where an error ends this rank."""
        if leaving is not None:
            with suppress(RuntimeError), self._lock:
                self._store.set(f"word/{self._rank}", json.dumps(asdict(leaving)))
        self._ended.set()

    def missing(self, seconds: float = _NAMING_SECONDS) -> Missing | None:
        """Find out who is gone, now that a connection broke; None if all seem well."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self._look(LATE_SECONDS)
            if found is not None:
                return found
            time.sleep(BEAT_SECONDS / 4)
        return None

    def living(self) -> list[int]:
        """Ranks that left no word of their own and were heard lately; this one is among them."""
        with suppress(RuntimeError):
            return [
                rank
                for rank in range(len(self.places))
                if rank == self._rank
                or (self._word(rank) is None and self._silence(rank) < LATE_SECONDS)
            ]
        return [self._rank]

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_SECONDS):
            count += 1
            try:
                with self._lock:
                    self._store.set(f"beat/{self._rank}", str(count))
                missing = self._look(SILENT_SECONDS)
            except RuntimeError:
                self._store_is_gone = True
                missing = Missing(None, None)
            if missing is not None and not self._ended.wait(GRACE_SECONDS):
                # The main thread waits in an exchange that no exception ends.
                error = error_of(missing, self.places)
                with suppress(Exception):
                    self.on_stuck(error)
                sys.stderr.write(f"{error}\n")
                sys.stderr.flush()
                os._exit(error.exit_code)

    def _look(self, silent_seconds: float) -> Missing | None:
        if self._store_is_gone:
            return Missing(None, None)
        others = [rank for rank in range(len(self.places)) if rank != self._rank]
        try:
            words = {rank: self._word(rank) for rank in others}
            silences = {rank: self._silence(rank) for rank in others}
        except RuntimeError:
            return Missing(None, None)
        for rank, word in words.items():
            if word is not None and word.is_own:
                return Missing(rank, word)
        for rank, silence in silences.items():
            if words[rank] is None and silence > silent_seconds:
                return Missing(rank, None)
        return None

    def _word(self, rank: int) -> Leaving | None:
        with self._lock:
            if not self._store.check([f"word/{rank}"]):
                return None
            return Leaving(**json.loads(self._store.get(f"word/{rank}")))

    def _silence(self, rank: int) -> float:
        """Seconds since a rank was last heard counting on."""
        with self._lock:
            beat = self._store.get(f"beat/{rank}") if self._store.check([f"beat/{rank}"]) else b""
        now = time.monotonic()
        if self._beats.get(rank) != beat or rank not in self._heard:
            self._beats[rank], self._heard[rank] = beat, now
        return now - self._heard[rank]
