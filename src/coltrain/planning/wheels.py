"""Which torch a card needs: the wheels of PyPI hold code for some architectures only."""

from dataclasses import dataclass

from coltrain.planning.gpus import Gpu


@dataclass(frozen=True)
class Wheel:
    """A release of torch on PyPI, and what its CUDA code was built for.

    Attributes:
        requirement: For pip.
        cuda: The CUDA that it brings.
        architectures: Capabilities with code inside, lowest first; code of a major generation
            also runs on its later members.
        torchvision: The release that belongs to it, for pip.
    """

    requirement: str
    cuda: str
    architectures: tuple[tuple[int, int], ...]
    torchvision: str = ""

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether it has code for a card: of its own generation, at most as new as the card."""
        return any(
            major == capability[0] and minor <= capability[1] for major, minor in self.architectures
        )


# Newest first. Read from the libraries themselves, by torch._C._cuda_getArchFlags(); 2.7.1 is the last
# release on PyPI that was seen to hold sm_70.
WHEELS = (
    Wheel(
        "torch==2.14.1",
        "13.0",
        ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
        "torchvision==0.29.1",
    ),
    Wheel(
        "torch==2.7.1",
        "12.6",
        ((5, 0), (6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (9, 0)),
        "torchvision==0.22.1",
    ),
)


def wheel_for(gpu: Gpu) -> Wheel | None:
    """The newest known wheel with code for a card; None if none has."""
    if gpu.capability is None:
        return WHEELS[0]
    return next((wheel for wheel in WHEELS if wheel.runs_on(gpu.capability)), None)


def cuda_number(version: str) -> tuple[int, int]:
    """`13.0` as (13, 0)."""
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)
