"""How much faster is an epoch that finds its visual tokens on disk than one that computes them?

Steps of gradient caching over one batch of uneven pages (up to 768 visual tokens) of a small model of the
real classes, with LoRA, and with activation checkpointing and without. The first epoch keeps no cache; the
second reads every page's visual tokens from disk and checks their hash. Pixel values are drawn, so nothing
is decoded: what a page costs before the model is a question of `data_path.py`, and comes on top.
What rounding on disk does to embeddings and gradients is measured beside it.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from alternating import arguments, finish, measured
from small_model import GRIDS, batch_loss, chunks, small_batch, small_model

from coltrain.model.vision_cache import FeatureStore, LookedUp, VisionFeatures
from coltrain.training.gradient_cache import cached_gradients


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of a page's sides; 1 is 768")
    given = parser.parse_args()
    batch = small_batch(given.batch, [tuple(round(given.scale * n) for n in one) for one in GRIDS])
    with tempfile.TemporaryDirectory() as scratch:
        ways = {}
        for word, checkpointing in (("checkpointing", True), ("no checkpointing", False)):
            epochs = Epochs(checkpointing, batch, given, Path(scratch) / word)
            ways[f"first epoch, {word}"] = epochs.plain
            ways[f"second epoch, {word}"] = epochs.found
        seconds = measured(ways, given.rounds, given.device)
        small = small_batch(given.batch, [(10, 8), (8, 7), (9, 5), (6, 6)])
        effects = {
            stored_as: Epochs(True, small, given, Path(scratch) / stored_as, stored_as).effect()
            for stored_as in ("float32", "bfloat16", "float16")
        }

    def times(slow: str, fast: str) -> float:
        return seconds[slow]["best_seconds"] / seconds[fast]["best_seconds"]

    figures = {
        "batch": given.batch,
        "chunk": given.chunk,
        "visual_tokens": [rows * columns for rows, columns in batch.grids],
        "page_tokens": batch.num_page_tokens,
        "seconds": seconds,
        "times_as_fast_as": {
            f"first epoch, {word}": times(f"first epoch, {word}", f"second epoch, {word}")
            for word in ("checkpointing", "no checkpointing")
        },
        "effect_of_storing_as": effects,
    }
    finish(__doc__.splitlines()[0], figures, given)


class Epochs:
    """A batch as an epoch, three ways."""

    def __init__(self, checkpointing, batch, given, folder, stored_as="float32") -> None:
        self.model = small_model(checkpointing=checkpointing).to(given.device)
        self.chunks = chunks(batch, given.chunk)
        self.loss = batch_loss(given.batch)
        store = FeatureStore(folder, {"stored_as": stored_as}, 1.0)
        self.vision = VisionFeatures(self.model, store)
        list(self.completed(ask=False))  # written once, for the second epoch

    def step(self, chunks):
        self.model.zero_grad(set_to_none=True)
        return cached_gradients(self.model, chunks, self.loss, seed=0, step=1)

    def plain(self):
        return self.step(iter(self.chunks))

    def found(self):
        """As a run does: each page is asked for, its hash checked."""
        before = self.vision.counts.misses
        result = self.step(self.completed())
        assert self.vision.counts.misses == before
        return result

    def completed(self, *, ask: bool = True):
        for chunk in self.chunks:
            if chunk.side == "query":
                yield chunk
                continue
            found = [self.vision.store.read(page)[0] if ask else None for page in chunk.samples]
            tokens = tuple(None if one is None else one.tokens for one in found)
            inputs = chunk.inputs
            if None not in tokens:
                inputs = replace(inputs, visual_tokens=tokens, pixel_values=None)
            looked_up = LookedUp(chunk.samples, (0,) * len(chunk.samples))
            yield replace(chunk, inputs=self.vision.complete(inputs, looked_up))

    def effect(self) -> dict[str, float]:
        """Largest difference of an embedding's coordinate, and of all gradients by their norm."""
        plain, expected = self.plain(), self.gradients()
        found, gradients = self.found(), self.gradients()
        return {
            "embedding": float(
                (found.embeddings["page"].vectors - plain.embeddings["page"].vectors).abs().max()
            ),
            "loss": abs(found.loss - plain.loss) / abs(plain.loss),
            "gradients": float((gradients - expected).norm() / expected.norm()),
        }

    def gradients(self):
        trained = [p.grad for p in self.model.parameters() if p.grad is not None]
        return torch.cat([grad.flatten() for grad in trained])


if __name__ == "__main__":
    main()
