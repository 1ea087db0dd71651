"""A model that learns in every part, batches of uneven pages, and small runs."""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from small_pages import small_collection, small_page, small_query

from coltrain.data import Collection
from coltrain.model.adapter import ADAPTER_NAME, lora_layers
from coltrain.model.build import BuiltModel, build_for_training
from coltrain.recipe import Recipe, load_recipe
from coltrain.training import setup as setup_module
from coltrain.training.gradient_cache import Chunk
from coltrain.training.loop import Training


@pytest.fixture(scope="session")
def _float64_built() -> BuiltModel:
    built = build_for_training(load_recipe("tiny", ["lora.dropout=0.1"]), torch.device("cpu"))
    generator = torch.Generator().manual_seed(5)
    for layer in lora_layers(built.model).values():
        # As if trained: with B at zero the gradient of A would be zero, and go untested.
        layer.lora_B[ADAPTER_NAME].weight.data.normal_(std=0.02, generator=generator)
    built.model.double()
    return built


@pytest.fixture
def float64_built(_float64_built: BuiltModel) -> BuiltModel:
    """The tiny model in float64 with an adapter that is not zero and drops 10 %."""
    return copy.deepcopy(_float64_built)


@pytest.fixture
def uneven_chunks() -> Callable[..., Iterator[Chunk]]:
    """Makes the chunks of a global batch whose queries and pages differ in length."""

    def make(
        built: BuiltModel, num_queries: int, chunk_size: int, num_negatives: int = 0
    ) -> Iterator[Chunk]:
        preparer = built.preparer
        sides = [("query", 1), ("page", 1)] + [("negative", num_negatives)] * bool(num_negatives)
        for side, times in sides:
            for start in range(0, num_queries * times, chunk_size):
                numbers = range(start, min(start + chunk_size, num_queries * times))
                if side == "query":
                    inputs = preparer.collate_queries([small_query(number) for number in numbers])
                else:
                    shift = 0 if side == "page" else 100
                    pages = [preparer.prepare_page(small_page(shift + n)) for n in numbers]
                    inputs = preparer.collate_pages(pages)
                yield Chunk(side, tuple(str(number) for number in numbers), inputs)

    return make


@pytest.fixture(scope="session")
def small_data() -> dict[str, Collection]:
    """Data sets that recipes of these tests name."""
    return {
        "small-train": small_collection("small-train", 40),
        "small-twins": small_collection("small-twins", 6, copies=6),
        "small-test": small_collection("small-test", 6, first=200),
    }


@pytest.fixture
def use_small_data(
    small_data: dict[str, Collection], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Collection]:
    """`data.train=[small-train]` and its like find the small data sets; more may be put in."""
    known = dict(small_data)
    really = setup_module.load_collection

    def load(source, default_split: str) -> Collection:
        return known[source.path] if source.path in known else really(source, default_split)

    monkeypatch.setattr(setup_module, "load_collection", load)
    return known


SMALL = (
    "data.train=[small-train]",
    "eval.data=[]",
    "eval.every=null",
    "batch.global_size=8",
    "batch.chunk_size=4",
    "train.steps=3",
    "optimizer.warmup_steps=0",
)


def small_recipe(*overrides: str) -> Recipe:
    """`tiny` on small data: three steps of eight queries, without evaluation."""
    return load_recipe("tiny", [*SMALL, *overrides])


@pytest.fixture
def start(use_small_data, tmp_path: Path) -> Callable[..., Training]:
    """Makes a run of three small steps, changed by overrides; in a folder of its own each time."""
    folders = (tmp_path / f"run-{number}" for number in range(100))

    def make(*overrides: str, folder: Path | None = None, replace: bool = False) -> Training:
        recipe = small_recipe(*overrides)
        folder = folder or next(islice(folders, 1))
        return Training(recipe, folder, torch.device("cpu"), replace=replace)

    return make
