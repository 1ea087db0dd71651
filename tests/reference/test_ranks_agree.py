"""A shorter run than scripts/ranks_agree.py makes by itself: two ranks, one of them killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "ranks_agree.py"
SMALL = ["batch.global_size=8", "batch.chunk_size=2"]


@pytest.mark.reference
def test_a_run_on_two_ranks_and_one_that_lost_a_rank_are_the_run_of_one():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--steps", "6", "--ranks", "2", "--json", "--set", *SMALL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agrees"] is True
    two, killed = found["runs"]
    assert two["num_steps"] == killed["num_steps"] == 6
    assert two["num_queries"] == 3 * 240
    # Sums in float32 would be 1e-7 apart from the second step on, and grow (docs/log.md).
    for run in (two, killed):
        assert run["largest_loss_difference"] < 1e-12
    assert "rank 1 is gone" in killed["stopped_by"]
    assert killed["seconds_to_end"] < 60
