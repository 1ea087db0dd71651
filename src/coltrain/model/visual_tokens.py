"""How many visual tokens a page of some size costs, without its pixels."""

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from coltrain.model.inputs import PIXELS_PER_VISUAL_TOKEN

_SIDE = 28  # pixels of a visual token
_LEAST_PIXELS = 56 * 56  # as in the processors of Qwen2-VL and of the published models


def visual_tokens(width: int, height: int, max_visual_tokens: int) -> int:
    """Visual tokens of a page within a budget, by the rule that the model's inputs follow.

    Args:
        width: Pixels.
        height: Pixels.
        max_visual_tokens: As in `model.max_visual_tokens`.

    Source:
        `smart_resize` of transformers, which `Preparer` calls through the image processor.

    Example:
        >>> visual_tokens(1654, 2339, 768)  # A4 at 200 dpi
        736
    """
    tall, wide = smart_resize(
        height,
        width,
        factor=_SIDE,
        min_pixels=_LEAST_PIXELS,
        max_pixels=max_visual_tokens * PIXELS_PER_VISUAL_TOKEN,
    )
    return (tall // _SIDE) * (wide // _SIDE)
