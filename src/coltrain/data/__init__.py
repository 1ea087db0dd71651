"""Pages and queries: sources, fingerprints, the batch plan, who may be whose negative."""

from coltrain.data.collection import Collection, Query, Row, concatenate
from coltrain.data.negatives import NegativeMask, negative_mask
from coltrain.data.plan import BatchPlan
from coltrain.data.sources import load_collection

__all__ = [
    "BatchPlan",
    "Collection",
    "NegativeMask",
    "Query",
    "Row",
    "concatenate",
    "load_collection",
    "negative_mask",
]
