"""Facts of a colpali-engine training, from what its YAML or its script builds."""

from collections.abc import Sequence
from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN, Facts
from coltrain.reproduction.targets.huggingface import (
    datasets_of,
    find,
    from_pretrained,
    lora_call,
    name_of,
    number,
    precision,
    training_arguments,
    truth,
)
from coltrain.reproduction.targets.own_loop import put_own_loop
from coltrain.reproduction.targets.target import Mention
from coltrain.reproduction.targets.versions import Versions

LOSSES = {
    "ColbertLoss": "softmax",
    "ColbertPairwiseCELoss": "pairwise",
    "ColbertNegativeCELoss": "softmax_hard_negatives",
    "ColbertPairwiseNegativeCELoss": "pairwise_hard_negatives",
    "ColbertSigmoidLoss": "sigmoid",
    "BiEncoderLoss": "bi",
    "BiPairwiseCELoss": "bi",
    "BiNegativeCELoss": "bi",
    "BiPairwiseNegativeCELoss": "bi",
    "BiPairedEncoderLoss": "bi",
    "BiSigmoidLoss": "bi",
}
# Positional arguments since 0.3.11, after which `temperature, normalize_scores, …` come first.
_PLACES = ("temperature", "normalize_scores", "use_smooth_max", "pos_aware_negative_filtering")
_MODEL_CLASSES = ("ColQwen2", "ColPali", "ColQwen2_5", "ColIdefics3", "BiQwen2", "BiPali")
GATHERS_FROM = (0, 3, 11)
"""First version that shares documents over processes, and normalises the pairwise loss."""
NO_PREFIX_FROM = (0, 3, 13)
"""First version that reads a query without `Query: `."""


def is_engine(calls: Sequence[Call], imports: str) -> bool:
    """Whether what a configuration builds is colpali-engine's."""
    names = ("ColModelTrainingConfig", "ContrastiveTrainer", "ColModelTraining", *LOSSES)
    return bool(find(calls, *names)) or "colpali_engine" in imports


def put_engine(calls: Sequence[Call], facts: Facts, mentions: Sequence[Mention]) -> list[str]:
    """Add what a configuration says.

    Args:
        calls: All that it builds.
        facts: Gets it.
        mentions: Names that a script calls.

    Returns:
        What was not understood.
    """
    not_read: list[str] = []
    config = (find(calls, "ColModelTrainingConfig") or [None])[-1]
    trainer = (find(calls, "ContrastiveTrainer") or [None])[-1]
    _era(calls, config, facts)
    arguments = _arguments(calls, config, trainer)
    if arguments is not None:
        training_arguments(arguments, facts)
    elif config is not None:
        not_read.append(f"{config.where}: its training arguments")
    _lora(calls, config, facts)
    _loss(calls, config, trainer, facts, not_read)
    loaded_model(calls, facts)
    if config is not None and truth(config.argument("add_suffix", default=True)) is False:
        facts.put("template.query_suffix", "", f"{config.where}, add_suffix")
    _processor(calls, facts, mentions)
    _data(calls, config, trainer, facts)
    if config is None and trainer is None:
        put_own_loop(calls, facts, mentions)
    for call in find(calls, "init_process_group"):
        backend = call.argument("backend", 0, "nccl")
        facts.put("launch.backend", backend, call.where)
    return not_read


def _era(calls: Sequence[Call], config: Call | None, facts: Facts) -> None:
    """The versions whose form a configuration has: keys came and went with them."""
    loaders = from_pretrained(calls)
    first, last, where = (0, 3, 1), None, ""
    if config is not None:
        where = config.where
        if config.has("add_suffix"):
            last = (0, 3, 3)
        elif config.has("dataset_loading_func") or config.has("eval_dataset_loader"):
            last = (0, 3, 10)
        elif config.has("train_dataset"):
            first = GATHERS_FROM
    if find(calls, "ColPaliEngineDataset"):
        first, where = GATHERS_FROM, where or "ColPaliEngineDataset"
    for _, call in loaders:
        if call.has("max_num_visual_tokens"):
            first = max(first, (0, 3, 9))
        if call.has("num_image_tokens"):
            first, last = max(first, (0, 3, 4)), (0, 3, 8)
    if where and (first > (0, 3, 1) or last is not None) and (last is None or first <= last):
        facts.put(
            "versions.colpali-engine",
            Versions(first, last),
            f"{where}: keys of these versions",
            "derived",
        )


def _arguments(calls: Sequence[Call], config: Call | None, trainer: Call | None) -> Call | None:
    for owner, key in ((config, "tr_args"), (trainer, "args")):
        if owner is not None and isinstance(owner.argument(key), Call):
            return owner.argument(key)
    found = [call for call in calls if call.last.endswith("TrainingArguments")]
    return found[-1] if found else None


