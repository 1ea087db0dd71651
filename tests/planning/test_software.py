"""What is said of a card beside installed software; facts are put in, no card is asked."""

import ctypes
import json

import pytest
import torch

from coltrain.planning import software as module
from coltrain.planning.gpus import GPUS, Gpu, find_gpu
from coltrain.planning.software import (
    Software,
    attention_kernels,
    driver_cuda,
    hindrance_of_all,
    software_here,
    verdict,
)
from coltrain.planning.wheels import WHEELS, wheel_for

NEWEST = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
OLD = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


def installed(torch="2.14.1+cu130", cuda="13.0", codes=NEWEST, driver="13.0", **more):
    return Software(torch, cuda, codes, driver, **more)


def old(**more):
    return installed("2.7.1+cu126", "12.6", OLD, **more)


@pytest.mark.parametrize(
    ("name", "software", "works", "install", "words"),
    [
        (
            "v100-32gb",
            installed(),
            False,
            "pip install torch==2.7.1",
            "this wheel (torch 2.14.1+cu130) has no code for sm_70: its first operation would fail",
        ),
        ("v100-32gb", old(), True, None, "torch 2.7.1+cu126 has code for sm_70"),
        ("v100-32gb", old(driver="12.2"), True, None, "has code for sm_70"),  # minor versions mix
        ("t4", installed(), True, None, "has code for sm_75"),
        ("h100", installed(), True, None, "has code for sm_90"),
        (
            "h100",
            installed(driver="12.4"),
            False,
            "pip install torch==2.7.1",
            "the driver serves CUDA 12.4 and earlier, and torch 2.14.1+cu130 needs CUDA 13.0: a "
            "newer driver, or an older wheel",
        ),
        ("5090", installed(), True, None, "has code for sm_120"),
        ("5090", old(), False, "pip install torch==2.14.1", "no code for sm_120"),
        (
            "5090",
            old(driver="12.8"),
            False,
            None,
            "no code for sm_120: its first operation would fail; torch==2.14.1 has it, and needs a "
            "driver for CUDA 13.0",
        ),
        ("4090", installed(), True, None, "has code for sm_89"),  # of sm_86
        (
            "t4",
            installed("2.13.0+cpu", None, (), None),
            False,
            "pip install torch==2.14.1",
            "torch 2.13.0+cpu is a CPU's build, which sees no card",
        ),
        ("h100", installed(codes=("sm_80", "compute_80")), True, None, "has code for sm_90"),
        ("h100", installed(codes=("sm_90a",)), True, None, "has code for sm_90"),
        ("h100", installed(codes=("sm_80",)), False, "pip install torch==2.14.1", "sm_90"),
    ],
)
def test_what_works_and_what_to_install(name, software, works, install, words):
    found = verdict(software, find_gpu(name))
    assert (found.works, found.install) == (works, install)
    assert words in found.findings[0]


def test_torchvision_comes_along_where_it_is_installed():
    found = verdict(installed(torchvision="0.29.1"), find_gpu("v100"))
    assert found.install == "pip install torch==2.7.1 torchvision==0.22.1"


def test_a_card_older_than_every_wheel():
    found = verdict(installed(), Gpu("k80", 11, (3, 7)))
    assert found.install is None
    assert "no release of torch that coltrain knows has: build it from source" in found.findings[0]


@pytest.mark.parametrize(
    ("name", "flash", "half"), [("v100", False, "float16"), ("a100", True, "bfloat16")]
)
def test_kernels_and_precision_of_a_card(name, flash, half):
    card = find_gpu(name)
    assert attention_kernels(card) == {"flash": flash, "memory_efficient": True, "math": True}
    said = verdict(installed(), card).findings
    assert ("repeats keys and values" in said[1]) is not flash
    assert said[2].startswith(f"half precision: {half}")


