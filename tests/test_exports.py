"""The public names, and what it costs to import them."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import coltrain

COMMAND = Path(sys.executable).with_name("coltrain")


def test_the_public_names_are_these():
    assert sorted(coltrain.__all__) == [
        "Recipe",
        "Retriever",
        "Training",
        "__version__",
        "load",
        "load_recipe",
        "losses",
        "maxsim",
        "maxsim_paired",
        "measure",
    ]
    assert dir(coltrain) == sorted(coltrain.__all__)


def test_every_public_name_is_there_and_says_what_it_is_for():
    for name in coltrain.__all__:
        assert getattr(coltrain, name) is not None
        if name != "__version__":
            assert getattr(coltrain, name).__doc__
    for name in coltrain.losses.LOSSES:
        assert callable(getattr(coltrain.losses, name))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'coltrain' has no attribute 'train_model'"):
        _ = coltrain.train_model


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "first", ["coltrain.losses", pytest.param("coltrain.Training", marks=pytest.mark.slow)]
)
def test_maxsim_is_a_function_whatever_was_used_before_it(first):
    """A submodule of the same name would take its place when another module imports it."""
    assert run(f"import coltrain; {first}; print(callable(coltrain.maxsim))") == "True"


@pytest.mark.parametrize("code", ["import coltrain", "import coltrain.cli, coltrain.console"])
def test_importing_loads_nothing_heavy(code):
    heavy = "('torch', 'pydantic', 'transformers', 'datasets', 'numpy', 'PIL', 'yaml')"
    found = run(f"import sys; {code}; print([name for name in {heavy} if name in sys.modules])")
    assert found == "[]"


def fastest(*command: str) -> float:
    """Processor seconds of the fastest of several runs, which a busy machine hardly changes.

    Neither command waits for anything, so on an idle machine they are the seconds that pass.
    """
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def test_importing_costs_next_to_nothing():
    bare = fastest(sys.executable, "-c", "pass")
    assert fastest(sys.executable, "-c", "import coltrain") - bare < 0.15


def test_help_is_there_at_once():
    assert fastest(str(COMMAND), "--help") < 0.5