def _lora(calls: Sequence[Call], config: Call | None, facts: Facts) -> None:
    given = config.argument("peft_config", default=None) if config is not None else UNKNOWN
    found = find(calls, "LoraConfig")
    chosen = given if isinstance(given, Call) else (found[-1] if found else None)
    if chosen is not None and given is not None:
        lora_call(chosen, facts)
    elif given is None and config is not None:
        facts.put("lora.r", None, f"{config.where}: no peft_config")
    start = UNKNOWN
    if config is not None:
        start = config.argument("pretrained_peft_model_name_or_path", default=None)
        facts.put("model.start_from", start, f"{config.where}, pretrained_peft_model_name_or_path")


def _loss(
    calls: Sequence[Call],
    config: Call | None,
    trainer: Call | None,
    facts: Facts,
    not_read: list[str],
) -> None:
    given: Any = UNKNOWN
    for owner in (config, trainer):
        if owner is not None and owner.has("loss_func"):
            given = owner.argument("loss_func")
    found = [call for call in calls if call.last in LOSSES]
    if isinstance(given, Call):
        loss = given
    elif found:
        loss = found[-1]
    elif config is not None and not config.has("loss_func"):
        loss = Call("ColbertLoss", where=f"{config.where} leaves the loss out")
    else:
        not_read.append("the loss")
        return
    if loss.last not in LOSSES:
        facts.put("loss.class", loss.last, loss.where)
        not_read.append(f"{loss.where}: a loss of its own, {loss.last}")
        return
    name = LOSSES[loss.last]
    facts.put("loss.class", loss.last, loss.where)
    facts.put("loss.name", name, loss.where)
    engine = facts.value("versions.colpali-engine", Versions())
    # 0.3.9 and 0.3.10 already had the new arguments in ColbertLoss alone.
    is_old = engine.all_before(*GATHERS_FROM) and not loss.kwargs and not loss.args
    is_new = engine.all_from(*GATHERS_FROM)

    def argument(key: str) -> Any:
        return loss.argument(key, _PLACES.index(key) if key in _PLACES else None)

    temperature = {"pairwise": 1.0}.get(name, 0.02) if is_new else 1.0 if is_old else UNKNOWN
    normalize = True if is_new else False if is_old else UNKNOWN
    for key, fact, default, read in (
        ("temperature", "loss.temperature", temperature, number),
        ("normalize_scores", "loss.normalize", normalize, truth),
        ("use_smooth_max", "loss.smooth_max", False, truth),
        ("pos_aware_negative_filtering", "loss.filter", False, truth),
    ):
        value = argument(key)
        if value is not UNKNOWN or loss.has(key):
            facts.put(fact, read(value), f"{loss.where}, {key}")
        elif default is not UNKNOWN and not loss.is_open:
            facts.put(fact, default, f"{loss.where} leaves {key} out, engine {engine}", "default")
    if name.endswith("hard_negatives"):
        _in_batch(loss, facts, is_old, is_new)
    facts.put("loss.padding", "zero", "colpali-engine's scores", "derived")
    symmetric = trainer.argument("compute_symetric_loss", default=False) if trainer else False
    facts.put("loss.symmetric", truth(symmetric), trainer.where if trainer else loss.where)


def _in_batch(loss: Call, facts: Facts, is_old: bool, is_new: bool) -> None:
    for key in ("in_batch_term_weight", "in_batch_term"):
        if loss.has(key):
            value = loss.argument(key)
            weight = number(value) if key.endswith("weight") else 0.5 * bool(truth(value))
            facts.put("loss.in_batch_weight", weight, f"{loss.where}, {key}")
            return
    if is_new:
        facts.put("loss.in_batch_weight", 0.5, f"{loss.where} leaves it out", "default")
    elif is_old:
        where = f"{loss.where} leaves in_batch_term out, which was off"
        facts.put("loss.in_batch_weight", 0.0, where, "default")


def loaded_model(calls: Sequence[Call], facts: Facts) -> None:
    """Class, base, dtype and kernel of the model that a script loads, and casts of the whole of it."""
    for kind, call in from_pretrained(calls):
        if "Processor" in kind or not kind.startswith(("Col", "Bi", "Auto", "Qwen", "PeftModel")):
            continue
        if kind.startswith(("AutoTokenizer", "AutoProcessor", "PeftModel")):
            continue
        facts.put("model.class", kind, call.where)
        facts.put("model.base", name_of(call), call.where)
        facts.put("model.revision", call.argument("revision", default=None), call.where)
        dtype = precision(call.argument("torch_dtype", default=call.argument("dtype")))
        if (
            dtype is UNKNOWN
            and not call.is_open
            and not call.has("torch_dtype")
            and not call.has("dtype")
        ):
            facts.put(
                "precision.weights", "float32", f"{call.where} leaves torch_dtype out", "default"
            )
        else:
            facts.put("precision.weights", dtype, f"{call.where}, torch_dtype")
        if call.has("attn_implementation"):
            kernel = call.argument("attn_implementation")
            facts.put("model.attention", kernel, f"{call.where}, attn_implementation")
    for call in calls:
        on_model = call.last in ("half", "bfloat16") or (
            call.last == "to"
            and any(
                precision(one) in ("float16", "bfloat16")
                for one in [*call.args, *call.kwargs.values()]
            )
        )
        if (
            on_model
            and isinstance(call.on, Call)
            and call.on.last
            in (
                "from_pretrained",
                "get_peft_model",
                "to",
                "cuda",
                "AllPurposeWrapper",
                "half",
                "train",
                "eval",
                "requires_grad_",
                "merge_and_unload",
            )
        ):
            facts.put("precision.cast_whole_model", call.last, call.where)
            kind = {"half": "float16", "bfloat16": "bfloat16"}.get(call.last)
            kind = kind or next(
                p for p in map(precision, [*call.args, *call.kwargs.values()]) if p is not UNKNOWN
            )
            facts.put("precision.weights", kind, call.where, "told")
            facts.put("precision.lora", kind, call.where)


