"""Pages and queries: sources, fingerprints, the batch plan, who may be whose negative."""

from coltrain.data.check import Checked, check_collection
from coltrain.data.collection import Collection, Query, Row, concatenate
from coltrain.data.findings import Finding
from coltrain.data.hard_negatives import NegativeCounts, choose_negatives, require_negatives
from coltrain.data.mixture import MixturePlan
from coltrain.data.negatives import NegativeMask, negative_mask
from coltrain.data.plan import BatchPlan
from coltrain.data.sources import load_collection
from coltrain.data.writing import MinedNegative, write_collection

__all__ = [
    "BatchPlan",
    "Checked",
    "Collection",
    "Finding",
    "MinedNegative",
    "MixturePlan",
    "NegativeCounts",
    "NegativeMask",
    "Query",
    "Row",
    "check_collection",
    "choose_negatives",
    "concatenate",
    "load_collection",
    "negative_mask",
    "require_negatives",
    "write_collection",
]
