"""Runs on paper that differ in one thing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_on_paper import write_run
from small_pages import small_collection

from coltrain.data.check import check_collection
from coltrain.data.collection import Collection
from coltrain.data.row_contents import content_hash, lines_of, write_row_contents
from coltrain.training.run_folder import ROW_CONTENTS

RECORDED: dict[str, Any] = {
    "versions": {
        "python": "3.11.7",
        "torch": "2.14.1",
        "transformers": "5.23.0",
        "pillow": "12.3.0",
    },
    "kernels": {"attention": "sdpa", "threads": 2, "float32_matmul_precision": "highest"},
    "moments": {"exp_avg": {"float32": 1234}, "exp_avg_sq": {"float32": 1234}},
    "template_hash": "0011223344556677",
    "trained_weights_hash": "8899aabbccddeeff",
    "reading": {"positions": "mrope", "image_backend": "pil", "image_library": "Pillow 12.3.0"},
}


@pytest.fixture(scope="session")
def rows() -> Collection:
    """Training data of the runs."""
    return small_collection("small-train", 12)


@pytest.fixture
def paper_run(tmp_path: Path, rows: Collection) -> Callable[..., Path]:
    """Writes a run that recorded everything; facts and data may be others."""

    def make(name: str, *, data: Collection | None = None, **facts: Any) -> Path:
        data = data or rows
        digests = check_collection(data).page_digests
        of_data = {**data.fingerprint(), "content_hash": content_hash(lines_of(data, digests))}
        folder = write_run(
            tmp_path / name,
            steps=4,
            of=4,
            num_rows=64,
            **{**RECORDED, "data": {"train": [of_data], "eval": []}, **facts},
        )
        write_row_contents(
            folder / ROW_CONTENTS, {"train": [(data.name, lines_of(data, digests))], "eval": []}
        )
        return folder

    return make


@pytest.fixture
def change() -> Callable[..., None]:
    """Changes a run's record by dotted path; None takes the key out."""

    def apply(folder: Path, path: str, value: Any) -> None:
        file = folder / "run.json"
        facts = json.loads(file.read_text())
        *outer, last = path.split(".")
        place = facts
        for key in outer:
            place = place[key]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
        file.write_text(json.dumps(facts))

    return apply
