"""The order in which chunks are added up leaves nothing in a float32 gradient."""

from itertools import permutations

import torch

from coltrain.training.gradient_sums import GradientSums

PARTS = [torch.tensor([x]) for x in (1.0, 1e-8, -1.0, 3e-8)]  # in float32 the order shows


def summed(parts):
    weight = torch.nn.Parameter(torch.zeros(1))
    sums = GradientSums([weight])
    for part in parts:
        weight.grad = part.clone()
        sums.add()
        assert weight.grad is None
    sums.finish()
    return weight.grad


def test_every_order_gives_the_same_bits():
    found = {summed(order).item() for order in permutations(PARTS)}
    assert found == {torch.tensor(4e-8).item()}
    assert len({sum(order).item() for order in permutations(PARTS)}) > 1  # the case bites


def test_a_single_gradient_is_handed_through_uncopied():
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = own = torch.ones(2)
    sums = GradientSums([weight])
    assert weight.grad is None
    sums.finish()
    assert weight.grad is own
    sums = GradientSums([weight])  # what stood there before counts
    weight.grad = torch.ones(2)
    sums.add()
    sums.finish()
    assert weight.grad.tolist() == [2, 2]


def test_beginning_again_takes_back_what_was_added_and_half_done():
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    sums = GradientSums([weight])
    for _ in range(2):
        weight.grad = torch.full((1,), 5.0)
        sums.add()
    weight.grad = torch.full((1,), 7.0)
    sums.begin()
    sums.finish()
    assert weight.grad.tolist() == [1]
