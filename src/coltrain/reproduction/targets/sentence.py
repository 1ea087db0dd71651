"""Facts of a sentence-transformers or PyLate training, from what its script builds."""

from collections.abc import Sequence
from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN, Facts
from coltrain.reproduction.targets.huggingface import (
    datasets_of,
    find,
    lora_call,
    number,
    precision,
    training_arguments,
    truth,
)

_ENCODERS = ("MultiVectorEncoder", "SentenceTransformer", "ColBERT")
_LOSSES = {
    "MultiVectorMultipleNegativesRankingLoss": "softmax",
    "CachedMultiVectorMultipleNegativesRankingLoss": "softmax",
    "MultipleNegativesRankingLoss": "softmax",
    "CachedMultipleNegativesRankingLoss": "softmax",
    "MultiVectorDistillKLDivLoss": "distillation",
    "MultiVectorMarginMSELoss": "distillation",
    "Contrastive": "softmax",
    "CachedContrastive": "softmax",
    "Distillation": "distillation",
}
_NORMALISED = ("mean_colbert_scores", "MeanColBERTScores")


def is_sentence(calls: Sequence[Call], imports: str) -> bool:
    """Whether what a script builds is sentence-transformers' or PyLate's."""
    return bool(find(calls, *_ENCODERS, *_LOSSES)) and (
        "sentence_transformers" in imports or "pylate" in imports
    )


def put_sentence(calls: Sequence[Call], facts: Facts) -> list[str]:
    """Add what a script says; returns what was not understood."""
    not_read: list[str] = []
    trainers = [call for call in calls if call.last.endswith("Trainer")]
    trainer = trainers[-1] if trainers else None
    arguments = trainer.argument("args", 1) if trainer is not None else UNKNOWN
    if not isinstance(arguments, Call):
        found = [call for call in calls if call.last.endswith("TrainingArguments")]
        arguments = found[-1] if found else UNKNOWN
    if isinstance(arguments, Call):
        training_arguments(arguments, facts)
        sampler = arguments.argument("batch_sampler")
        if arguments.has("batch_sampler"):
            name = sampler.last if isinstance(sampler, Ref | Call) else sampler
            facts.put("batch.sampler", str(name).upper(), f"{arguments.where}, batch_sampler")
        prompts = arguments.argument("prompts")
        if arguments.has("prompts"):
            _prompts(prompts, f"{arguments.where}, prompts", facts)
    else:
        not_read.append("the training arguments")
    _encoder(calls, facts)
    _loss(calls, trainer, facts, not_read)
    for call in find(calls, "LoraConfig"):
        lora_call(call, facts)
    if trainer is not None:
        names = datasets_of(trainer.argument("train_dataset", 2))
        if not names:
            names = [name for call in find(calls, "load_dataset") for name in datasets_of(call)][:1]
        facts.put("data.train", names or UNKNOWN, f"{trainer.where}, train_dataset")
        evaluator = trainer.argument("evaluator", default=None)
        if isinstance(evaluator, Call):
            facts.put("eval.evaluator", evaluator.last, f"{trainer.where}, evaluator")
    return not_read


def _encoder(calls: Sequence[Call], facts: Facts) -> None:
    for call in calls:
        if call.last not in _ENCODERS:
            continue
        name = call.argument("model_name_or_path", 0)
        if call.has("modules"):
            name = UNKNOWN
        facts.put("model.class", call.last, call.where)
        facts.put("model.base", name if isinstance(name, str) else UNKNOWN, call.where)
        facts.put("model.revision", call.argument("revision", default=None), call.where)
        for key in ("model_kwargs", "config_kwargs"):
            given = call.argument(key, default=None)
            if isinstance(given, dict):
                for dtype in ("torch_dtype", "dtype"):
                    if dtype in given:
                        facts.put(
                            "precision.weights", precision(given[dtype]), f"{call.where}, {dtype}"
                        )
                if "attn_implementation" in given:
                    kernel = given["attn_implementation"]
                    facts.put("model.attention", kernel, f"{call.where}, attn_implementation")
        facts.put("precision.weights", "float32", f"{call.where} leaves it out", "default")
        processor = call.argument("processor_kwargs", default=None)
        if isinstance(processor, dict):
            for key in ("max_pixels", "max_num_visual_tokens"):
                if key in processor:
                    name = "longest_edge" if key == "max_pixels" else "max_visual_tokens"
                    where = f"{call.where}, processor_kwargs.{key}"
                    facts.put(f"pixels.{name}", number(processor[key]), where)
        if call.has("prompts"):
            _prompts(call.argument("prompts"), f"{call.where}, prompts", facts)


def _prompts(prompts: Any, where: str, facts: Facts) -> None:
    if isinstance(prompts, dict):
        query = prompts.get("query", prompts.get("anchor", UNKNOWN))
        if isinstance(query, str):
            facts.put("template.query_prefix", query, where)


def _loss(calls: Sequence[Call], trainer: Call | None, facts: Facts, not_read: list[str]) -> None:
    given = trainer.argument("loss", default=UNKNOWN) if trainer is not None else UNKNOWN
    found = find(calls, *_LOSSES)
    loss = given if isinstance(given, Call) else (found[-1] if found else None)
    if loss is None or loss.last not in _LOSSES:
        not_read.append("the loss" if loss is None else f"{loss.where}: {loss.last}")
        return
    facts.put("loss.class", loss.last, loss.where)
    facts.put("loss.name", _LOSSES[loss.last], loss.where)
    scale = number(loss.argument("scale", default=1.0))
    temperature = number(loss.argument("temperature", default=UNKNOWN))
    if temperature is UNKNOWN and scale is not UNKNOWN and scale:
        temperature = 1 / scale
    facts.put("loss.temperature", temperature, f"{loss.where}, scale")
    score = loss.argument("similarity_fct", default=loss.argument("score_metric", default=None))
    name = score.last if isinstance(score, Ref | Call) else ""
    facts.put("loss.normalize", name in _NORMALISED, f"{loss.where}, similarity_fct")
    cached = loss.last.startswith("Cached") or loss.has("mini_batch_size")
    facts.put("batch.cached", cached, loss.where)
    if cached:
        default = 32
        size = number(loss.argument("mini_batch_size", default=default))
        facts.put("batch.mini_batch", size, f"{loss.where}, mini_batch_size")
    gathers = truth(loss.argument("gather_across_devices", default=False))
    facts.put("batch.shared", gathers, f"{loss.where}, gather_across_devices")
    facts.put("loss.padding", "masked", "sentence-transformers' scores", "derived")
