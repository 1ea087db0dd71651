"""How much energy a run's GPU takes: its power, read while the run goes."""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

EVERY_SECONDS = 1.0
_JOULES_PER_KWH = 3.6e6


class EnergyMeter:
    """Adds up a GPU's power over time, in a thread that reads it once a second.

    A card averages its power over a second or less, so the sum misses what a shorter step does and
    keeps the mean. The rest of the machine is not in it.

    Args:
        read_watts: The card's power now; raises OSError where it cannot be read any more.
        before: Energy of the run before it was resumed, in kWh.
        every: Seconds between two readings.
    """

    def __init__(
        self,
        read_watts: Callable[[], float],
        before: float = 0.0,
        every: float = EVERY_SECONDS,
    ) -> None:
        self._read = read_watts
        self._every = every
        self._joules = before * _JOULES_PER_KWH
        self.lost: str | None = None
        """Why nothing is known any more: a reading failed."""
        self._at = time.perf_counter()
        self._watts = read_watts()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._add()

    def _add(self) -> None:
        with self._lock:
            if self.lost is not None:
                return
            try:
                now, watts = time.perf_counter(), self._read()
            except OSError as error:
                self.lost = f"a reading failed ({error})"
                return
            self._joules += 0.5 * (watts + self._watts) * (now - self._at)
            self._at, self._watts = now, watts

    def kilowatt_hours(self) -> float:
        """Energy so far."""
        self._add()
        return self._joules / _JOULES_PER_KWH

    def end(self) -> None:
        """Read no more."""
        self._ended.set()
        self._thread.join()


def energy_meter(device: torch.device, before: dict[str, Any]) -> EnergyMeter | str:
    """A meter of a device, or in words why its power cannot be read.

    Args:
        device: What computes.
        before: Facts of a run that is resumed; a part whose energy is not known leaves all unknown.
    """
    if device.type != "cuda":
        return "no GPU computes, and a CPU's power is not read"
    if before.get("seconds") and before.get("energy_kwh") is None:
        return "an earlier part of the run did not read it"

    try:
        return EnergyMeter(lambda: _watts(device), before.get("energy_kwh") or 0.0)
    except OSError as error:
        return f"the driver's sensors cannot be read ({error})"


def _watts(device: torch.device) -> float:
    """A card's power.

    Raises:
        OSError: It cannot be read: no nvidia-ml-py, no such sensor, no driver.
    """
    try:
        return torch.cuda.power_draw(device) / 1000  # NVML counts in milliwatts
    except Exception as error:
        # The library's own errors derive from Exception, and it need not be there to be named; what
        # cannot be read must not end a training.
        raise OSError(f"{type(error).__name__}: {error}") from error


def energy_facts(meter: EnergyMeter | str) -> dict[str, Any]:
    """What a run records at its end; the meter ends with it."""
    if isinstance(meter, str):
        return {"energy_kwh": None, "energy_unknown": meter}
    energy = meter.kilowatt_hours()
    meter.end()
    if meter.lost is not None:
        return {"energy_kwh": None, "energy_unknown": meter.lost}
    return {"energy_kwh": round(energy, 6)}
