"""The cards that a plan knows: what their makers and drivers say of them.

`memory_gib` is what the driver leaves to programs, not what is printed on the box; `tflops` counts
dense half-precision products that are summed in float32, which is what training does.
"""

import math
import os
from dataclasses import dataclass, replace

from coltrain.errors import UsageError
from coltrain.recipe.wording import listed, nearest


@dataclass(frozen=True)
class Gpu:
    """One card, or a CPU.

    Attributes:
        name: As in `--gpu`.
        memory_gib: What programs can use of it.
        capability: Compute capability (major, minor); None for a CPU.
        tflops: Peak of half-precision matrix products with sums in float32, dense, in 10^12 a
            second; None where it is not known.
        float32_tflops: Peak of float32 products.
        bandwidth: Of its memory, in 10^9 bytes a second; None where it is not known.
        watts: Power limit as sold; None where it is not known.
    """

    name: str
    memory_gib: float
    capability: tuple[int, int] | None
    tflops: float | None = None
    float32_tflops: float | None = None
    bandwidth: float | None = None
    watts: int | None = None

    @property
    def has_bfloat16(self) -> bool:
        """Whether bfloat16 products run on the card's own units (sm_80 and later; a CPU's do)."""
        return self.capability is None or self.capability >= (8, 0)

    @property
    def has_flash_attention(self) -> bool:
        """Whether torch's flash kernel runs there: sm_80 and later."""
        return self.capability is not None and self.capability >= (8, 0)

    @property
    def architecture(self) -> str:
        """`sm_70` for capability 7.0."""
        return "cpu" if self.capability is None else f"sm_{self.capability[0]}{self.capability[1]}"


# Makers' data sheets: TFLOP/s, GB/s and W; memory as drivers report it (within 0.3 GiB).
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("t4", 14.6, (7, 5), 65, 8.1, 320, 70),
        Gpu("p100-16gb", 15.5, (6, 0), 18.7, 9.3, 732, 250),
        Gpu("v100-16gb", 15.5, (7, 0), 125, 15.7, 900, 300),
        Gpu("v100-32gb", 31.2, (7, 0), 125, 15.7, 900, 300),
        Gpu("rtx-2080-ti", 10.7, (7, 5), 53.8, 13.4, 616, 250),
        Gpu("rtx-3090", 23.5, (8, 6), 71, 35.6, 936, 350),
        Gpu("rtx-4090", 23.5, (8, 9), 165, 82.6, 1008, 450),
        Gpu("rtx-5090", 31.4, (12, 0), 210, 104.8, 1792, 575),
        Gpu("a10", 22.0, (8, 6), 125, 31.2, 600, 150),
        Gpu("l4", 22.0, (8, 9), 121, 30.3, 300, 72),
        Gpu("a100-40gb", 39.0, (8, 0), 312, 19.5, 1555, 400),
        Gpu("a100-80gb", 79.0, (8, 0), 312, 19.5, 2039, 400),
        Gpu("l40s", 44.4, (8, 9), 362, 91.6, 864, 350),
        Gpu("h100-80gb", 79.0, (9, 0), 989, 66.9, 3350, 700),
        Gpu("h200", 139.8, (9, 0), 989, 66.9, 4800, 700),
        Gpu("b200", 178.0, (10, 0), 2250, 75, 8000, 1000),
    )
}
_ALSO = {
    "p100": "p100-16gb",
    "v100": "v100-32gb",
    "a100": "a100-80gb",
    "h100": "h100-80gb",
    "2080ti": "rtx-2080-ti",
    "rtx-2080ti": "rtx-2080-ti",
    "3090": "rtx-3090",
    "4090": "rtx-4090",
    "5090": "rtx-5090",
    "t4-16gb": "t4",
    "a10-24gb": "a10",
    "l4-24gb": "l4",
    "l40s-48gb": "l40s",
    "h200-141gb": "h200",
    "b200-180gb": "b200",
}


def find_gpu(name: str, option: str = "--gpu") -> Gpu:
    """A card by its name, however it is spelled (`V100 32GB`, `v100_32gb`).

    Args:
        name: Of the card.
        option: Where it was typed.

    Raises:
        UsageError: No card has this name; the nearest is named.
    """
    key = name.strip().lower().replace(" ", "-").replace("_", "-")
    key = _ALSO.get(key, key)
    if key not in GPUS:
        close = nearest(key, [*GPUS, *_ALSO])
        raise UsageError(
            "unknown-gpu",
            "this card is not in the table.",
            where=option,
            received=name or "an empty name",
            expected=listed(GPUS),
            suggestion=", or ".join(
                [f"{option} {_ALSO.get(close, close)}"] * bool(close)
                + ["--memory-gib and --capability of any other card"] * (option == "--gpu")
            ),
        )
    return GPUS[key]


def other_gpu(memory_gib: float, capability: str) -> Gpu:
    """A card that the table lacks.

    Args:
        memory_gib: What programs can use of it.
        capability: As `8.6`.

    Raises:
        UsageError: The capability is not two numbers, or the memory is none that a card can have.
    """
    major, _, minor = capability.removeprefix("sm_").partition(".")
    is_card = major.isdecimal() and minor.isdecimal() and 0 < memory_gib < math.inf
    if not is_card:
        raise UsageError(
            "not-a-card",
            "this does not describe a card.",
            where="--memory-gib, --capability",
            received=f"{memory_gib:g} GiB, capability {capability!r}",
            expected="such as --memory-gib 24 --capability 8.6",
        )
    return Gpu(f"card with {memory_gib:g} GiB", memory_gib, (int(major), int(minor)))


def this_gpu(number: int = 0) -> Gpu:
    """A card of this machine, with what the table says of its speed.

    Args:
        number: As torch counts them.

    Raises:
        UsageError: There is none that torch can use.
    """
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            "no-such-device",
            "this machine has no GPU that torch can use, so say which card to plan for.",
            where="--gpu",
            received="nothing",
            expected=f"{listed(GPUS)}; or cpu",
        )
    properties = torch.cuda.get_device_properties(number)
    capability = (properties.major, properties.minor)
    memory = properties.total_memory / 2**30
    alike = [
        gpu
        for gpu in GPUS.values()
        if gpu.capability == capability and abs(gpu.memory_gib - memory) < 0.1 * memory
    ]
    known = alike[0] if alike else Gpu("", memory, capability)
    return replace(known, name=properties.name, memory_gib=memory)


def this_cpu() -> Gpu:
    """This machine without a card: its memory; its speed is not known."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Gpu("cpu", pages * size / 2**30, None)
