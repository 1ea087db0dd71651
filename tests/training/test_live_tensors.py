import torch

from coltrain.training.live_tensors import LiveTensors

FLOAT = 4  # bytes


def test_what_is_made_counts_and_what_is_dropped_does_not():
    with LiveTensors() as watch:
        first = torch.zeros(100)
        assert watch.peak_bytes == 100 * FLOAT
        second = torch.zeros(50)
        assert watch.peak_bytes == 150 * FLOAT
        del first
        third = torch.zeros(60)  # 50 + 60 are alive, fewer than before
        assert watch.peak_bytes == 150 * FLOAT
        fourth = torch.zeros(100)
        assert watch.peak_bytes == 210 * FLOAT
    assert second.numel() + third.numel() + fourth.numel() == 210


def test_tensors_from_before_do_not_count_but_what_is_made_of_them_does():
    weights = torch.ones(1000)
    with LiveTensors() as watch:
        half = weights[:500]
        weights.mul_(2)
        assert watch.peak_bytes == 0
        product = half * 2
    assert watch.peak_bytes == product.numel() * FLOAT
    assert watch.largest_shape == (500,)


def test_a_view_is_its_storage():
    with LiveTensors() as watch:
        whole = torch.zeros(10, 10)
        column = whole[:, 0]
        assert watch.peak_bytes == 100 * FLOAT
        flat = whole.T.reshape(-1)  # which has to copy
        assert watch.peak_bytes == 200 * FLOAT
        del whole
        other = torch.zeros(100)  # the column keeps all of the first storage alive
        assert watch.peak_bytes == 300 * FLOAT
    assert len(column) + len(flat) + len(other) == 210


def test_what_autograd_keeps_is_alive():
    weight = torch.ones(50, requires_grad=True)
    with LiveTensors() as watch:
        hidden = (weight * 2).exp()  # exp keeps its result for its gradient
        output = hidden.sum()
        del hidden
        before = watch.peak_bytes
        filler = torch.zeros(50)
        # The products are gone; the exponentials, the sum and the filler are there.
        assert watch.peak_bytes == max(before, (50 + 1 + 50) * FLOAT)
        output.backward()
    assert weight.grad is not None
    assert filler is not None


def test_a_tensor_made_and_dropped_within_one_expression_is_seen():
    vector = torch.ones(300)
    with LiveTensors() as watch:
        total = (vector[:, None] * vector[None, :]).sum()
    assert watch.largest_elements == 300 * 300
    assert watch.largest_shape == (300, 300)
    assert watch.peak_bytes >= 300 * 300 * FLOAT
    assert total == 300 * 300


def test_nothing_is_counted_after_the_end():
    with LiveTensors() as watch:
        torch.zeros(10)
    torch.zeros(1000)
    assert watch.peak_bytes == 10 * FLOAT
