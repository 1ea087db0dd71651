"""For coltrain: the adapter with its projection and card, or one merged network with a card.

The merged folder is colpali-engine's layout; `coltrain.json` beside it carries the template.
"""

from pathlib import Path

from coltrain.model.build import BuiltModel
from coltrain.model.folder import save_model
from coltrain.model.locate import TINY


def write_adapter(built: BuiltModel, folder: Path) -> list[str]:
    """A folder for `coltrain.load`, as a run has it; the base is named, with its hash.

    Returns:
        What a user should know.
    """
    save_model(built, folder)
    if built.base == TINY:
        return ["the base ships with coltrain"]
    return [f"the base is {built.base}, checked by its hash when the model is loaded"]
