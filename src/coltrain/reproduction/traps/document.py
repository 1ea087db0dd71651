"""Findings in words, for a terminal."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from coltrain.reproduction.targets import Target
from coltrain.reproduction.traps.finding import Finding

_WIDTH = 100
_BROKEN = re.compile(
    r"not (YAML|TOML|Python)|line \d+ column \d+|where .* expected|no tokenizer|loading it stops"
)
"""What a reader says of a file that is damaged, and not only partly understood."""


def findings_text(target: Target, findings: Sequence[Finding], *, show_all: bool = False) -> str:
    """What was found, the most damaging first; what cannot be known; what was and was not read.

    Args:
        target: What was looked at.
        findings: As `examine` orders them.
        show_all: Also the checks that passed, each with what it saw.
    """
    return "\n".join(_lines(target, findings, show_all)) + "\n"


def _lines(target: Target, findings: Sequence[Finding], show_all: bool) -> Iterator[str]:
    failed = [one for one in findings if one.status == "fail"]
    unknown = [one for one in findings if one.status == "unknown"]
    passed = [one for one in findings if one.status == "pass"]
    kind = {"run": "a run", "recipe": "a recipe", "model": "a model"}.get(
        target.kind, f"a training with {target.kind}"
    )
    worst = ", the most damaging first" if len(failed) > 1 else ""
    yield from _wrapped(
        f"{target.path} ({kind}): {len(failed)} of {len(findings)} known traps found{worst}; "
        f"{len(unknown)} cannot be known from what is here, {len(passed)} are not there."
    )
    broken = [one for one in target.not_read if _BROKEN.search(one)]
    if broken:
        yield from _wrapped(f"Checked without what could not be read: {'; '.join(broken)}.")
    for number, one in enumerate(failed, 1):
        yield ""
        yield from _failure(number, one)
    if unknown:
        yield ""
        yield "Cannot be known from what is here:"
        for one in unknown:
            yield from _wrapped(f"{_name(one)}: {one.outcome.evidence.found}", "- ", "  ")
    if show_all:
        yield ""
        yield "Not there:"
        for one in passed:
            where = one.outcome.evidence.where
            seen = one.outcome.evidence.found + (f" ({where})" if where else "")
            yield from _wrapped(f"{_name(one)}: {seen}", "- ", "  ")
    yield ""
    yield from _wrapped("; ".join(target.read) or "nothing", "Read: ", "  ")
    if target.not_read:
        yield from _wrapped("; ".join(target.not_read), "Not read: ", "  ")


def _failure(number: int, one: Finding) -> Iterator[str]:
    evidence, trap = one.outcome.evidence, one.trap
    head = f"{trap.id} (trap {trap.number}, {trap.severity}): {trap.title}"
    yield from _wrapped(head, f"{number:2}. ", "    ")
    for label, text in (
        ("found", evidence.found),
        ("expected", evidence.expected),
        ("where", evidence.where),
        ("cost", trap.cost),
        ("way out", trap.way_out),
        ("more", f"docs/reference/traps/{trap.id}.md, {trap.source}"),
    ):
        if text:
            yield from _wrapped(text, f"    {label:9} ", " " * 14)


def _name(one: Finding) -> str:
    return f"{one.trap.id} (trap {one.trap.number})"


def _wrapped(text: str, first: str = "", later: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
