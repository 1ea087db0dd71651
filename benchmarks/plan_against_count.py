"""Are the operations that `coltrain plan` counts without data those of a real step?

The planner's passes of one page (vision tower, first pass, second pass with its backward), counted on tensors
without data and continued from two and three layers, against torch's own FLOP counter over the same passes
of a small model of the real classes that computes on real tensors. (With attention as plain products: the
counter does not know the fused kernel of a CPU, and misses a quarter of the vision tower with it.)
"""

import torch
from alternating import arguments, finish
from small_model import chunks, lora_settings, small_batch, small_config, small_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from coltrain.planning.footprint import Setting, Sizes, passes

GRID = (16, 12)


def main() -> None:
    given = arguments(__doc__, rounds=1).parse_args()
    batch = small_batch(1, [GRID])
    page = next(chunk for chunk in chunks(batch, 1) if chunk.side == "page")
    figures = {"visual_tokens": GRID[0] * GRID[1], "page_tokens": batch.num_page_tokens}
    figures["planned_by_counted"] = {}
    for word, checkpointing in (("", False), (" with checkpointing", True)):
        with sdpa_kernel(SDPBackend.MATH):
            counted = count(small_model(checkpointing=checkpointing), page)
        setting = Setting(
            weights=torch.float32,
            autocast=None,
            attention="cpu",
            vision_attention="cpu",
            checkpointing=checkpointing,
            lora=lora_settings(0.1),
        )
        sizes = Sizes(GRID[0] * GRID[1], batch.num_page_tokens, batch.num_query_tokens)
        planned = passes(small_config(), 128, setting, sizes, 1)
        for name, found in counted.items():
            ratio = getattr(planned, name).flops / found
            figures["planned_by_counted"][f"{name} pass{word}"] = ratio
            figures[f"gigaflop_counted, {name} pass{word}"] = found / 1e9
    finish(__doc__.splitlines()[0], figures, given)


def count(model, page) -> dict[str, int]:
    """torch's count of each pass."""
    inputs = page.inputs

    def read(visual_tokens):
        with model.sample_keys.use([0], model.device):
            vectors = model(inputs.input_ids, inputs.mask, inputs.position_ids, visual_tokens)
            if vectors.requires_grad:
                vectors.sum().backward()

    found = {}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
    found["vision"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        read(visual_tokens)
    found["first"] = counter.get_total_flops()
    read(visual_tokens)  # from the second on, gradients are there to be added to
    with FlopCounterMode(display=False) as counter:
        read(visual_tokens)
    found["second"] = counter.get_total_flops()
    return found


if __name__ == "__main__":
    main()
