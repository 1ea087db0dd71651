"""A model in the form that another library reads, with the same embeddings.

One file for each target. Whatever the target, the projection travels with the model, the template is
said in `coltrain.json` and in the model card, and what was written is read back and compared on a
probe before anyone is told that it is there.
"""

from coltrain.model.export.exporting import TARGETS, Exported, export_model

__all__ = ["TARGETS", "Exported", "export_model"]
