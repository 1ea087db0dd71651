"""What keeping visual tokens on disk costs and saves, before anything is computed."""

from dataclasses import asdict, dataclass

from coltrain.model.build import DTYPES
from coltrain.planning import lengths
from coltrain.planning.bases import base_config
from coltrain.planning.footprint import build_on_meta
from coltrain.planning.memory import GIB
from coltrain.planning.plan import Plan, adapt, passes_of

TERA = 1e12


@dataclass(frozen=True)
class VisionCachePlan:
    """`data.vision_cache` for a recipe.

    Attributes:
        is_used: Whether the recipe asks for it.
        pages: Training pages; rows, where several may share a page.
        epochs: Passes over them.
        mib_per_page: On disk, for a page that fills the budget.
        gib: On disk, for all pages.
        fits: Whether `max_gib` holds them.
        vision_share: The vision tower's share of a page's operations in a step, without the cache.
        teraflop_per_page: Of a page in a step, without the cache.
        teraflop_per_page_found: The same where its visual tokens are found.
        saved_share: Of the operations for pages over all epochs of one run that starts with an empty
            cache; a further run over the same base saves `vision_share`.
    """

    is_used: bool
    pages: int
    epochs: float
    mib_per_page: float
    gib: float
    fits: bool
    vision_share: float
    teraflop_per_page: float
    teraflop_per_page_found: float
    saved_share: float

    def as_document(self) -> dict[str, float | int | bool]:
        """For JSON."""
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def vision_cache_plan(plan: Plan, rows: int | None = None) -> VisionCachePlan | None:
    """Cost and saving; None where the vision tower is trained, and nothing can be kept.

    Args:
        plan: The recipe on a card.
        rows: Training rows, where the data set is not known here.

    Raises:
        UsageError: [unknown-length]
    """
    recipe = adapt(plan.recipe, plan.changes)
    config, setting = base_config(recipe.model.base), plan.fit.setting
    if not build_on_meta(config, recipe.projection.dim, setting).vision_is_frozen:
        return None
    if rows is None:
        rows = sum(lengths.num_rows(source, "train") for source in recipe.data.train)
    epochs = recipe.train.epochs or recipe.train.steps * recipe.batch.global_size / rows
    settings = recipe.data.vision_cache
    stored_as = DTYPES[recipe.precision.compute if settings.dtype == "exact" else settings.dtype]
    page_bytes = plan.sizes.visual_tokens * config.text_config.hidden_size * stored_as.itemsize
    passes = passes_of(recipe, config, setting, plan.sizes, 1)
    found = passes.first.flops + passes.second.flops
    whole = passes.vision.flops + found
    share = passes.vision.flops / whole
    return VisionCachePlan(
        is_used=settings.path is not None,
        pages=rows,
        epochs=epochs,
        mib_per_page=page_bytes / 2**20,
        gib=rows * page_bytes / GIB,
        fits=rows * page_bytes / GIB <= settings.max_gib,
        vision_share=share,
        teraflop_per_page=whole / TERA,
        teraflop_per_page_found=found / TERA,
        saved_share=share * max(0.0, epochs - 1) / max(1.0, epochs),
    )
