"""Uneven pages, models in float64, the tiny base in other layouts, and a hub that serves it."""

import copy
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import Hub
from PIL import Image
from safetensors.torch import load_file, save_file

from coltrain.model.adapter import ADAPTER_NAME, lora_layers
from coltrain.model.build import BuiltModel
from coltrain.model.inputs import Inputs
from coltrain.model.locate import tiny_folder
from coltrain.model.retriever import Retriever

# Width and height in visual tokens: wide, high, square, and a single row.
SHAPES = [(3, 2), (2, 5), (4, 4), (6, 1), (2, 2)]


def _noise(number: int, columns: int, rows: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (28 * rows, 28 * columns, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def uneven_pages() -> list[Image.Image]:
    """Pages of noise whose grids differ in both directions."""
    return [_noise(number, *shape) for number, shape in enumerate(SHAPES)]


@pytest.fixture(scope="session")
def uneven_queries() -> list[str]:
    """Queries of different lengths."""
    return ["iron", "a glass of water", "the light of the northern night", "red paper"]


@pytest.fixture
def float64_base(tiny_retriever: Retriever) -> BuiltModel:
    """The tiny base in float64, without an adapter."""
    built = copy.deepcopy(tiny_retriever.built)
    built.model.double()
    return built


@pytest.fixture
def float64_built(tiny_built: BuiltModel) -> BuiltModel:
    """The tiny base in float64 with an adapter that is not zero and drops 10 %."""
    fill_adapter(tiny_built)
    tiny_built.model.double()
    return tiny_built


@pytest.fixture
def filled_built(tiny_built: BuiltModel) -> BuiltModel:
    """The tiny base with an adapter that is not zero, as if trained."""
    fill_adapter(tiny_built)
    return tiny_built


def fill_adapter(built: BuiltModel) -> None:
    generator = torch.Generator().manual_seed(5)
    for layer in lora_layers(built.model).values():
        up = layer.lora_B[ADAPTER_NAME].weight
        up.data.copy_(torch.empty(up.shape).normal_(std=0.02, generator=generator))


@pytest.fixture
def page_inputs(uneven_pages: list[Image.Image]) -> Callable[..., Inputs]:
    """Makes one chunk of some of the uneven pages (of all, if none is named)."""

    def make(built: BuiltModel, *numbers: int) -> Inputs:
        chosen = [uneven_pages[number] for number in numbers or range(len(uneven_pages))]
        return built.preparer.collate_pages([built.preparer.prepare_page(page) for page in chosen])

    return make


@pytest.fixture
def write_base(tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny base's tensors in another layout; returns its folder.

    `rename` gives a tensor's new key (None leaves it out); `files` its file's name; tensors may be
    replaced or added by `more`.
    """

    def write(
        name: str = "base",
        *,
        rename: Callable[[str], str | None] = lambda key: key,
        file_of: Callable[[str], str] = lambda key: "model.safetensors",
        dtype: torch.dtype = torch.float32,
        more: dict[str, torch.Tensor] | None = None,
        config: dict | None = None,
    ) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_folder(), folder)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        renamed = {
            new: tensor.to(dtype)
            for key, tensor in tensors.items()
            if (new := rename(key)) is not None
        }
        renamed |= more or {}
        files: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in renamed.items():
            files.setdefault(file_of(key), {})[key] = tensor
        for file, content in files.items():
            save_file(content, folder / file)
        if set(files) != {"model.safetensors"}:
            index = {"metadata": {}, "weight_map": {key: file_of(key) for key in renamed}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        if config is not None:
            content = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(content | config))
        return folder

    return write


@pytest.fixture
def model_hub(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """A hub in a thread: the folder of its models, its address, and what was asked of it."""
    asked: list[str] = []

    class Served(Hub):
        root = tmp_path / "hub"

        def log_message(self, *_):
            asked.append(f"{self.command} {self.path}")

    (Served.root / "models").mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Served.root / "models", f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()
