"""How numbers are written."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

MINUS = "−"


def count(number: float | None) -> str:
    """A number of things: 1,920."""
    if number is None:
        return "–"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.1f}"


def number_of(number: float, thing: str) -> str:
    """A number with its noun: 1 step, 60 steps."""
    return f"{count(number)} {thing}" + ("" if number == 1 else "s")


def score(fraction: float | None) -> str:
    """A measure times 100, as papers print it: 92.4."""
    return "–" if fraction is None else _signed(f"{100 * fraction:.1f}")


def change(fraction: float | None) -> str:
    """A difference of measures times 100, always with its sign: +72.1."""
    if fraction is None:
        return "–"
    text = f"{100 * fraction:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else _signed(text)


def significant(number: float | None, digits: int = 4) -> str:
    """A quantity of any size: 1.131, 3.6e-5."""
    if number is None or not math.isfinite(number):
        return "–" if number is None else str(number)
    text = f"{number:.{digits}g}"
    mantissa, e, exponent = text.partition("e")
    return _signed(f"{mantissa}e{int(exponent)}" if e else text)


def duration(seconds: float | None) -> str:
    """A time in its two largest units: 11 min 53 s."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [(days, "d"), (hour, "h"), (minute, "min"), (second, "s")]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def moment(iso: str | None) -> str:
    """A recorded time: 2026-11-23 22:19 UTC."""
    if not iso:
        return "–"
    return iso.replace("T", " ")[:16] + (" UTC" if iso.endswith("+00:00") else "")


def run_lengths(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Token ids with how often each stands in a row."""
    for token, same in groupby(ids):
        yield token, sum(1 for _ in same)


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A curve in one line of text, lowest ▁ to highest █."""
    values = [value for value in values if math.isfinite(value)]
    if len(values) < 2:
        return ""
    size = max(1, math.ceil(len(values) / width))
    means = [
        sum(part) / len(part)
        for part in (values[start : start + size] for start in range(0, len(values), size))
    ]
    low, high = min(means), max(means)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (mean - low) / ((high - low) or 1))] for mean in means)


def _signed(text: str) -> str:
    return text.replace("-", MINUS) if text.startswith("-") else text
