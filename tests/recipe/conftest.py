"""A small valid recipe as a mapping, for tests that change one thing in it."""

import copy

import pytest

from coltrain.recipe import as_mapping, load_recipe, recipe_from_mapping

_VALUES = as_mapping(load_recipe("tiny")) | {"sources": {}}


@pytest.fixture
def values():
    return copy.deepcopy(_VALUES)


@pytest.fixture
def with_values(values):
    """A function that makes a recipe in which some keys have other values."""

    def make(**changes):
        for path, value in changes.items():
            section, _, key = path.partition("__")
            if key:
                values[section][key] = value
            else:
                values[section] = value
        return recipe_from_mapping(values)

    return make