@pytest.mark.parametrize(
    ("version", "capability", "words"),
    [
        (None, (9, 0), "pip install 'coltrain[optim8bit]'"),
        ("0.50.2", (9, 0), "save 0.2 GiB for LoRA"),
        ("0.50.2", (5, 2), "no 8-bit optimisers for sm_52"),
    ],
)
def test_bitsandbytes(version, capability, words):
    found = verdict(old(bitsandbytes=version), Gpu("card", 8, capability))
    assert words in found.findings[-1]


def test_the_table_of_wheels_is_what_the_installed_torch_says_of_itself():
    here = software_here()
    known = [w for w in WHEELS if w.requirement == f"torch=={here.torch.partition('+')[0]}"]
    if here.cuda is None or not known:
        pytest.skip("another torch than the table's")
    assert here.cuda == known[0].cuda
    assert here.architectures == tuple(f"sm_{a}{b}" for a, b in known[0].architectures)
    for card in GPUS.values():
        assert here.has_code_for(card) == known[0].runs_on(card.capability)


def test_the_wheel_of_a_plan_is_the_one_to_install():
    for card in GPUS.values():
        [other] = [w for w in WHEELS if w.runs_on(card.capability)][:1]
        assert wheel_for(card) == other
        nothing = installed("2.5.0", "12.1", ("sm_35",))
        assert verdict(nothing, card).install == f"pip install {other.requirement}"


class Driver:
    def __init__(self, number, status=0):
        self.number, self.status = number, status

    def cuDriverGetVersion(self, pointer):  # noqa: N802, the driver's own name
        pointer._obj.value = self.number
        return self.status


@pytest.mark.parametrize(
    ("driver", "found"), [(Driver(12040), "12.4"), (Driver(13000), "13.0"), (Driver(0, 3), None)]
)
def test_the_driver_is_asked_itself(monkeypatch, driver, found):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert driver_cuda() == found


def test_without_a_driver():
    def fail(name):
        raise OSError(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctypes, "CDLL", fail)
        assert driver_cuda() is None


@pytest.mark.parametrize(
    ("software", "words"),
    [
        (installed("2.13.0+cpu", None, (), None), "a CPU's build"),
        (installed(driver=None), "no NVIDIA driver"),
        (installed(driver="12.4"), "needs CUDA 13.0"),
        (installed(), None),
    ],
)
def test_why_no_card_is_seen(software, words):
    said = hindrance_of_all(software)
    assert said is None if words is None else words in said


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "software_here", lambda: installed(driver=None))


@pytest.mark.usefixtures("no_card")
def test_the_command_without_a_card_says_what_it_can(coltrain):
    code, out, _ = coltrain("gpu")
    assert code == 0
    assert "none that torch can use" in out
    assert "no NVIDIA driver" in out
    assert "This torch has code for: t4, rtx-2080-ti" in out
    assert "v100-16gb" not in out


@pytest.mark.usefixtures("no_card")
def test_the_command_answers_for_a_card_elsewhere(coltrain):
    code, out, _ = coltrain("gpu", "--card", "V100 32GB")
    assert code == 1
    assert "pip install torch==2.7.1" in out
    code, out, _ = coltrain("gpu", "--card", "h100", "--json")
    assert code == 0
    document = json.loads(out)
    [card] = document["cards"]
    assert (card["name"], card["works"], card["install"]) == ("h100-80gb", True, None)
    assert document["gpus_here"] == []


def test_the_command_judges_the_cards_that_are_here(coltrain, monkeypatch):
    monkeypatch.setattr(module, "cards_here", lambda: [find_gpu("t4"), find_gpu("v100")])
    monkeypatch.setattr(module, "software_here", installed)
    code, out, _ = coltrain("gpu", "--json")
    assert code == 1
    assert [card["works"] for card in json.loads(out)["cards"]] == [True, False]


def test_a_card_with_a_typo_is_answered_with_the_nearest(coltrain):
    code, _, err = coltrain("gpu", "--card", "v100-32bg")
    assert code == 2
    assert "where     --card" in err
    assert "try       --card v100-32gb\n" in err
