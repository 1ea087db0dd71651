"""Facts of one of our recipes: every value stated, by its key."""

from coltrain.recipe import Recipe
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.reproduction.targets.facts import Facts

_SAME = (
    "batch.global_size",
    "loss.name",
    "loss.temperature",
    "loss.normalize",
    "loss.symmetric",
    "loss.padding",
    "lora.r",
    "lora.alpha",
    "lora.dropout",
    "lora.init",
    "lora.target_modules",
    "model.base",
    "model.revision",
    "model.attention",
    "model.activation_checkpointing",
    "model.start_from",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.max_grad_norm",
    "optimizer.eps",
    "precision.compute",
    "projection.std",
    "train.epochs",
    "train.steps",
    "train.seed",
)


def put_recipe(recipe: Recipe, facts: Facts, where: str) -> None:
    """Add all that a recipe says; gradient caching makes a group of negatives the candidates."""

    def put(name: str, value: object, key: str) -> None:
        facts.put(name, value, f"{where}, {key}")

    for key in _SAME:
        section, _, name = key.partition(".")
        put(key, getattr(getattr(recipe, section), name), key)
    batch, loss = recipe.batch, recipe.loss
    group = batch.global_size if batch.negatives == "global" else batch.negatives
    reads_hard = loss.name in HARD_NEGATIVE_LOSSES or recipe.hard_negatives.shared
    own = recipe.hard_negatives.per_query if reads_hard else 0
    put("batch.per_device", batch.global_size, "batch.global_size")
    put("batch.accumulation", 1, "batch.chunk_size")
    put("batch.cached", True, "batch.chunk_size")
    put("batch.mini_batch", batch.chunk_size, "batch.chunk_size")
    put("batch.shared", batch.negatives == "global", "batch.negatives")
    put("batch.candidates", group, "batch.negatives")
    # A hard-negative loss may leave the other pages of the batch out: then only its own count.
    takes_batch = loss.name not in HARD_NEGATIVE_LOSSES or loss.in_batch_weight > 0
    in_batch = group - 1 if takes_batch else 0
    put("batch.negatives", in_batch + own, "batch.negatives, loss.in_batch_weight")
    put("loss.class", loss.name, "loss.name")
    put("loss.in_batch_weight", loss.in_batch_weight if own else 1.0, "loss.in_batch_weight")
    put("loss.smooth_max", False, "loss.name")
    put("loss.filter", loss.filter_threshold is not None, "loss.filter_threshold")
    put(
        "lora.modules_to_save",
        ["custom_text_proj"] if recipe.projection.train == "full" else [],
        "projection.train",
    )
    put(
        "projection.start",
        "drawn" if recipe.projection.start == "normal" else "from_base",
        "projection.start",
    )
    put("projection.saved", True, "projection.start")
    put("precision.weights", recipe.model.dtype, "model.dtype")
    put("precision.lora", recipe.lora.dtype, "lora.dtype")
    put(
        "precision.moments",
        recipe.lora.dtype if recipe.optimizer.name == "adamw" else "8 bit",
        "lora.dtype",
    )
    put("precision.scaler", recipe.precision.compute == "float16", "precision.compute")
    for key in ("name", "query_prefix", "query_suffix", "page_prompt"):
        put(f"template.{key}", getattr(recipe.model.template, key), f"model.template.{key}")
    put("template.padding_side", "left", "model.template")
    put("pixels.max_visual_tokens", recipe.model.max_visual_tokens, "model.max_visual_tokens")
    put("data.train", [source.path for source in recipe.data.train], "data.train")
    put("data.revision", [source.revision for source in recipe.data.train], "data.train")
    put("data.hard_negatives", reads_hard, "loss.name")
    put(
        "batch.num_sources",
        len(recipe.data.train) if recipe.data.batches == "one_source" else 1,
        "data.batches",
    )
    put("eval.data", [source.path for source in recipe.eval.data], "eval.data")
