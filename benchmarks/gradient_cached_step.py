"""What does a gradient-cached step cost beside the plain one, in time and memory, by chunk size?

The batch, model and adapter of `training_step.py`, activation checkpointing on: the same gradient from
one chunk (the plain step, which encodes once) and from 2, 4 and 8 of them.
"""

from alternating import arguments, finish, measured, peaks_mib
from small_model import small_batch, small_model
from training_step import coltrain_step


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 2, 4, 8])
    given = parser.parse_args()
    batch, model = small_batch(given.batch), small_model()
    ways = {
        str(number): coltrain_step(model, batch, -(-given.batch // number), given.device)
        for number in given.chunks
    }
    memory = peaks_mib(ways)  # the first call of each
    seconds = measured(ways, given.rounds, given.device, warm=True)
    plain = str(given.chunks[0])
    figures = {
        "batch": given.batch,
        "page_tokens": batch.num_page_tokens,
        "seconds_by_chunks": seconds,
        "peak_live_mib_by_chunks": memory,
        "times_the_plain_step": {
            name: one["best_seconds"] / seconds[plain]["best_seconds"]
            for name, one in seconds.items()
        },
        "share_of_its_memory": {name: found / memory[plain] for name, found in memory.items()},
    }
    finish(__doc__.splitlines()[0], figures, given)


if __name__ == "__main__":
    main()
