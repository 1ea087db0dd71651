"""The cache of resized pages that a recipe asks for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coltrain.errors import RunError
from coltrain.model.page_cache import PageCache, PageCounts, default_pages_folder, page_identity
from coltrain.model.patches import is_served
from coltrain.model.vision_cache import FeatureStore
from coltrain.training.setup import Setup

FULL_PAGES = (
    "the cache of resized pages is full: what it holds is used, and the other pages are decoded and "
    "resized in every epoch"
)


def open_page_cache(setup: Setup, earlier: Mapping[str, Any] | None = None) -> PageCache | None:
    """The cache of a run; None where the recipe names none, or visual tokens are kept.

    Args:
        setup: The run's.
        earlier: What run.json says of it, of a run that goes on.

    Raises:
        RunError: [page-cache-of-other-processor]
        ModelError: [cannot-write-vision-cache]
    """
    data, preparer = setup.recipe.data, setup.built.preparer
    settings = data.page_cache
    if settings.path is None or data.vision_cache.path is not None:
        return None
    if not is_served(preparer.image_processor):
        raise RunError(
            "page-cache-of-other-processor",
            "the base's image processor gives no pixels that could be kept as uint8.",
            where="data.page_cache.path",
            received=type(preparer.image_processor).__name__,
            expected="Qwen2-VL's, which resizes, rescales and normalises",
            suggestion="data.page_cache.path=null",
        )
    folder = Path(settings.path).expanduser() if settings.path != "auto" else default_pages_folder()
    store = FeatureStore(folder, page_identity(preparer, data.decoding), settings.max_gib)
    counts = None
    if earlier:
        counts = PageCounts(**{name: earlier[name] for name in PageCounts.__dataclass_fields__})
    return PageCache(store, setup.collection, preparer, counts)
