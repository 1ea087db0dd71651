"""The list that the batches add to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMS: list[tuple[str, int | str | None, Callable[[Path], Path]]] = []
"""Name, trap or None, and what writes the target into a folder and says its path."""

REG = "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"


def add(
    name: str, trap: int | str | None, files: dict[str, Any], target: str | None = None
) -> None:
    """Add a target: its files by path, text or JSON, and which of them the doctor is given."""

    def write(folder: Path) -> Path:
        for file, content in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
        return folder / target if target else folder

    FORMS.append((name, trap, write))
