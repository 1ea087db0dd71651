"""How far the pages of an evaluation lie apart, against numpy by hand."""

import numpy as np
import pytest
import torch

from coltrain.training.collapse import embedding_spread


def pages(number: int, dim: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    found = [torch.randn(3 + n % 4, dim, generator=generator) for n in range(number)]
    return [torch.nn.functional.normalize(page, dim=-1) for page in found]


def test_it_equals_a_slow_reference():
    some = pages(9)
    scores = torch.randn(7, 9, generator=torch.Generator().manual_seed(1))
    found = embedding_spread(some, scores)
    means = np.stack([page.double().numpy().mean(0) for page in some])
    centred = means - means.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    shares = values / values.sum()
    assert found["variance"] == pytest.approx((centred**2).sum(1).mean(), abs=1e-6)
    assert found["effective_rank"] == pytest.approx(
        np.exp(-(shares * np.log(shares)).sum()), abs=1e-3
    )
    winners = scores.argmax(1).tolist()
    most = max(winners.count(one) for one in winners)
    assert found["same_nearest"] == pytest.approx(most / 7, abs=1e-4)
    assert found["effective_rank"] > 2  # the case bites


def test_pages_that_are_one_have_no_spread():
    one = pages(1)[0]
    found = embedding_spread([one] * 5, torch.zeros(4, 5))
    assert found == {"num_pages": 5, "variance": 0.0, "effective_rank": 0.0, "same_nearest": 1.0}


def test_pages_along_one_direction_have_rank_one():
    line = [torch.tensor([[1.0, 0.1 * n, 0.0]]) for n in range(6)]
    assert embedding_spread(line, torch.eye(6))["effective_rank"] == pytest.approx(1.0, abs=1e-3)
