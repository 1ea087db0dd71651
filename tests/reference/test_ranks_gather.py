"""Why the gather between ranks is our own: torch's gives wrong gradients on gloo."""

import pytest
import torch
from torch.distributed.nn.functional import all_gather

from coltrain.training.ranks.gather import exchange_layout, gather_vectors
from coltrain.training.ranks.starting import on_ranks

pytestmark = [pytest.mark.reference, pytest.mark.slow]


def gradients(ranks, is_contiguous):
    """d loss / d own pages by torch's gather, by ours, and without any: one process has all."""
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64)

    def gradient(gathered, own):
        if is_contiguous:
            (gathered * weights[ranks.rank]).sum().backward()
        else:  # the gradient of the product's other side comes transposed
            gathered.transpose(0, 1).backward(weights[ranks.rank].transpose(0, 1).contiguous())
        return own.grad

    own = drawn[ranks.rank].clone().requires_grad_()
    with pytest.warns(FutureWarning):
        theirs = gradient(torch.cat(all_gather(own)), own)
    own = drawn[ranks.rank].clone().requires_grad_()
    layout = exchange_layout({"page": (3, 4)}, ("page",))
    ours = gradient(*gather_vectors(layout, [own]), own)
    expected = weights.sum(0)[3 * ranks.rank : 3 * ranks.rank + 3]
    yield theirs, ours, expected


@pytest.mark.parametrize("is_contiguous", [True, False])
def test_ours_sums_what_all_ranks_say(is_contiguous):
    for ((theirs, ours, expected),) in on_ranks(2, gradients, is_contiguous):
        torch.testing.assert_close(ours, expected, rtol=1e-14, atol=0)
        difference = ((theirs - expected).norm() / expected.norm()).item()
        assert difference < 1e-12 if is_contiguous else difference > 0.1
