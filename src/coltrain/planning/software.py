"""Whether the software that is installed fits a card, and what to install where it does not.

A wheel of torch holds code for some cards only; on another one, everything up to the first operation
works. Facts come in from outside, so that any machine can be asked about any card.
"""

import ctypes
import importlib.metadata
import re
from dataclasses import dataclass, replace
from typing import Any

from coltrain.planning.gpus import Gpu
from coltrain.planning.wheels import WHEELS, Wheel, cuda_number

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[a-z]?")
# Of bitsandbytes 0.50: "8-bit optimizers: SM60+ minimum".
_EIGHT_BIT_SINCE = (6, 0)


@dataclass(frozen=True)
class Software:
    """What is installed.

    Attributes:
        torch: Its version.
        cuda: That torch was built for; None for a CPU's build.
        architectures: `sm_75` is code for that card and later ones of its generation, `compute_75`
            is code that a driver can translate for any later card.
        driver_cuda: The newest CUDA that the driver serves; None without one.
        torchvision: Its version; None where it is not installed.
        bitsandbytes: Likewise.
    """

    torch: str
    cuda: str | None
    architectures: tuple[str, ...]
    driver_cuda: str | None
    torchvision: str | None = None
    bitsandbytes: str | None = None

    def has_code_for(self, card: Gpu) -> bool:
        """Whether torch's code, or the driver's translation of it, runs on a card."""
        found = map(_ARCHITECTURE.fullmatch, self.architectures)
        codes = [(m[1], (int(m[2]), int(m[3]))) for m in found if m]
        own = tuple(number for kind, number in codes if kind == "sm")
        return Wheel("", self.cuda or "", own).runs_on(card.capability) or any(
            kind == "compute" and number <= card.capability for kind, number in codes
        )

    @property
    def is_newer_than_driver(self) -> bool:
        """Whether the driver is of an earlier major version of CUDA than torch; minor ones mix."""
        if self.cuda is None or self.driver_cuda is None:
            return False
        return cuda_number(self.cuda)[0] > cuda_number(self.driver_cuda)[0]

    def as_document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "torch": self.torch,
            "cuda": self.cuda,
            "architectures": list(self.architectures),
            "driver_cuda": self.driver_cuda,
            "torchvision": self.torchvision,
            "bitsandbytes": self.bitsandbytes,
        }


@dataclass(frozen=True)
class Verdict:
    """Software beside a card.

    Attributes:
        card: The card.
        works: Whether training can run there as things are.
        findings: What is so, in sentences; what hinders stands first.
        install: The command that mends it; None where nothing has to be installed, or pip has it
            not.
    """

    card: Gpu
    works: bool
    findings: tuple[str, ...]
    install: str | None

    def as_document(self) -> dict[str, Any]:
        """For JSON."""
        card = self.card
        return {
            "name": card.name,
            "capability": ".".join(map(str, card.capability)),
            "memory_gib": round(card.memory_gib, 2),
            "works": self.works,
            "attention": attention_kernels(card),
            "bfloat16": card.has_bfloat16,
            "findings": list(self.findings),
            "install": self.install,
        }


def software_here() -> Software:
    """What is installed on this machine."""
    import torch

    flags = getattr(torch._C, "_cuda_getArchFlags", None)  # a CPU's build has none
    # torch.cuda.get_arch_list() says the same, but nothing at all without a card.
    architectures = (flags() or "").split() if flags is not None else []
    return Software(
        torch=torch.__version__,
        cuda=torch.version.cuda,
        architectures=tuple(architectures),
        driver_cuda=driver_cuda(),
        torchvision=_version("torchvision"),
        bitsandbytes=_version("bitsandbytes"),
    )


def driver_cuda() -> str | None:
    """The newest CUDA that the driver serves, as `12.4`; None without a driver.

    Asked of the driver itself, which answers also where torch finds it too old to begin with.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def cards_here() -> list[Gpu]:
    """The cards that the driver shows, with what the table says of their speed."""
    import torch

    from coltrain.planning.gpus import this_gpu

    if not torch.cuda.is_available():
        return []
    return [this_gpu(number) for number in range(torch.cuda.device_count())]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def attention_kernels(card: Gpu) -> dict[str, bool]:
    """Which of torch's attention kernels run on a card, for half precision."""
    return {
        "flash": card.has_flash_attention,
        "memory_efficient": card.capability >= (5, 0),
        "math": True,
    }


