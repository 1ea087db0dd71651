"""The small version of benchmarks/power_of_comparison.py: what the shipped verdict finds and claims."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def power():
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("power", BENCHMARKS / "power_of_comparison.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS))


def test_the_simulated_systems_differ_by_what_is_asked_and_correlate_as_asked(power):
    pairs = power.populations(2.0)
    values = power.VALUES
    differences = [float((first - second) @ values) for first, second in pairs.values()]
    assert sum(differences) / 10 == pytest.approx(0.02)
    first, second = pairs["VidoreTatdqaRetrieval"]
    latent = power.latent_correlation(first, second, 0.8, 20_000)
    drawn = power.correlated_pair(first, second, latent, 20_000, power.np.random.default_rng(1))
    assert power.np.corrcoef(*drawn)[0, 1] == pytest.approx(0.8, abs=0.02)


@pytest.mark.slow
def test_two_points_are_found_and_nothing_is_claimed_where_there_is_nothing(power):
    found = power.simulate(2.0, 0.8, num_draws=15, num_resamples=500, num_latent=20_000)
    assert found["found_above"] >= 0.8
    nothing = power.simulate(0.0, 0.8, num_draws=60, num_resamples=500, num_latent=20_000)
    # One in twenty: of 60 draws, 10 or more claims have a chance of one in a thousand.
    assert nothing["claimed"] < 10 / 60
    assert nothing["verdicts_on_the_mean"]["reproduced"] > 0.6
