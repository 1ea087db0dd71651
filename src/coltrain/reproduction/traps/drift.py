"""Traps of values and data that drifted from the published recipe under the same name."""

from dataclasses import replace

from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.trainer_state import ROWS
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown
from coltrain.reproduction.traps.published import (
    claimed,
    is_colqwen2,
    nearest,
    other_model,
    published_value,
)

_NUMBERS = {
    "optimizer.learning_rate": "optimizer.learning_rate",
    "optimizer.warmup_steps": "optimizer.warmup_steps",
    "optimizer.schedule": "optimizer.schedule",
    "optimizer.weight_decay": "optimizer.weight_decay",
    "train.epochs": "train.epochs",
    "pixels.max_visual_tokens": "model.max_visual_tokens",
    "lora.r": "lora.r",
    "lora.alpha": "lora.alpha",
    "lora.dropout": "lora.dropout",
    "optimizer.max_grad_norm": "optimizer.max_grad_norm",
    "loss.symmetric": "loss.symmetric",
}
PUBLISHED_ROWS = ROWS["colpali_train_set"]
_WHOLE = 0.9
"""Some rows may be held out to look at the loss on; as many as this share are to be left."""
_HARD_NAMES = ("hardneg", "_negs", "data-ir", "colpali-queries", "docmatix")


def values_drifted(target: Target) -> Outcome:
    """Trap 10: learning rate, warm-up, epochs, visual tokens or LoRA differ from the publication."""
    facts = target.facts
    edited = _edited(target)
    if edited is not None:
        return edited
    for key in ("lora.r", "lora.alpha", "lora.dropout", "optimizer.learning_rate"):
        for other in facts.others(key):
            both = facts[key].sure == other.sure == "stated" or key == "optimizer.learning_rate"
            if both and other.sure != "default" and _above(key, other.value, facts[key].value):
                return failed(
                    f"{key} {facts[key].value} and {other.value}",
                    "one value",
                    f"{facts[key].where}; {other.where}",
                )
    r, alpha = facts["lora.r"], facts["lora.alpha"]
    if isinstance(r.value, int) and isinstance(alpha.value, int | float) and r.value > 0:
        scale = alpha.value / r.value
        if not 0.5 <= scale <= 4:
            return failed(
                f"alpha / r = {alpha.value:g} / {r.value} = {scale:g}", "1: alpha 32, r 32", alpha
            )
    patterns = facts["lora.patterns"]
    if patterns.is_known and patterns.value and target.kind in ("model", "colpali-engine"):
        found = ", ".join(f"{name} {value}" for name, value in patterns.value.items())
        return failed(f"other ranks or scales of single modules: {found}", "none", patterns)
    if target.kind == "model":
        if not is_colqwen2(target):
            return passed(f"r {r.value}, alpha {alpha.value}", r.where)
        if r.value is not None and r.is_known and (r.value, alpha.value) != (32, 32):
            return failed(f"r {r.value}, alpha {alpha.value}", "r 32, alpha 32", r)
        return passed(f"r {r.value}, alpha {alpha.value}", r.where)
    if target.kind in ("sentence-transformers", "pylate", "transformers"):
        return passed("another library's own recipe")
    name = nearest(target)
    if name is None or _todays_script(target):
        return (
            passed("a recipe of its own")
            if target.recipe is not None or _todays_script(target)
            else (unknown("which published recipe is meant"))
        )
    differs = []
    steps_instead = facts.knows("train.steps") and facts["train.steps"].value is not None
    for fact_name, key in _NUMBERS.items():
        fact = facts[fact_name]
        if not fact.is_known or (
            fact_name == "train.epochs" and (steps_instead or fact.value is None)
        ):
            continue
        if fact_name.startswith("lora.") and fact.sure == "default":
            continue
        wanted = published_value(name, key)
        if fact.value != wanted and not _close(fact.value, wanted):
            differs.append((fact_name, fact, wanted))
    if steps_instead and claimed(target) and not _as_long(target, name):
        differs.append(("train.steps", facts["train.steps"], "epochs as published"))
    if not differs:
        return passed(f"as {name}")
    found = ", ".join(f"{key} {fact.value}" for key, fact, _ in differs)
    wanted_text = ", ".join(f"{wanted}" for *_, wanted in differs) + f", as {name}"
    return failed(found, wanted_text, differs[0][1])


