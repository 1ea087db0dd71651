"""Settings that a recipe spells out and a run never reads."""

from __future__ import annotations

from coltrain.recipe.schema import (
    HARD_NEGATIVE_LOSSES,
    CheckpointSection,
    DataSection,
    HardNegativesSection,
    LossSection,
    PageCacheSection,
    PrecisionSection,
    ProjectionSection,
    Recipe,
    VisionCacheSection,
)


def without_effect(recipe: Recipe) -> list[str]:
    """One sentence for each setting that was changed from its default and has no effect.

    A run warns with them: who sets `loss.in_batch_weight` means something by it.
    """
    loss, projection = recipe.loss, recipe.projection
    hard_negatives, data = recipe.hard_negatives, recipe.data
    reads_negatives = loss.name in HARD_NEGATIVE_LOSSES or hard_negatives.shared
    checks = [
        (
            projection.start != "normal" and _changed(projection, "std"),
            "projection.std is read with projection.start = normal only",
        ),
        (
            loss.name not in HARD_NEGATIVE_LOSSES and _changed(loss, "in_batch_weight"),
            f"loss.in_batch_weight is read by {' and '.join(HARD_NEGATIVE_LOSSES)} only",
        ),
        (
            loss.filter_threshold is None and _changed(loss, "filter_factor"),
            "loss.filter_factor is read with loss.filter_threshold only",
        ),
        *(
            (
                not reads_negatives and _changed(hard_negatives, key),
                f"hard_negatives.{key} is read by {' and '.join(HARD_NEGATIVE_LOSSES)}, "
                "or with hard_negatives.shared, only",
            )
            for key in ("per_query", "among_first")
        ),
        (
            len(data.train) == 1 and _changed(data, "batches"),
            "data.batches is read with several sources under data.train only",
        ),
        (
            len(data.train) == 1 and data.train[0].weight is not None,
            "a source's weight is read with several sources under data.train only",
        ),
        (
            any(source.weight is not None for source in recipe.eval.data),
            "a source's weight is read under data.train only",
        ),
        (
            data.vision_cache.path is None and _changed(data.vision_cache, "max_gib"),
            "data.vision_cache.max_gib is read with data.vision_cache.path only",
        ),
        (
            data.page_cache.path is None and _changed(data.page_cache, "max_gib"),
            "data.page_cache.max_gib is read with data.page_cache.path only",
        ),
        (
            data.page_cache.path is not None and data.vision_cache.path is not None,
            "data.page_cache is not read with data.vision_cache.path, which needs no pixels of a "
            "page that it has",
        ),
        (
            recipe.model.start_from is None and recipe.model.start_from_revision is not None,
            "model.start_from_revision is read with model.start_from only",
        ),
        (
            not recipe.eval.data and recipe.eval.every is not None,
            "eval.every is read with eval.data only",
        ),
        (
            recipe.precision.compute in ("float32", "bfloat16")
            and _changed(recipe.precision, "keep_float32"),
            "precision.keep_float32 is read with precision.compute = float16 only",
        ),
        (
            recipe.checkpoint.every is None and _changed(recipe.checkpoint, "keep"),
            "checkpoint.keep is read with checkpoint.every only",
        ),
    ]
    return [sentence for is_unread, sentence in checks if is_unread]


def _changed(
    section: ProjectionSection
    | LossSection
    | HardNegativesSection
    | DataSection
    | PrecisionSection
    | VisionCacheSection
    | PageCacheSection
    | CheckpointSection,
    key: str,
) -> bool:
    return getattr(section, key) != type(section).model_fields[key].default
