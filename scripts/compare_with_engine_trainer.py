"""Train the same steps in coltrain and in colpali-engine's trainer, and say how far they are apart.

python scripts/compare_with_engine_trainer.py ADAPTER DATA --base BASE --steps 10 --json

From the same adapter over the same base, on the same batches, with the same loss, without dropout,
both in float32 on a CPU: coltrain through its own loop (gradient caching, chunks, right padding,
masks), colpali-engine 0.3.18 through its `ContrastiveTrainer`, `VisualRetrieverCollator` and
`ColPaliEngineDataset` over transformers' `Trainer`. Nothing of either is replaced but the order
of the data, which is coltrain's on both sides, and the resizing of pages, which is Pillow's.

Exit code 0 if both agree within the tolerances below, 1 if they do not. What the two do
differently on purpose is counted, so that a difference has a name: pages or queries that stand
twice in a batch (coltrain masks them), and query tokens whose best match is negative on a page that
was padded (the engine takes the padding's zero for it).
"""

import argparse
import copy
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2VLVideoProcessor

from coltrain.model.adapter import read_adapter
from coltrain.model.locate import locate_model
from coltrain.recipe import Recipe, load_recipe
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.events import StepResult
from coltrain.training.loop import Training

TEMPLATE = "engine-0.3.13"  # that of the engine's collator since 0.3.13
# (loss, adapter), relative; reached by float32 on both sides.
TOLERANCES = {1: (1e-5, 1e-4), 10: (1e-4, 1e-3)}
LOSSES = {
    "softmax": "ColbertLoss",
    "pairwise": "ColbertPairwiseCELoss",
    "sigmoid": "ColbertSigmoidLoss",
    "softmax_hard_negatives": "ColbertNegativeCELoss",
    "pairwise_hard_negatives": "ColbertPairwiseNegativeCELoss",
}


@dataclass
class Run:
    """What training did.

    Attributes:
        losses: One a step.
        adapters: Trained tensors by name, after these numbers of steps; 0 is the start.
        counts: Of what the libraries treat differently, over all steps.
    """

    losses: list[float] = field(default_factory=list)
    adapters: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How far the two are apart after some steps.

    Attributes:
        step: How many steps.
        loss: Relative difference of that step's loss.
        adapter: Norm of the difference over the norm of the engine's adapter.
        update: Norm of the difference over the norm of what the engine's steps changed; None where
            they changed nothing, as in the first step of a warm-up.
        worst_tensor: The largest of `adapter` for one tensor alone, zero tensors apart.
        within: Whether `loss` and `adapter` are within the tolerances.
    """

    step: int
    loss: float
    adapter: float
    update: float | None
    worst_tensor: float
    within: bool


def recipe_for(
    adapter: Path,
    data: str,
    *,
    base: str,
    loss: Sequence[str],
    steps: int,
    batch: int,
    chunk: int,
    negatives: int = 1,
    learning_rate: float = 5e-4,
    warmup: int = 0,
    max_visual_tokens: int = 768,
    seed: int = 0,
) -> Recipe:
    """coltrain's recipe for the comparison: the adapter's own shape, float32, no dropout.

    Args:
        adapter: Folder of an adapter in peft's format.
        data: Source of the training rows.
        base: Folder or name of the base, projection included.
        loss: Overrides such as `loss.name=pairwise`.
        steps: Of the optimiser.
        batch: Queries of a global batch.
        chunk: Samples that pass through coltrain's model together.
        negatives: Hard negatives of a query, for the losses that use them.
        learning_rate: The schedule's peak.
        warmup: Steps of its rise.
        max_visual_tokens: Budget of a page.
        seed: Of the order of the data.
    """
    lora = read_adapter(adapter).settings
    return load_recipe(
        "tiny",
        [
            f"model.base={base}",
            f"model.start_from={adapter}",
            f"model.template={TEMPLATE}",
            f"model.max_visual_tokens={max_visual_tokens}",
            f"lora.r={lora.r}",
            f"lora.alpha={lora.alpha}",
            f"lora.target_modules={json.dumps(lora.target_modules)}",
            "lora.dropout=0.0",
            "loss.temperature=1.0",
            *loss,
            f"hard_negatives.per_query={negatives}",
            f"batch.global_size={batch}",
            f"batch.chunk_size={chunk}",
            f"train.steps={steps}",
            f"train.seed={seed}",
            f"optimizer.learning_rate={learning_rate}",
            f"optimizer.warmup_steps={warmup}",
            f"data.train=[{json.dumps(data)}]",
            "eval.data=[]",
            "eval.every=null",
        ],
    )


def train_coltrain(recipe: Recipe, folder: Path) -> tuple[Run, Training]:
    """The recipe through coltrain's loop.

    Args:
        recipe: Of `recipe_for`.
        folder: Of the run; new.

    Returns:
        What it did, and the training, whose batches the engine is given.
    """
    training = Training(recipe, folder, torch.device("cpu"))
    trained = training.setup.trained
    run = Run(adapters={0: _copied(trained)}, counts={"masked_duplicates": 0})
    for event in training.events():
        if isinstance(event, StepResult):
            run.losses.append(event.loss)
            run.adapters[event.step] = _copied(trained)
            run.counts["masked_duplicates"] += event.masked_duplicates
    return run, training


def train_engine(recipe: Recipe, training: Training, folder: Path) -> Run:
    """The same steps through colpali-engine's trainer.

    Args:
        recipe: Of `recipe_for`.
        training: coltrain's, for the rows of each batch.
        folder: Scratch space of transformers' trainer.
    """
    from colpali_engine.collators import VisualRetrieverCollator
    from colpali_engine.data.dataset import ColPaliEngineDataset
    from colpali_engine.models.qwen2.colqwen2 import ColQwen2, ColQwen2Processor
    from colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer
    from peft import LoraConfig, PeftModel
    from transformers import TrainerCallback, TrainingArguments

    adapter = Path(recipe.model.start_from)
    config = LoraConfig.from_pretrained(adapter)
    config.lora_dropout = 0.0
    base = ColQwen2.from_pretrained(locate_model(recipe.model.base), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter, config=config, is_trainable=True)
    trained = {
        name.removeprefix("base_model.model."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    preparer = training.setup.built.preparer
    image_processor = copy.deepcopy(preparer.image_processor)
    image_processor.size["longest_edge"] = preparer.max_visual_tokens * 28 * 28
    processor = ColQwen2Processor(
        image_processor=image_processor,
        tokenizer=copy.deepcopy(preparer.tokenizer),
        video_processor=Qwen2VLVideoProcessor(),
    )
    run = Run(adapters={0: _copied(trained)}, counts={"negative_matches_on_padded_pages": 0})

    def loss_func(**embeddings: Any) -> Tensor:
        value = loss(**embeddings)
        run.losses.append(value.item())
        sides = [embeddings["doc_embeddings"]]
        if "neg_doc_embeddings" in embeddings:
            sides.append(embeddings["neg_doc_embeddings"].flatten(0, 1))
        for pages in sides:
            found = negative_matches_on_padded_pages(embeddings["query_embeddings"], pages)
            run.counts["negative_matches_on_padded_pages"] += found
        return value

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run.adapters[state.global_step] = _copied(trained)

    loss = _engine_loss(recipe)
    settings = recipe.optimizer
    trainer = ContrastiveTrainer(
        loss_func=loss_func,
        is_vision_model=True,
        compute_symetric_loss=recipe.loss.symmetric,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=recipe.batch.global_size,
            max_steps=recipe.train.steps,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            lr_scheduler_type="linear",
            max_grad_norm=settings.max_grad_norm,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=ColPaliEngineDataset(
            BatchRows(training),
            pos_target_column_name="page",
            neg_target_column_name="negatives" if _has_hard_negatives(recipe) else None,
        ),
        eval_dataset=None,
        data_collator=VisualRetrieverCollator(processor=processor),
        callbacks=[Keep()],
    )
    trainer.train()
    if recipe.loss.symmetric:  # two calls a step, whose mean is the loss
        pairs = zip(run.losses[::2], run.losses[1::2], strict=True)
        run.losses = [(one + other) / 2 for one, other in pairs]
    return run


class BatchRows(torch.utils.data.Dataset):
    """coltrain's batches, row after row, as the engine's data set takes them."""

    def __init__(self, training: Training) -> None:
        self._collection = training.setup.collection
        self._rows: list[tuple[int, tuple[int, ...]]] = []
        for step in range(1, training.num_steps + 1):
            batch = training._batch(step)
            negatives = batch.negatives or [()] * len(batch.rows)
            self._rows += zip(map(int, batch.rows), negatives, strict=True)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, negatives = self._rows[index]
        row = self._collection.rows[number]
        return {
            "query": self._collection.queries[row.query].text,
            "page": self._collection.page_image(row.page),
            "negatives": [self._collection.page_image(page) for page in negatives],
        }


def negative_matches_on_padded_pages(queries: Tensor, pages: Tensor) -> int:
    """Query tokens whose best match is negative where padding's zero would be taken for it.

    Args:
        queries: queries x tokens x dim, zero where padded.
        pages: pages x tokens x dim, zero where padded.
    """
    with torch.no_grad():
        is_token, is_real = queries.abs().sum(-1) > 0, pages.abs().sum(-1) > 0
        similarities = torch.einsum("qid,kjd->qkij", queries, pages)
        best = similarities.masked_fill(~is_real[None, :, None, :], -torch.inf).amax(-1)
        is_padded = ~is_real.all(-1)
        return int(((best < 0) & is_token[:, None, :] & is_padded[None, :, None]).sum())


def agreements(ours: Run, theirs: Run) -> Iterator[Agreement]:
    """After each step that both made."""
    for step in range(1, len(theirs.losses) + 1):
        one, other = ours.adapters[step], theirs.adapters[step]
        start = theirs.adapters[0]
        loss = abs(ours.losses[step - 1] - theirs.losses[step - 1]) / abs(theirs.losses[step - 1])
        difference = {name: one[name] - other[name] for name in other}
        distance = _norm(difference.values())
        adapter = distance / _norm(other.values())
        moved = _norm([other[name] - start[name] for name in other])
        loss_limit, adapter_limit = TOLERANCES[1] if step == 1 else TOLERANCES[10]
        yield Agreement(
            step=step,
            loss=loss,
            adapter=adapter,
            update=distance / moved if moved > 0 else None,
            worst_tensor=max(
                (difference[name].norm() / tensor.norm()).item()
                for name, tensor in other.items()
                if tensor.norm() > 0
            ),
            within=loss <= loss_limit and adapter <= adapter_limit,
        )


def compare(recipe: Recipe, folder: Path) -> tuple[list[Agreement], Run, Run]:
    """Both sides and how far they are apart.

    Args:
        recipe: Of `recipe_for`.
        folder: Scratch space; new or empty.

    Raises:
        ValueError: The two do not start from the same adapter.
    """
    ours, training = train_coltrain(recipe, folder / "coltrain")
    theirs = train_engine(recipe, training, folder / "engine")
    start, other = ours.adapters[0], theirs.adapters[0]
    if start.keys() != other.keys() or any(not torch.equal(start[n], other[n]) for n in start):
        raise ValueError("the two libraries did not read the same adapter from its folder")
    return list(agreements(ours, theirs)), ours, theirs


def _engine_loss(recipe: Recipe) -> torch.nn.Module:
    from colpali_engine.loss import late_interaction_losses

    settings = recipe.loss
    terms: dict[str, Any] = {"temperature": settings.temperature}
    if settings.name != "sigmoid" or settings.normalize:
        terms["normalize_scores"] = settings.normalize
    if settings.filter_threshold is not None:
        terms["pos_aware_negative_filtering"] = True
        terms["filter_threshold"] = settings.filter_threshold
        terms["filter_factor"] = settings.filter_factor
    if settings.name in HARD_NEGATIVE_LOSSES:
        terms["in_batch_term_weight"] = settings.in_batch_weight
    return getattr(late_interaction_losses, LOSSES[settings.name])(**terms)


def _has_hard_negatives(recipe: Recipe) -> bool:
    return recipe.loss.name in HARD_NEGATIVE_LOSSES


def _copied(parameters: dict[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().float().clone() for name, parameter in parameters.items()}


def _norm(tensors: Any) -> float:
    return torch.stack([tensor.double().norm() for tensor in tensors]).norm().item()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("adapter", type=Path, help="folder of an adapter in peft's format")
    parser.add_argument("data", help="folder or name of the training rows")
    parser.add_argument("--base", help="of the adapter; the one that its configuration names")
    parser.add_argument("--loss", nargs="*", default=["loss.name=pairwise"], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4, help="queries of a global batch")
    parser.add_argument("--chunk", type=int, default=2, help="samples in coltrain's model at once")
    parser.add_argument("--negatives", type=int, default=1, help="hard negatives of a query")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--warmup", type=int, default=0, help="steps")
    parser.add_argument("--max-visual-tokens", type=int, default=768)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    adapter = arguments.adapter.resolve()
    recipe = recipe_for(
        adapter,
        arguments.data,
        base=arguments.base or read_adapter(adapter).base,
        loss=arguments.loss,
        steps=arguments.steps,
        batch=arguments.batch,
        chunk=arguments.chunk,
        negatives=arguments.negatives,
        learning_rate=arguments.learning_rate,
        warmup=arguments.warmup,
        max_visual_tokens=arguments.max_visual_tokens,
    )
    # transformers' trainer prints on stdout, which is for the result.
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        found, ours, theirs = compare(recipe, Path(scratch))
    counts = ours.counts | theirs.counts
    agrees = all(one.within for one in found)
    if arguments.json:
        document = {
            "agrees": agrees,
            "tolerances": {"1": TOLERANCES[1], "10": TOLERANCES[10]},
            "losses": {"coltrain": ours.losses, "colpali-engine": theirs.losses},
            "steps": [asdict(one) for one in found],
            **counts,
        }
        print(json.dumps(document, indent=2))
    else:
        print("step  loss coltrain  loss engine  difference  adapter  update  worst tensor")
        for one, our_loss, their_loss in zip(found, ours.losses, theirs.losses, strict=True):
            print(
                f"{one.step:4}  {our_loss:13.8f}  {their_loss:11.8f}  {one.loss:10.1e}"
                f"  {one.adapter:7.1e}  {one.update or 0:6.0e}  {one.worst_tensor:12.1e}"
            )
        print(", ".join(f"{name} {number}" for name, number in counts.items()))
        print("agrees" if agrees else "does not agree")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