def _as_long(target: Target, name: str) -> bool:
    """Whether a recipe's steps are the published epochs, give or take the last batch of each."""
    recipe = target.recipe
    if recipe is None or recipe.train.steps is None:
        return True
    epochs = published_value(name, "train.epochs")
    assert isinstance(epochs, int | float)  # of the recipes that ship
    wanted = epochs * PUBLISHED_ROWS / recipe.batch.global_size
    return abs(recipe.train.steps - wanted) <= epochs


def _above(key: str, other: object, stated: object) -> bool:
    """Whether two values contradict: a log's highest rate may be below the stated one only."""
    if not isinstance(other, int | float) or not isinstance(stated, int | float):
        return False
    if key == "optimizer.learning_rate":
        return other > 1.01 * stated
    return not _close(other, stated)


def _edited(target: Target) -> Outcome | None:
    """A run whose adapter or card says other settings than its recipe."""
    files = target.files or {}
    adapter = files.get("adapter_config.json")
    recipe = target.recipe
    if target.run is None or recipe is None:
        return None
    pairs: list[tuple[str, object, object, str]] = []
    if adapter:
        pairs += [
            ("r", adapter.get("r"), recipe.lora.r, "model/adapter_config.json"),
            (
                "lora_alpha",
                adapter.get("lora_alpha"),
                recipe.lora.alpha,
                "model/adapter_config.json",
            ),
            (
                "lora_dropout",
                adapter.get("lora_dropout"),
                recipe.lora.dropout,
                "model/adapter_config.json",
            ),
        ]
    for key, found, wanted, where in pairs:
        if found != wanted:
            return failed(f"{key} {found}", f"{wanted}, as the run's recipe says", where)
    from coltrain.recipe import recipe_from_yaml, result_hash

    recorded = target.run.fact("result_hash")
    if recorded and result_hash(recipe) != recorded:
        text = target.run.fact("recipe_yaml")
        detail = ""
        if text:
            from coltrain.recipe import difference

            original = recipe_from_yaml(text)
            detail = ", ".join(one.path for one in difference(original, recipe))[:200]
        return failed(
            f"a recipe whose hash is {result_hash(recipe)} {detail}".strip(),
            f"{recorded}, as run.json recorded",
            "run.json, recipe",
        )
    reached = [
        line.get("lr") for line in target.run.steps if isinstance(line.get("lr"), int | float)
    ]
    if reached and max(reached) > 1.01 * recipe.optimizer.learning_rate:
        return failed(
            f"a learning rate of {max(reached):g} in a step",
            f"at most {recipe.optimizer.learning_rate:g}",
            "metrics.jsonl, lr",
        )
    return None


def _todays_script(target: Target) -> bool:
    """colpali-engine's own script of today: softmax at 0.02 and its learning rate of 2e-4."""
    facts = target.facts
    return (
        target.kind == "colpali-engine"
        and facts.value("loss.name") == "softmax"
        and facts.value("optimizer.learning_rate") == 2e-4
        and facts.value("pixels.max_visual_tokens", 768) == 768
        and facts.value("train.epochs") == 5
    )


