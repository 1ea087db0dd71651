"""Cards by name, and the torch that each needs."""

import pytest

from coltrain.errors import UsageError
from coltrain.planning.gpus import GPUS, Gpu, find_gpu, other_gpu
from coltrain.planning.wheels import WHEELS, wheel_for

NAMED_IN_THE_ISSUE = [
    *("T4", "P100", "V100-16gb", "V100 32GB", "RTX 2080 Ti", "RTX 3090", "rtx_4090", "5090"),
    *("A10", "L4", "A100-40gb", "a100-80gb", "L40S", "H100", "H200", "B200"),
]


@pytest.mark.parametrize("name", NAMED_IN_THE_ISSUE)
def test_every_card_is_found_however_it_is_spelled(name):
    assert find_gpu(name).memory_gib > 10


def test_the_names_above_are_all_cards():
    assert {find_gpu(name).name for name in NAMED_IN_THE_ISSUE} == set(GPUS)


def test_a_typo_is_answered_with_the_nearest_card():
    with pytest.raises(UsageError, match=r"unknown-gpu") as caught:
        find_gpu("v100-32bg")
    assert "received  v100-32bg" in str(caught.value)
    assert "--gpu v100-32gb, or --memory-gib and --capability" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wheel", "bfloat16"),
    [
        ("p100-16gb", "torch==2.7.1", False),
        ("v100-32gb", "torch==2.7.1", False),
        ("t4", "torch==2.14.1", False),
        ("rtx-4090", "torch==2.14.1", True),
        ("b200", "torch==2.14.1", True),
        ("rtx-5090", "torch==2.14.1", True),
    ],
)
def test_a_card_needs_a_wheel_with_its_code(name, wheel, bfloat16):
    gpu = find_gpu(name)
    assert wheel_for(gpu).requirement == wheel
    assert gpu.has_bfloat16 is bfloat16


def test_code_of_a_generation_runs_on_its_later_members_only():
    newest, old = WHEELS
    assert newest.runs_on((8, 9))  # sm_86 code
    assert not newest.runs_on((7, 0))  # sm_75 code is newer than the card
    assert not old.runs_on((12, 0))
    assert wheel_for(Gpu("k80", 11, (3, 7))) is None


def test_a_card_that_the_table_lacks_is_described():
    gpu = other_gpu(24, "8.6")
    assert (gpu.memory_gib, gpu.capability, gpu.tflops) == (24, (8, 6), None)


@pytest.mark.parametrize(
    ("memory", "capability"), [(24, "8"), (0, "8.6"), (24, "new"), (-1, "8.0")]
)
def test_a_card_that_is_not_described_is_refused(memory, capability):
    with pytest.raises(UsageError, match=r"not-a-card"):
        other_gpu(memory, capability)
