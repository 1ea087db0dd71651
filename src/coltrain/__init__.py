"""coltrain: train ColQwen2 on the GPU you have, evaluate it, learn why the number differs.

The public names load on first use, so that `import coltrain` costs nothing.

    maxsim, maxsim_paired    late-interaction scores of padded embeddings
    losses                   in-batch and hard-negative losses, pure functions
    load, Retriever          a model that encodes pages and queries
    measure                  nDCG, Recall, MRR and MAP of a ranking, per query
    load_recipe, Recipe      what a training run is
    Training                 a run: iterate over its events
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "coltrain.recipe",
    "Retriever": "coltrain.model.retriever",
    "Training": "coltrain.training.loop",
    "load": "coltrain.model.retriever",
    "load_recipe": "coltrain.recipe",
    "maxsim": "coltrain.late_interaction",
    "maxsim_paired": "coltrain.late_interaction",
    "measure": "coltrain.evaluation.measures",
}

__all__ = ["__version__", "losses", *_PUBLIC]

if TYPE_CHECKING:
    from coltrain import losses as losses
    from coltrain.evaluation.measures import measure as measure
    from coltrain.late_interaction import maxsim as maxsim
    from coltrain.late_interaction import maxsim_paired as maxsim_paired
    from coltrain.model.retriever import Retriever as Retriever
    from coltrain.model.retriever import load as load
    from coltrain.recipe import Recipe as Recipe
    from coltrain.recipe import load_recipe as load_recipe
    from coltrain.training.loop import Training as Training


# The module of maxsim is not called so: importing a submodule binds its name here, over a function.
def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "losses":
        return import_module("coltrain.losses")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'coltrain' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
