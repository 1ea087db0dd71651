"""What a training was, read from whatever is left of it: a recipe, a run, a model, a foreign script.

`read_target` gives one structure for all of them, a `Target` with its `Facts`; what the traps, the
comparison and the report say rests on it. Nothing is ever executed and no pickle is opened.
"""

from coltrain.reproduction.targets.facts import UNKNOWN, Fact, Facts
from coltrain.reproduction.targets.reading import read_recipe, read_target
from coltrain.reproduction.targets.target import Target

__all__ = ["UNKNOWN", "Fact", "Facts", "Target", "read_recipe", "read_target"]
