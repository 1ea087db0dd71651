"""Which modules float16 cannot hold, and the fewest that have to stay in float32 for it.

A module in float32 takes its input as it comes, and its output stays float32; a product between two
modules, or a sum in the residual stream, is float32 as soon as one of its operands is. So the rules
below say for each place of the network which module makes the number that is too large, and a run
in float16 on the same samples says whether that was all.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from coltrain.errors import RunError
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.half import FLOAT16_MAX, Half, is_under, narrowed
from coltrain.model.inputs import Inputs
from coltrain.model.nonfinite import watch_for_non_finite
from coltrain.training.precision.ranges import Range, ranges, run, unit_of

MARGIN = 0.5
"""Share of 65,504 from which on a module counts as overflowing: other pages, and training, go
further than the samples did."""
MAX_WEIGHT_ERROR = 2.0**-8
"""Share of a weight's norm that rounding to float16 may take away: bfloat16 takes half of this."""
_ROUNDS = 12


@dataclass(frozen=True)
class Overflow:
    """What was found.

    Attributes:
        ranges: Of every module, in float32.
        keep_float32: Modules to keep in float32, each with the reason.
        margin: Share of 65,504 that counted as too large.
        overflow_in_float16: The first module that a run in float16 without the policy met; None if
            all was finite.
    """

    ranges: dict[str, Range]
    keep_float32: dict[str, str]
    margin: float
    overflow_in_float16: str | None

    def near(self) -> dict[str, Range]:
        """Modules whose numbers overflow or come within the margin."""
        limit = self.margin * FLOAT16_MAX
        return {name: found for name, found in self.ranges.items() if found.largest > limit}

    @property
    def sentence(self) -> str:
        """For people."""
        limit = f"{self.margin:g} x {FLOAT16_MAX:,.0f}"
        if not self.keep_float32:
            return f"float16: no module's numbers go beyond {limit}; none is kept in float32"
        kept = "; ".join(f"{name}: {reason}" for name, reason in self.keep_float32.items())
        return f"float16 ends at {FLOAT16_MAX:,.0f}; kept in float32 ({limit} on): {kept}"

    def facts(self) -> dict[str, Any]:
        """For a run's record."""
        return {
            "limit": FLOAT16_MAX,
            "margin": self.margin,
            "overflow_in_float16": self.overflow_in_float16,
            "keep_float32": dict(self.keep_float32),
            "near": {name: _figures(found) for name, found in self.near().items()},
        }


def find_overflow(
    model: ColQwen2,
    samples: Sequence[Inputs],
    margin: float = MARGIN,
    on_sample: Callable[[], None] | None = None,
) -> Overflow:
    """Look for what overflows in float16, choose what stays in float32, and try it.

    Costs a forward pass over the samples in float32, one in float16, and one in float16 for each
    policy that is tried, one if the rules were right; and a copy of the model in half its size.

    Args:
        model: In float32, with the values of its files.
        samples: Pages and queries.
        margin: Share of 65,504 that is too large already.
        on_sample: Called after each sample of each pass.

    Raises:
        RunError: [float16-overflows] Whatever is kept in float32, something is not finite.
    """
    found = ranges(model, samples, on_sample)
    for name, one in found.items():
        if not math.isfinite(one.output):
            raise _no_policy(name, "infinity or NaN in float32 too", "a model that was not damaged")
    without = _first_overflow(model, (), samples, on_sample)
    keep = chosen(found, margin)
    for _ in range(_ROUNDS):
        if without is None and not keep:
            break
        first = _first_overflow(model, tuple(keep), samples, on_sample)
        if first is None:
            break
        module, is_input = first
        more = [name for name in _blamed(module, is_input, list(found)) if name not in keep]
        if not more:
            raise _no_policy(module, f"not finite, though kept: {', '.join(keep)}", "bfloat16")
        keep |= dict.fromkeys(more, f"met in a run in float16, at {module}")
    else:
        raise _no_policy(module, f"not finite after {_ROUNDS} policies", "bfloat16")
    keep = {name: why for name, why in keep.items() if not is_under(name, set(keep))}
    return Overflow(found, keep, margin, None if without is None else without[0])


