"""Energy: power over time, and a reason where it cannot be read."""

import time

import pytest
import torch

from coltrain.training.energy import EnergyMeter, energy_facts, energy_meter


def test_energy_is_power_over_time():
    started = time.perf_counter()
    meter = EnergyMeter(lambda: 360.0, before=0.5, every=0.005)
    time.sleep(0.05)
    found = meter.kilowatt_hours()
    seconds = time.perf_counter() - started
    meter.end()
    assert 360 * 0.05 <= (found - 0.5) * 3.6e6 <= 360 * seconds


def test_power_between_two_readings_is_their_mean():
    watts = iter([100.0, 300.0])
    meter = EnergyMeter(lambda: next(watts), every=60.0)
    time.sleep(0.02)
    before = time.perf_counter()
    found = meter.kilowatt_hours() * 3.6e6
    assert found == pytest.approx(200 * (before - meter._at + 0.02), rel=0.5)
    meter.end()


def test_a_cpu_says_why():
    meter = energy_meter(torch.device("cpu"), {})
    assert energy_facts(meter) == {
        "energy_kwh": None,
        "energy_unknown": "no GPU computes, and a CPU's power is not read",
    }


@pytest.mark.parametrize(
    "error",
    [ModuleNotFoundError("nvidia-ml-py"), RuntimeError("driver")],
)
def test_sensors_that_cannot_be_read_say_why(monkeypatch, error):
    def refuse(device):
        raise error

    monkeypatch.setattr(torch.cuda, "power_draw", refuse)
    assert "cannot be read" in energy_meter(torch.device("cuda"), {})


def test_a_resumed_run_adds_up_or_does_not_know(monkeypatch):
    monkeypatch.setattr(torch.cuda, "power_draw", lambda device: 0)
    meter = energy_meter(torch.device("cuda"), {"seconds": 5.0, "energy_kwh": 0.25})
    assert energy_facts(meter) == {"energy_kwh": 0.25}
    assert "earlier part" in energy_meter(torch.device("cuda"), {"seconds": 5.0})


def test_a_reading_that_fails_later_ends_no_training():
    readings = iter([100.0])

    def read():
        for watts in readings:
            return watts
        raise OSError("the card fell off the bus")

    found = energy_facts(EnergyMeter(read, every=60.0))
    assert found["energy_kwh"] is None
    assert "fell off the bus" in found["energy_unknown"]