def _close(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= 1e-6 * abs(float(other))
    return False


def hard_negatives_not_published(target: Target) -> Outcome:
    """Trap 11: the hard-negative configuration, which is not how the published models were trained."""
    facts = target.facts
    loss, data = facts["loss.name"], facts["data.train"]
    names = [str(one) for one in data.value] if data.is_known and data.value else []
    mined = [one for one in names if any(part in one for part in _HARD_NAMES)]
    hard_loss = str(loss.value).endswith("hard_negatives")
    is_own = target.recipe is not None and claimed(target) is None
    if is_own:
        if hard_loss and not mined and _plain(names):
            outcome = failed(
                f"{loss.value} on {', '.join(names)}, which has no hard negatives",
                "data that names them, or the loss pairwise",
                loss,
            )
            return replace(outcome, blocks=False)
        return passed("a recipe of its own name")
    if (other := other_model(target)) is not None:
        return passed(f"{other}, whose published recipes are others")
    if hard_loss or facts.value("data.hard_negatives", False) or mined:
        found = f"{facts.value('loss.class')} on {', '.join(names) or 'data that is not known'}"
        return failed(
            found, "ColbertPairwiseCELoss on vidore/colpali_train_set", loss if hard_loss else data
        )
    if target.kind == "model" or not loss.is_known:
        return unknown("the loss and the data of the training")
    return passed(f"{loss.value}", loss.where)


def _plain(names: list[str]) -> bool:
    return bool(names) and all(
        "colpali_train_set" in one or one.startswith("tiny:") for one in names
    )


def other_data_same_name(target: Target) -> Outcome:
    """Trap 12: the `_detailed` mixture, another set or split, or rows that are not those recorded."""
    facts = target.facts
    if target.run is not None:
        changed = _data_changed(target)
        if changed is not None:
            return changed
    data = facts["data.train"]
    names = [str(one) for one in data.value] if data.is_known and data.value else []
    left = facts["data.left"]
    if left.is_known and other_model(target) is None:
        share = left.value if left.value <= 1 else left.value / PUBLISHED_ROWS
        if share < _WHOLE:
            found = f"{left.value:,} rows" if left.value > 1 else f"{100 * share:.0f} % of the rows"
            return failed(found, f"all {PUBLISHED_ROWS:,} of the training set", left)
    split = facts["data.split"]
    if str(split.value).partition("[")[0] in ("test", "validation") or _trains_on_test(target):
        where = split if split.is_known else data
        outcome = failed(f"trains on the split {split.value or 'test'}", "train", where)
        # A folder of one's own may well call its rows so; drawn pages have no split at all.
        is_own = any(one.startswith(("tiny:", ".", "/", "~")) for one in names)
        return replace(outcome, blocks=not is_own)
    detailed = [one for one in names if "detailed" in one]
    if target.kind in ("sentence-transformers", "pylate", "transformers") or other_model(target):
        if detailed and "colpali_train_set" in detailed[0]:
            return failed(detailed[0], "vidore/colpali_train_set", data)
        return passed(", ".join(names) or "data of its own", data.where)
    name = nearest(target)
    if not names:
        return unknown("which data was trained on")
    if detailed and name != "colqwen2-v0.1":
        return failed(detailed[0], "vidore/colpali_train_set (load_train_set)", data)
    if detailed and _new(target):
        return failed(f"{detailed[0]} with a later engine", "load_train_set", data)
    if target.recipe is not None and claimed(target) is not None:
        wanted = [source.path for source in recipe_data(name)]
        if names != wanted:
            return failed(", ".join(names), f"{', '.join(wanted)}, as {name}", data)
    if target.kind == "colpali-engine" and name is not None and not _is_published_loader(names):
        return failed(", ".join(names), "load_train_set: vidore/colpali_train_set", data)
    return passed(", ".join(names), data.where)


def recipe_data(name: str | None) -> tuple:
    """Training sources of a published recipe."""
    return published_value(name, "data.train") if name else ()  # type: ignore[return-value]


def _is_published_loader(names: list[str]) -> bool:
    known = ("load_train_set", "colpali_train_set", "ir_negs", "_ir", "hardneg", "data-ir")
    if any("docmatix" in name for name in names):
        return False
    return all(any(part in name for part in known) for name in names)


def _new(target: Target) -> bool:
    return target.facts.value("versions.colpali-engine", Versions()).all_from(0, 3, 11)


def _trains_on_test(target: Target) -> bool:
    recipe = target.recipe
    if recipe is None:
        return False
    return any(
        source.split in ("test", "validation") or source.path == "tiny:test"
        for source in recipe.data.train
    )


def _data_changed(target: Target) -> Outcome | None:
    """A run's fingerprints, in run.json and in data_check.json, of one data set."""
    run = target.run
    assert run is not None
    recorded = run.fact("data.train", []) or []
    for place, data in enumerate(recorded):
        checks = run.checks.get("train", [])
        check = checks[place] if place < len(checks) else data.get("check") or {}
        for other, where in (
            (check, "data_check.json"),
            (data.get("check") or {}, "run.json, check"),
        ):
            if other.get("hash") and data.get("hash") and other["hash"] != data["hash"]:
                return failed(
                    f"{data.get('name')}: hash {data['hash'][:16]}",
                    f"{other['hash'][:16]}, as in {where}",
                    "run.json, data.train",
                )
        counted = sum((data.get("rows_per_source") or {}).values())
        if counted and data.get("rows") is not None and counted != data["rows"]:
            return failed(
                f"{data['rows']} rows", f"{counted}, the sum of its sources", "run.json, data.train"
            )
        contents = (check.get("contents") or {}).get("rows") or {}
        if contents.get("number") is not None and contents["number"] != data.get("rows"):
            return failed(
                f"{data.get('rows')} rows",
                f"{contents['number']}, as checked",
                "run.json, data.train",
            )
    recipe = target.recipe
    if recipe is not None and recorded:
        asked = [source.path for source in recipe.data.train]
        named = [str(one.get("name", "")) for one in recorded]
        if (
            len(asked) == len(named)
            and all(
                one.startswith("tiny:") and other != one
                for one, other in zip(asked, named, strict=True)
                if other.startswith("tiny:")
            )
            and asked != named
            and all(one.startswith("tiny:") for one in named)
        ):
            return failed(
                ", ".join(named), f"{', '.join(asked)}, as the recipe says", "run.json, data.train"
            )
    return None


def lora_dtype(target: Target) -> Outcome:
    """Trap 16: adapters, and the optimiser's averages, in bfloat16 where published and float32 today."""
    facts = target.facts
    if target.recipe is not None:
        recipe = target.recipe
        kind = recipe.lora.dtype
        if target.run is not None:
            trained = sorted((target.run.fact("parameters.by_dtype.trainable", {}) or {}).keys())
            if trained and recipe.projection.train != "full" and kind not in trained:
                return failed(
                    f"trained in {', '.join(trained)}",
                    f"{kind}, as its recipe says",
                    "run.json, parameters.by_dtype",
                )
        name = claimed(target)
        if name is not None:
            wanted = published_value(name, "lora.dtype")
            if kind != wanted:
                return failed(
                    f"adapter in {kind}",
                    f"{wanted}, as {name} was trained",
                    facts["precision.lora"],
                )
        if kind == "bfloat16" and recipe.model.dtype != "bfloat16":
            return failed(
                f"adapter and AdamW's averages in bfloat16 over a base in {recipe.model.dtype}",
                "float32",
                facts["precision.lora"],
            )
        return passed(f"adapter in {kind}, stated", facts["precision.lora"].where)
    peft = facts.value("versions.peft", Versions())
    engine = facts.value("versions.colpali-engine", Versions())
    lora = facts["precision.lora"]
    if lora.is_known and lora.value == "float16" and target.kind == "colpali-engine":
        return failed(f"adapter cast to {lora.value}", "float32", lora)
    cast = facts["precision.cast_whole_model"]
    if lora.value == "bfloat16" and target.run is None and not cast.is_known:
        return failed(
            "adapter and AdamW's averages in bfloat16 by hand",
            "float32, as peft keeps them since 0.12",
            lora,
        )
    if target.kind == "colpali-engine" and facts.value("precision.weights") == "bfloat16":
        if engine.all_before(0, 3, 6) and peft.all_from(0, 12):
            return failed(
                f"peft {peft} keeps adapters in float32 over bfloat16; colpali-engine {engine} pinned 0.11",
                "peft 0.11, whose adapters are bfloat16",
                facts["versions.peft"],
            )
        if peft.first is None and peft.last is None:
            return unknown(
                "the version of peft: 0.11 stored adapters as the base, later ones in float32"
            )
    return passed(f"peft {peft}", facts["versions.peft"].where)
