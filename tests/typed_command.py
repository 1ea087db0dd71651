"""A command as a person types it, run in this process."""

import sys
from typing import NamedTuple

from coltrain import cli


class Finished(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def run_typed(monkeypatch, capsys, arguments) -> Finished:
    """Run `coltrain` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["coltrain", *map(str, arguments)])
    capsys.readouterr()
    code = 0
    try:
        cli.main()
    except SystemExit as left:
        code = left.code or 0
    return Finished(code, *capsys.readouterr())
