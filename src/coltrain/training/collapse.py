"""A loss that stays where a model that tells nothing apart has it, and what usually causes that."""

import math

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
