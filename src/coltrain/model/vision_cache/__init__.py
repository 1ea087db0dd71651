"""Visual tokens of pages kept on disk: a frozen vision tower sees each page once, not once an epoch.

    identity.py   what visual tokens depend on beside the page: tower, preprocessing, arithmetic
    store.py      the files: segments, their index, the bound, the check on reading
    features.py   pages by what the store knows: looked up while they are read, made where missing
    kept.py       what a folder holds: to look at, to check, to delete

Pixels of resized pages are kept in the same files (`coltrain.model.page_cache`).
docs/how-to/vision-cache.md says how a run uses it.
"""

from coltrain.model.vision_cache.features import Counts, LookedUp, PageLookup, VisionFeatures
from coltrain.model.vision_cache.identity import processor_hash, vision_identity
from coltrain.model.vision_cache.kept import check_kept, clear, kept_in
from coltrain.model.vision_cache.store import (
    DTYPES,
    GIB,
    FeatureStore,
    default_folder,
    size_of,
)

__all__ = [
    "DTYPES",
    "GIB",
    "Counts",
    "FeatureStore",
    "LookedUp",
    "PageLookup",
    "VisionFeatures",
    "check_kept",
    "clear",
    "default_folder",
    "kept_in",
    "processor_hash",
    "size_of",
    "vision_identity",
]
