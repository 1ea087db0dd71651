"""The page of benchmarks, from their results: every figure in it is one of theirs, rounded.

Verdicts are made from the figures, so the page says by itself where coltrain loses.
"""

from collections.abc import Iterable
from html import escape
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "benchmarks.md"
FOLDER = PAGE.parent / "benchmarks"
HEAD = """\
# Benchmarks

*Written by `python benchmarks/run_all.py --page` from `benchmarks/results/`; `make bench` measures again.*

Each question has a script of its own in `benchmarks/`, whose head says what is compared and what is left out.
Ways of doing one thing run in turn in one process on one thread. On a CPU seconds are processor seconds,
which other work on the machine hardly moves; what to look at are ratios. *Spread* is the slowest run over the
fastest, less one. The models are random ones of the real classes with the real proportions, made small.
"""
EXPECTED_ON_A_GPU = """\
## On a GPU

`make bench DEVICE=cuda` asks the same questions there; seconds are then those that pass until the card is
done. No GPU has run them yet. What to expect:

| question | expected on a GPU | why |
| --- | --- | --- |
| training step, gradient-cached step | the ratios to the other libraries stay above 1 and are smaller than here | small models leave a GPU waiting for kernels to be launched, of which all sides have many; use a larger batch |
| second epoch | a ratio near 1.6 with checkpointing, more without, at 768 visual tokens of the 2B model | counted operations of a page (`coltrain plan colqwen2-v1.0 --gpu a100-80gb`): 14.2 TFLOP, 8.73 where visual tokens are found |
| padding | less of a gain in small batches | padded products run at a higher rate than here |
| encode | the other libraries' batches come closer, or win where coltrain takes pages one by one; `--batch-size` pads on a GPU | a page alone does not fill a card |
| ranking | near the rate of the products | the products are bound by memory |
| data path, start-up, plan | as here | they use no GPU |
"""
_TIMES, _SHARE = "times_as_fast_as", "share_of_memory_of"


def text_of(results: dict[str, dict], scripts: Iterable[str] = ()) -> str:
    """The page.

    Args:
        results: By name, such as `second_epoch_cpu`, in order.
        scripts: All that `make bench` runs; those without a result on a CPU are named.
    """
    missing = [name for name in scripts if f"{Path(name).stem}_cpu" not in results]
    parts = [HEAD, _summary(results)]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        parts.append(f"**Not measured yet** (`make bench` will): {names}.\n")
    parts += [_section(name, result) for name, result in results.items()]
    return "\n".join([*parts, EXPECTED_ON_A_GPU])


def pictures(results: dict[str, dict]) -> dict[Path, str]:
    """The picture of each result that has seconds."""
    found = {}
    for name, result in results.items():
        for key, ways in _timed(result).items():
            found[_picture(name, key)] = bars(
                {way: times["best_seconds"] for way, times in ways.items()}
            )
    return found


def _picture(name: str, key: str) -> Path:
    return FOLDER / (f"{name}.svg" if key == "seconds" else f"{name}_{key}.svg")


def _timed(result: dict) -> dict[str, dict]:
    """Tables of seconds in a result, by their key."""
    return {
        key: value
        for key, value in result["figures"].items()
        if isinstance(value, dict)
        and value
        and all(isinstance(one, dict) and "best_seconds" in one for one in value.values())
    }


def verdicts(result: dict) -> list[tuple[str, bool]]:
    """Sentences on time and memory beside others, and whether coltrain loses."""
    figures, found = result["figures"], []
    for other, ratio in figures.get(_TIMES, {}).items():
        if ratio >= 1:
            found.append((f"{ratio:.2f} times as fast as {other}", False))
        else:
            found.append((f"**loses**: {1 / ratio:.2f} times the time of {other}", True))
    for other, share in figures.get(_SHARE, {}).items():
        if share <= 1:
            found.append((f"{share:.2f} of the memory of {other}", False))
        else:
            found.append((f"**loses**: {share:.2f} times the memory of {other}", True))
    return found


def _summary(results: dict[str, dict]) -> str:
    lost = [
        f"- [{result['question']}](#{_anchor(_heading(name, result))}): {sentence}"
        for name, result in results.items()
        for sentence, is_lost in verdicts(result)
        if is_lost
    ]
    if not lost:
        return "## Where coltrain loses\n\nNowhere, in what was measured.\n"
    return "\n".join(["## Where coltrain loses", "", *lost, ""])


def _heading(name: str, result: dict) -> str:
    return result["question"] + (" (GPU)" if name.endswith("_cuda") else "")


def _anchor(heading: str) -> str:
    kept = "".join(one for one in heading.lower() if one.isalnum() or one in " -_")
    return kept.replace(" ", "-")


def _section(name: str, result: dict) -> str:
    script = f"benchmarks/{name.rpartition('_')[0]}.py"
    lines = [f"## {_heading(name, result)}", "", f"`python {script}`, {_machine(result)}.", ""]
    said = verdicts(result)
    if said:
        lines += ["coltrain:", "", *(f"- {sentence}" for sentence, _ in said), ""]
    timed = _timed(result)
    for key, ways in timed.items():
        picture = _picture(name, key).relative_to(PAGE.parent)
        lines += [f"![seconds of each way, the best of all rounds]({picture})", ""]
        lines += ["| way | best [s] | median [s] | spread |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {way} | {_number(one['best_seconds'])} | {_number(one['median_seconds'])} "
            f"| {one['spread']:.0%} |"
            for way, one in ways.items()
        ]
        lines.append("")
    rows = [
        row
        for key, value in result["figures"].items()
        if key not in (*timed, _TIMES, _SHARE)
        for row in _rows(key.replace("_", " "), value)
    ]
    if rows:
        lines += ["| figure | value |", "| --- | --- |"]
        lines += [f"| {label} | {value} |" for label, value in rows] + [""]
    return "\n".join(lines)


def _rows(label: str, value) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for key, one in value.items() for row in _rows(f"{label}: {key}", one)]
    if isinstance(value, list):
        return [(label, ", ".join(map(_number, value)))]
    return [(label, _number(value))]


def _number(value) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _machine(result: dict) -> str:
    machine, versions = result["machine"], result.get("versions", {})
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['device']}, {machine['threads']} thread, {machine['rounds']} rounds, "
        f"torch {machine['torch']}" + (f", {libraries}" if libraries else "")
    )


def bars(seconds: dict[str, float]) -> str:
    """Horizontal bars, readable on light and dark."""
    label, width, height = 300, 640, 24
    longest = max(seconds.values())
    rows = []
    for place, (way, value) in enumerate(seconds.items()):
        top = 8 + place * height
        size = max(1.0, (width - label - 70) * value / longest)
        colour = "ours" if way.startswith(("coltrain", "second")) else "other"
        rows.append(
            f'<text x="{label - 8}" y="{top + 13}" text-anchor="end">{escape(way)}</text>'
            f'<rect class="{colour}" x="{label}" y="{top}" width="{size:.1f}" height="17"/>'
            f'<text x="{label + size + 6:.1f}" y="{top + 13}">{_number(value)} s</text>'
        )
    style = (
        "text{font:12px sans-serif;fill:#333}.ours{fill:#1769aa}.other{fill:#9aa5b1}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.ours{fill:#6cb6f0}}"
    )
    total = 16 + height * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" role="img" '
        f'aria-label="seconds of each way"><style>{style}</style>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )
