"""How fast is a LoRA step, and in what memory, beside colpali-engine's trainer and sentence-transformers?

One batch of uneven pages up to 768 visual tokens through a small model of the real classes, the
same weights, adapter, loss, dropout rate and activation checkpointing on all sides; forward,
backward, clipping and AdamW. The engine runs its own trainer's `training_step`, once as that trainer
sets checkpointing up and once with `enable_input_require_grads`, which trains the frozen vision
tower for nothing (transformers does so by itself for models whose main input is `input_ids`, such as
sentence-transformers' backbone). Nothing is decoded. That all sides compute the same is
checked by their losses on four small pages without dropout.
"""

import copy
import sys
import tempfile

import torch
from alternating import arguments, finish, measured, peaks_mib
from small_model import (
    EVEN_GRIDS,
    GRIDS,
    TEMPERATURE,
    batch_loss,
    chunks,
    engine_batch,
    engine_model,
    sentence_transformers_columns,
    sentence_transformers_model,
    small_batch,
    small_model,
)

from coltrain.training.gradient_cache import cached_gradients


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--chunks", type=int, default=1, help="coltrain's, of pages")
    parser.add_argument("--even", action="store_true", help="pages of 546 to 768 visual tokens")
    given = parser.parse_args()
    batch = small_batch(given.batch, EVEN_GRIDS if given.even else GRIDS)
    few = small_batch(4, [(6, 8), (5, 6), (4, 5), (3, 7)])
    losses = {name: way() for name, way in make_ways(few, 4, 0.0, given.device).items()}
    if max(losses.values()) - min(losses.values()) > 1e-4 * losses["coltrain"]:
        sys.exit(f"the sides do not compute the same loss: {losses}")
    chunk_size = -(-given.batch // given.chunks)
    ways = make_ways(batch, chunk_size, 0.1, given.device)
    memory = peaks_mib(ways)  # the first call of each
    seconds = measured(ways, given.rounds, given.device, warm=True)
    ours = "coltrain"
    others = [name for name in ways if name != ours]
    figures = {
        "batch": given.batch,
        "chunks": given.chunks,
        "page_tokens": batch.num_page_tokens,
        "losses_of_small_pages_without_dropout": losses,
        "seconds": seconds,
        "peak_live_mib": memory,
        "times_as_fast_as": {
            name: seconds[name]["best_seconds"] / seconds[ours]["best_seconds"] for name in others
        },
        "share_of_memory_of": {name: memory[ours] / memory[name] for name in others},
    }
    finish(__doc__.splitlines()[0], figures, given)


def make_ways(batch, chunk_size, dropout, device):
    """A step of each library, as a function that returns the loss."""
    model = small_model(dropout)
    engine = [engine_model(model, dropout).to(device) for _ in range(2)]
    engine[1].base_model.model.enable_input_require_grads()
    sentence = sentence_transformers_model(model, dropout).to(device)
    return {
        "coltrain": coltrain_step(model, batch, chunk_size, device),
        "colpali-engine": engine_step(engine[0], batch),
        "colpali-engine, inputs hooked": engine_step(engine[1], batch),
        "sentence-transformers": sentence_transformers_step(sentence, batch),
    }


def updating(model, gradients):
    """Gradients, clipping, AdamW."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-7)  # so small that no round differs from another

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = gradients()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss

    return step


def coltrain_step(model, batch, chunk_size, device="cpu"):
    model = copy.deepcopy(model).to(device)
    made, loss = chunks(batch, chunk_size), batch_loss(len(batch.pages))
    return updating(model, lambda: cached_gradients(model, iter(made), loss, seed=0, step=1).loss)


def engine_step(model, batch):
    """colpali-engine's `ContrastiveTrainer` over transformers' `Trainer`, checkpointing as it does."""
    from colpali_engine.loss import ColbertLoss
    from colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer
    from transformers import TrainingArguments

    with tempfile.TemporaryDirectory() as scratch:
        trainer = ContrastiveTrainer(
            loss_func=ColbertLoss(temperature=TEMPERATURE, normalize_scores=True),
            is_vision_model=True,
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                activation_checkpointing=True,
                activation_checkpointing_kwargs={"use_reentrant": False},
                remove_unused_columns=False,
                report_to=[],
                use_cpu=next(model.parameters()).device.type == "cpu",
            ),
            train_dataset=torch.utils.data.TensorDataset(torch.zeros(1)),
            eval_dataset=None,
            data_collator=lambda rows: rows,
        )
    # As `train` does before the first step.
    trainer.current_gradient_accumulation_steps = 1
    model.activation_checkpointing_enable({"use_reentrant": False})
    inputs = engine_batch(batch)
    return updating(model, lambda: trainer.training_step(model, dict(inputs)).item())


def sentence_transformers_step(model, batch):
    """Its loss module over its own model, checkpointing by its trainer's switch."""
    from sentence_transformers.multi_vector_encoder.losses import (
        MultiVectorMultipleNegativesRankingLoss,
    )
    from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores

    loss = MultiVectorMultipleNegativesRankingLoss(
        model, scale=1 / TEMPERATURE, similarity_fct=mean_colbert_scores
    )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    columns = sentence_transformers_columns(batch)

    def gradients():
        value = loss(columns)
        value.backward()
        return value.item()

    return updating(model, gradients)


if __name__ == "__main__":
    main()
