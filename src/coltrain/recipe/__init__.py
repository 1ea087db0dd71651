"""What a run is: the schema, YAML in and out, overrides, hashes, differences.

`published/` holds the recipes that ship with the package, each value with its source.
"""

from coltrain.recipe.effect import without_effect
from coltrain.recipe.identity import Difference, difference, full_hash, result_hash
from coltrain.recipe.listing import difference_rows, list_rows, show_text
from coltrain.recipe.reading import (
    load_recipe,
    recipe_from_mapping,
    recipe_from_yaml,
    shipped_names,
)
from coltrain.recipe.schema import (
    BatchSection,
    CheckpointSection,
    DataSection,
    EvalSection,
    HardNegativesSection,
    LoggingSection,
    LoraSection,
    LossSection,
    ModelSection,
    OptimizerSection,
    PrecisionSection,
    ProjectionSection,
    Recipe,
    TrainSection,
)
from coltrain.recipe.source import Source
from coltrain.recipe.template import Template, template_named
from coltrain.recipe.writing import as_mapping, to_yaml

__all__ = [
    "BatchSection",
    "CheckpointSection",
    "DataSection",
    "Difference",
    "EvalSection",
    "HardNegativesSection",
    "LoggingSection",
    "LoraSection",
    "LossSection",
    "ModelSection",
    "OptimizerSection",
    "PrecisionSection",
    "ProjectionSection",
    "Recipe",
    "Source",
    "Template",
    "TrainSection",
    "as_mapping",
    "difference",
    "difference_rows",
    "full_hash",
    "list_rows",
    "load_recipe",
    "recipe_from_mapping",
    "recipe_from_yaml",
    "result_hash",
    "shipped_names",
    "show_text",
    "template_named",
    "to_yaml",
    "without_effect",
]