def verdict(software: Software, card: Gpu) -> Verdict:
    """What works on a card, and what to install where it does not.

    Args:
        software: What is installed.
        card: A card, not a CPU.
    """
    hindrance, install = _hindrance(software, card)
    findings = (
        [hindrance] if hindrance else [f"torch {software.torch} has code for {card.architecture}"]
    )
    findings += [_attention(card), _precision(card), _eight_bits(software, card)]
    return Verdict(card, hindrance is None, tuple(findings), install)


def hindrance_of_all(software: Software) -> str | None:
    """Why torch sees no card of this machine, as far as the software can tell; None if it cannot."""
    if software.cuda is None:
        return f"torch {software.torch} is a CPU's build, which sees no card"
    if software.driver_cuda is None:
        return "there is no NVIDIA driver (libcuda.so.1), without which no card is seen"
    if software.is_newer_than_driver:
        return _too_new(software)
    return None


def _too_new(software: Software) -> str:
    return (
        f"the driver serves CUDA {software.driver_cuda} and earlier, and torch {software.torch} "
        f"needs CUDA {software.cuda}: a newer driver, or an older wheel"
    )


def _hindrance(software: Software, card: Gpu) -> tuple[str | None, str | None]:
    """What keeps torch from running on a card, and the command that mends it."""
    wheel = _wheel(software, card)
    install = wheel and "pip install " + " ".join(
        (wheel.requirement, wheel.torchvision) if software.torchvision else (wheel.requirement,)
    )
    if software.cuda is None:
        return f"torch {software.torch} is a CPU's build, which sees no card", install
    if not software.has_code_for(card):
        return (
            f"this wheel (torch {software.torch}) has no code for {card.architecture}: its first "
            "operation would fail" + _no_wheel(software, card, wheel)
        ), install
    if software.is_newer_than_driver:
        return _too_new(software) + _no_wheel(software, card, wheel), install
    return None, None


def _wheel(software: Software, card: Gpu) -> Wheel | None:
    """The newest that has code for the card and that the driver serves, if there is a driver."""
    served = [
        wheel
        for wheel in WHEELS
        if not replace(software, cuda=wheel.cuda).is_newer_than_driver
        and wheel.runs_on(card.capability)
    ]
    return served[0] if served else None


def _no_wheel(software: Software, card: Gpu, wheel: Wheel | None) -> str:
    if wheel is not None:
        return ""
    needed = next((w for w in WHEELS if w.runs_on(card.capability)), None)
    if needed is None:
        return "; no release of torch that coltrain knows has: build it from source"
    return f"; {needed.requirement} has it, and needs a driver for CUDA {needed.cuda}"


def _attention(card: Gpu) -> str:
    if card.has_flash_attention:
        return "attention: torch's flash kernel in half precision, the memory-efficient in float32"
    return (
        "attention: torch's memory-efficient kernel (flash needs sm_80), for which coltrain repeats "
        "keys and values; without that torch would fall into its float32 math kernel"
    )


def _precision(card: Gpu) -> str:
    if card.has_bfloat16:
        return "half precision: bfloat16"
    return "half precision: float16, with gradient scaling; bfloat16 units come with sm_80"


def _eight_bits(software: Software, card: Gpu) -> str:
    if software.bitsandbytes is None:
        return (
            "bitsandbytes is not installed, and only optimizer.name=adamw_8bit or paged_adamw_8bit "
            "need it: pip install 'coltrain[optim8bit]'"
        )
    if card.capability < _EIGHT_BIT_SINCE:
        return (
            f"bitsandbytes {software.bitsandbytes} has no 8-bit optimisers for {card.architecture}"
        )
    return f"bitsandbytes {software.bitsandbytes}: 8-bit optimisers, which save 0.2 GiB for LoRA"
