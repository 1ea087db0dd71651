"""A loss that stays where a model that tells nothing apart has it, and what usually causes that."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from coltrain.recipe import LossSection
from coltrain.training.events import StepResult

PATIENCE = 20  # steps in a row
_TOLERANCE = 0.005  # of the loss; an exact collapse is within rounding


class CollapseWatch:
    """Speaks when the loss has stood at its no-information value for long, once each time.

    With equal scores everywhere the pairwise loss is ln 2 and the softmax loss ln N for N
    candidates, whatever the temperature.

    Args:
        settings: The recipe's loss.
        steps_in_a_row: Where a resumed run stood.
    """

    def __init__(self, settings: LossSection, steps_in_a_row: int = 0) -> None:
        self._settings = settings
        self.steps_in_a_row = steps_in_a_row

    def see(self, result: StepResult) -> str | None:
        """Take note of a step; returns the warning when it is time."""
        value = self._no_information(result.candidates_per_query)
        near = value is not None and abs(result.loss - value) <= _TOLERANCE * value
        self.steps_in_a_row = self.steps_in_a_row + 1 if near else 0
        if self.steps_in_a_row != PATIENCE:
            return None
        name = "ln 2" if self._settings.name == "pairwise" else "ln N, N = candidates"
        return (
            f"the loss has stood at {value:.4f} ({name}) for {PATIENCE} steps, up to step "
            f"{result.step}: the model tells no page from another. Likely causes: a learning rate "
            "so high that embeddings collapsed, a base without its projection, an adapter that "
            "changes nothing (gradient norm "
            f"{result.grad_norm:.2e}), a query template that hides the text, or "
            f"{result.candidates_per_query:.0f} candidates per query being too few."
        )

    def _no_information(self, candidates: float) -> float | None:
        if self._settings.name == "pairwise":
            return math.log(2)
        if self._settings.name == "softmax" and candidates > 1:
            return math.log(candidates)
        return None


def embedding_spread(pages: Sequence[Tensor], scores: Tensor) -> dict[str, float | int]:
    """How far a model tells pages apart, of pages that it has just encoded.

    Args:
        pages: tokens x dim of each page, unit vectors.
        scores: queries x pages.

    Returns:
        `num_pages`; `variance`, of the pages' mean vectors around their mean, summed over
        coordinates (0 where all pages are one, below 1); `effective_rank`, the exponential of the
        entropy of their singular values' shares (Roy and Vetterli, 2007; 1 where they differ along
        one direction); `same_nearest`, the share of queries whose best page is the commonest one.
    """
    means = torch.stack([page.double().mean(0) for page in pages])
    centred = means - means.mean(0)
    shares = torch.linalg.svdvals(centred)
    total = shares.sum()
    rank = 0.0
    if total > 1e-12:
        shares = shares[shares > 0] / total
        rank = torch.exp(-(shares * shares.log()).sum()).item()
    best = scores.argmax(1)
    return {
        "num_pages": len(pages),
        "variance": round(centred.pow(2).sum(1).mean().item(), 6),
        "effective_rank": round(rank, 3),
        "same_nearest": round(best.bincount().max().item() / len(best), 4),
    }