def chosen(found: dict[str, Range], margin: float) -> dict[str, str]:
    """The modules that have to stay in float32 by their ranges, with reasons.

    Args:
        found: Of every module, in the order of computing.
        margin: Share of 65,504 that is too large already.
    """
    limit = margin * FLOAT16_MAX
    keep: dict[str, str] = {}
    streams = {"visual": False, "language_model": False}  # whether the residual sum is float32

    def is_kept(name: str) -> bool:
        return name in keep or is_under(name, set(keep))

    def hold(name: str, reason: str) -> None:
        keep.setdefault(name, reason)
        if name.endswith("merger.mlp.2"):  # visual tokens stand in the language model's stream
            streams["language_model"] = True
        elif _adds_to_stream(name):
            streams[name.partition(".")[0]] = True

    previous: str | None = None  # the module that added to the residual stream last
    for name, one in found.items():
        if one.weight > FLOAT16_MAX:
            hold(name, f"weights up to {one.weight:.3g}")
        elif one.weight_error > MAX_WEIGHT_ERROR:
            hold(name, f"float16 rounds {one.weight_error:.1%} of its weights away")
        tower = name.partition(".")[0]
        if one.weight == 0 or tower not in streams:
            continue  # passes on what others made, or is in float32 anyway
        if _reads_stream(name):
            if one.input > limit and not streams[tower] and previous is not None:
                hold(previous, f"the residual stream after it reaches {one.input:.3g}")
        elif one.input > limit:
            reason = f"what {name} is given reaches {one.input:.3g}"
            makers = _makers(name)
            if makers and not any(is_kept(maker) for maker in makers):
                hold(makers[0], reason)
            hold(name, reason)
        if one.output > limit:
            hold(_in_whole(name), f"output up to {one.output:.3g}")
        if _adds_to_stream(name):
            previous = name
    return keep


def _in_whole(name: str) -> str:
    """The module that has to be kept for another's output: attention as a whole.

    Its fused kernel turns queries, keys and values into float16 unless all of it is float32.
    """
    return re.sub(r"(\.self_attn)\.[qkv]_proj$|(\.attn)\.qkv$", r"\1\2", name)


def _makers(name: str) -> list[str]:
    """Modules one of which makes a module's input float32, if it is; the one to choose first."""
    block, _, last = name.rpartition(".")
    if last == "down_proj":  # a product of two: float32 as soon as one of them is
        return [f"{block}.up_proj", f"{block}.gate_proj"]
    if last in ("o_proj", "proj") and block.endswith("attn"):  # of values that are too large
        return [block]
    if last == "fc2":
        return [f"{block}.fc1"]
    if name.endswith("merger.mlp.2"):
        return [f"{block}.0"]
    return []


def _reads_stream(name: str) -> bool:
    return re.search(r"(layernorm|\.norm\d?|\.ln_q)$", name) is not None


def _adds_to_stream(name: str) -> bool:
    ends = ("embed_tokens", "patch_embed", "attn", "o_proj", "attn.proj", "down_proj", "mlp.fc2")
    return name.endswith(ends)


def _blamed(module: str, is_input: bool, names: Sequence[str]) -> list[str]:
    """What to keep after a run in float16 met something that the ranges did not show."""
    unit = unit_of(module)
    if not is_input:
        return [_in_whole(unit)]
    if not _reads_stream(unit):
        return [*_makers(unit)[:1], unit]
    before = [name for name in names[: names.index(unit)] if _adds_to_stream(name)]
    return before[-1:] or [unit]


def _first_overflow(
    model: ColQwen2,
    keep: Sequence[str],
    samples: Sequence[Inputs],
    on_sample: Callable[[], None] | None,
) -> tuple[str, bool] | None:
    """The first module that is not finite in float16, and whether at its input."""
    tried = narrowed(model, Half(torch.float16, tuple(keep)))
    with watch_for_non_finite(tried) as found:
        for inputs in samples:
            run(tried, inputs.to(tried.device))
            if on_sample is not None:
                on_sample()
    return None if found.module is None else (found.module, found.at_input)


def _figures(found: Range) -> dict[str, float]:
    return asdict(found)


def _no_policy(module: str, received: str, suggestion: str) -> RunError:
    return RunError(
        "float16-overflows",
        "no choice of modules in float32 makes this model finite in float16.",
        where=module,
        received=received,
        suggestion=f"precision.compute=float32, or {suggestion}",
    )
