"""What all tests share: the tiny base, loaded once and copied."""

import os

# Before torch is imported: the suite must behave on a busy machine as on an idle one, and no test
# may reach for the hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # each test process has one core
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import copy

import pytest
import torch
from typed_command import run_typed

from coltrain import hub
from coltrain.model.build import BuiltModel, build_for_training
from coltrain.model.retriever import Retriever, load
from coltrain.recipe import Recipe, load_recipe


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """The shipped recipe of the embedded default."""
    return load_recipe("tiny")


@pytest.fixture(scope="session")
def _tiny_built(tiny_recipe: Recipe) -> BuiltModel:
    return build_for_training(tiny_recipe, torch.device("cpu"))


@pytest.fixture
def tiny_built(_tiny_built: BuiltModel) -> BuiltModel:
    """The tiny base with a fresh adapter, ready to train; a copy of its own for each test."""
    return copy.deepcopy(_tiny_built)


@pytest.fixture(scope="session")
def tiny_retriever() -> Retriever:
    """The tiny base as `coltrain.load` gives it; not to be changed."""
    return load("tiny")


@pytest.fixture
def coltrain(monkeypatch, capsys, tmp_path):
    """Runs a command in this process, in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    yield lambda *arguments: run_typed(monkeypatch, capsys, arguments)
    hub.show_downloads(None)
