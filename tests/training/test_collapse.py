import math

import pytest

from coltrain.recipe import LossSection
from coltrain.training.collapse import PATIENCE, CollapseWatch
from coltrain.training.events import StepResult


def watch(name: str, **more) -> CollapseWatch:
    return CollapseWatch(LossSection(name=name, temperature=1.0, normalize=True), **more)


def result(step: int, loss: float, candidates: float = 32) -> StepResult:
    return StepResult(
        step=step,
        num_steps=100,
        epoch=0,
        loss=loss,
        learning_rate=1e-3,
        grad_norm=1.5e-9,
        candidates_per_query=float(candidates),
        masked_duplicates=0,
        pages_per_second=1.0,
        seconds=1.0,
    )


def said(watcher: CollapseWatch, losses: list[float], candidates: float = 32) -> list[int]:
    """Steps after which the watcher spoke."""
    return [
        step
        for step, loss in enumerate(losses, start=1)
        if watcher.see(result(step, loss, candidates)) is not None
    ]


@pytest.mark.parametrize(
    ("name", "candidates", "value"),
    [("pairwise", 32, math.log(2)), ("softmax", 32, math.log(32)), ("softmax", 8, math.log(8))],
)
def test_a_loss_without_information_is_called_out_once(name, candidates, value):
    assert said(watch(name), [value] * 3 * PATIENCE, candidates) == [PATIENCE]


def test_the_call_names_the_step_the_value_and_likely_causes():
    watcher = watch("softmax")
    words = [watcher.see(result(step, math.log(32))) for step in range(1, PATIENCE + 1)]
    assert words[-1] == (
        "the loss has stood at 3.4657 (ln N, N = candidates) for 20 steps, up to step 20: the "
        "model tells no page from another. Likely causes: a learning rate so high that embeddings "
        "collapsed, a base without its projection, an adapter that changes nothing (gradient norm "
        "1.50e-09), a query template that hides the text, or 32 candidates per query being too few."
    )
    watcher = watch("pairwise")
    words = [watcher.see(result(step, math.log(2))) for step in range(1, PATIENCE + 1)]
    assert words[-1].startswith("the loss has stood at 0.6931 (ln 2) for 20 steps")


def test_a_step_elsewhere_starts_the_count_anew():
    value = math.log(2)
    losses = [value] * (PATIENCE - 1) + [0.5] + [value] * (PATIENCE - 1)
    assert said(watch("pairwise"), losses) == []
    assert said(watch("pairwise"), [*losses, value]) == [2 * PATIENCE]


def test_a_loss_that_only_passes_by_is_not_called_out():
    falling = [math.log(2) * (1.03 - 0.003 * step) for step in range(20)]
    assert said(watch("pairwise"), falling) == []


def test_a_resumed_run_goes_on_counting():
    watcher = watch("pairwise", steps_in_a_row=PATIENCE - 1)
    assert said(watcher, [math.log(2)] * PATIENCE) == [1]


def test_losses_without_such_a_value_are_left_alone():
    assert said(watch("sigmoid"), [math.log(2)] * 2 * PATIENCE) == []
    assert said(watch("softmax"), [0.0] * 2 * PATIENCE, candidates=1) == []
