"""The vision tower's feed-forward layer in blocks: the same bits, and the tower's graph where it learns."""

import torch

from coltrain.model import vision_feed_forward
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.tiny.architecture import tiny_config
from coltrain.model.vision_feed_forward import VisionFeedForward


def test_blocks_give_the_bits_of_the_whole(monkeypatch) -> None:
    torch.manual_seed(0)
    layer = ColQwen2(tiny_config()).visual.blocks[0].mlp
    assert isinstance(layer, VisionFeedForward)
    states = torch.randn(1000, layer.fc1.in_features)
    with torch.no_grad():
        whole = layer(states)
        calls = []
        layer.fc2.register_forward_hook(lambda *seen: calls.append(len(seen[-1])))
        monkeypatch.setattr(vision_feed_forward, "CPU_NUMBERS", 300 * layer.fc1.out_features)
        in_blocks = layer(states)
    assert calls == [250, 250, 250, 250]
    assert whole.abs().max() > 0.01
    assert torch.equal(in_blocks, whole)


def test_with_a_graph_it_is_whole(monkeypatch) -> None:
    monkeypatch.setattr(vision_feed_forward, "CPU_NUMBERS", 1)
    layer = ColQwen2(tiny_config()).visual.blocks[0].mlp
    calls = []
    layer.fc2.register_forward_hook(lambda *seen: calls.append(len(seen[-1])))
    output = layer(torch.randn(20, layer.fc1.in_features))
    assert calls == [20]
    assert output.requires_grad
