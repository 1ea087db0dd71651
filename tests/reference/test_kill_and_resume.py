"""A few of the kills that scripts/kill_and_resume.py makes by the dozen."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_and_resume.py"


@pytest.mark.reference
def test_runs_that_were_killed_go_on_to_the_same_bits():
    numbers = ["--kills", "2", "--terms", "1", "--truncate", "1"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *numbers, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["equal"] == len(found["cases"]) == 4
    assert {case["how"] for case in found["cases"]} == {"kill", "term", "truncate"}
