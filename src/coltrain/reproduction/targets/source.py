"""Python and shell of a script or a notebook, as text."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = (".py", ".ipynb")
"""Endings of what is read as Python."""

_METADATA = re.compile(r"^# /// script\s*$(.*?)^# ///\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Source:
    """What a script or a notebook holds.

    Attributes:
        python: Its Python, in the order of the file.
        shell: A notebook's commands (`!…`, `%pip …`, `%%bash`), and a script's declared dependencies.
        machine: What a notebook shows of the machine: outputs of its commands, the kind of its GPU.
    """

    python: str
    shell: str = ""
    machine: str = ""


def read_source(file: Path) -> Source:
    """Read a file; a notebook that is none has no Python."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".ipynb":
        return _notebook(text)
    declared = _METADATA.search(text)
    lines = re.sub(r"^#", "", declared[1], flags=re.MULTILINE) if declared else ""
    return Source(text, lines)


def _notebook(text: str) -> Source:
    try:
        content = json.loads(text)
        cells = [cell for cell in content.get("cells", []) if cell.get("cell_type") == "code"]
    except (ValueError, AttributeError):
        return Source("")
    python: list[str] = []
    shell: list[str] = []
    machine = [str(content.get("metadata", {}).get("colab", {}).get("gpuType", ""))]
    for cell in cells:
        code = _joined(cell.get("source", ""))
        magic = re.match(r"\s*%%(\w+)(.*)", code)
        if magic and magic[1] in ("bash", "sh", "shell"):
            shell.append(code.partition("\n")[2])
            continue
        if magic and magic[1] == "writefile" and not magic[2].strip().endswith(".py"):
            continue
        for line in code.splitlines():
            command = re.match(r"\s*[!%]+\s*(.*)", line)
            if command is None:
                python.append(line)
                continue
            shell.append(command[1])
            indent = line[: len(line) - len(line.lstrip())]
            python.append(f"{indent}pass")  # an indented command may be all that a branch holds
        if "!" in code:
            machine += [_joined(one.get("text", "")) for one in cell.get("outputs", [])]
    return Source("\n".join(python) + "\n", "\n".join(shell) + "\n", "\n".join(machine))


def _joined(lines: Any) -> str:
    return "".join(map(str, lines)) if isinstance(lines, list) else str(lines)
