"""How does a step's memory grow with the global batch, and is any tensor of all token pairs made?

Global batches of 32 to 256 in chunks of eight, small pages, activation checkpointing on. What may grow is the
embeddings (as the chunks gave them, joined, and their gradients), one arg-max index for each query token and page,
and the vision features. A tensor of queries x pages x query tokens x page tokens would show as the
largest one.
"""

import gc

from alternating import arguments, finish
from small_model import batch_loss, chunks, small_batch, small_model

from coltrain.training.gradient_cache import cached_gradients
from coltrain.training.live_tensors import LiveTensors

GRIDS = [(6, 8), (5, 6), (4, 5), (8, 7)]


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--chunk", type=int, default=8)
    given = parser.parse_args()
    found = {str(size): step_of(size, given.chunk, given.device) for size in given.batches}
    first, last = found[str(given.batches[0])], found[str(given.batches[-1])]
    figures = {
        "by_global_batch": found,
        "growth_by_that_of_what_is_kept": (last["peak_bytes"] - first["peak_bytes"])
        / (last["kept_bytes"] - first["kept_bytes"]),
        "largest_tensor_by_all_pairs": {
            size: one["largest_elements"] / one["all_pairs_elements"] for size, one in found.items()
        },
    }
    finish(__doc__.splitlines()[0], figures, given)


def step_of(size: int, chunk_size: int, device: str) -> dict:
    """Counts of one step."""
    model, batch = small_model().to(device), small_batch(size, GRIDS)
    made = chunks(batch, chunk_size)

    def step():
        model.zero_grad(set_to_none=False)
        return cached_gradients(model, iter(made), batch_loss(size), seed=0, step=1)

    step()  # so that gradient buffers exist and do not count
    gc.collect()
    with LiveTensors() as watch:
        embeddings = step().embeddings
    queries, pages = embeddings["query"].mask, embeddings["page"].mask
    vectors = 3 * 4 * model.dim * (queries.numel() + pages.numel())
    visual = 4 * model.config.text_config.hidden_size * sum(a * b for a, b in batch.grids)
    return {
        "peak_bytes": watch.peak_bytes,
        "kept_bytes": vectors + visual + 4 * queries.numel() * size,
        "largest_elements": watch.largest_elements,
        "largest_shape": list(watch.largest_shape),
        "all_pairs_elements": queries.numel() * pages.numel(),
    }


if __name__ == "__main__":
    main()