def _processor(calls: Sequence[Call], facts: Facts, mentions: Sequence[Mention]) -> None:
    engine = facts.value("versions.colpali-engine", Versions())
    for kind, call in from_pretrained(calls):
        if "Processor" not in kind:
            continue
        for key in ("max_num_visual_tokens", "num_image_tokens"):
            if call.has(key):
                facts.put(
                    "pixels.max_visual_tokens", number(call.argument(key)), f"{call.where}, {key}"
                )
        for key in (
            "max_pixels",
            "image_processor.max_pixels",
            "image_processor.size.longest_edge",
        ):
            if call.has(key):
                facts.put("pixels.longest_edge", number(call.argument(key)), f"{call.where}, {key}")
        for key, name in (
            ("query_prefix", "template.query_prefix"),
            ("visual_prompt_prefix", "template.page_prompt"),
            ("query_augmentation_token", "template.query_suffix"),
            ("tokenizer.padding_side", "template.padding_side"),
            ("padding_side", "template.padding_side"),
        ):
            if call.has(key):
                value = call.argument(key)
                if key == "query_augmentation_token" and isinstance(value, str):
                    value = value * 10
                facts.put(name, value, f"{call.where}, {key}")
    for call in find(calls, "setattr"):
        owner, key, value = call.args
        if "Processor" in owner.name and key in ("query_prefix", "visual_prompt_prefix"):
            name = "query_prefix" if key == "query_prefix" else "page_prompt"
            facts.put(f"template.{name}", value, call.where)
        if "Processor" in owner.name and key == "query_augmentation_token":
            suffix = value * 10 if isinstance(value, str) else value
            facts.put("template.query_suffix", suffix, call.where)
        if key == "padding_side":
            facts.put("template.padding_side", value, call.where)
    if engine.all_from(*NO_PREFIX_FROM):
        facts.put("template.query_prefix", "", f"colpali-engine {engine}", "default")
    elif engine.all_before(*NO_PREFIX_FROM):
        facts.put("template.query_prefix", "Query: ", f"colpali-engine {engine}", "default")
    for mention in mentions:
        if mention.name in ("process_queries", "process_texts"):
            facts.put("template.query_call", mention.name, mention.where)


def _data(calls: Sequence[Call], config: Call | None, trainer: Call | None, facts: Facts) -> None:
    train: Any = UNKNOWN
    for owner, key in (
        (config, "train_dataset"),
        (config, "dataset_loading_func"),
        (trainer, "train_dataset"),
    ):
        if owner is not None and owner.has(key):
            train = owner.argument(key)
            names = datasets_of(train)
            facts.put("data.train", names or UNKNOWN, f"{owner.where}, {key}")
            if isinstance(train, list):
                facts.put("batch.num_sources", len(train), f"{owner.where}, {key}")
            break
    names = facts.value("data.train", [])
    mined = any(
        "_negs" in name or "hardneg" in name or name == "load_train_set_ir" for name in names
    )
    if isinstance(train, Call):
        mined = mined or any(call.has("neg_target_column_name") for call in [train])
        negs = train.argument("num_negs", 0, default=None)
        mined = mined or bool(isinstance(negs, int) and negs and "ir" in train.last)
    if names:
        facts.put("data.hard_negatives", mined, facts["data.train"].where, "derived")
    if config is None:
        return
    for key in ("eval_dataset", "eval_dataset_loader"):
        if not config.has(key):
            continue
        value = config.argument(key)
        found = datasets_of(value) or ([str(value)] if isinstance(value, Ref) else [])
        facts.put("eval.data", found or UNKNOWN, f"{config.where}, {key}")
        raw = isinstance(value, Call) and value.last in ("load_dataset", "load_eval_set")
        raw = raw or any(call.last == "load_eval_set" for call in calls)
        raw = raw or (key == "eval_dataset" and isinstance(value, dict | Ref))
        if raw and key == "eval_dataset":
            facts.put("eval.form", "rows", f"{config.where}, {key}")
