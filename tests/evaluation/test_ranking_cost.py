"""Ranking is its matrix products and little more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "ranking.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads its peak memory from /proc")
def test_ranking_costs_little_more_than_its_products():
    sizes = ["--pages", "24", "--queries", "60", "--rounds", "5", "--without-engine"]
    done = subprocess.run(
        [sys.executable, BENCHMARK, *sizes], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)["figures"]
    assert found["times_as_fast_as"]["products alone"] > 1 / 1.5  # 1.25 is the aim; may be busy
    assert found["memory_mib"]["coltrain"] < 50
