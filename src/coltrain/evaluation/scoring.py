"""How embeddings become scores: the default, and what published evaluators do otherwise."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Arithmetic and padding of MaxSim in an evaluation.

    The default is what a score should be: float32, and padding that is no part of a page. The
    other values reproduce evaluators whose numbers were published.

    Attributes:
        dtype: Type of the products, maxima and sums. "float32"; or "embeddings", the type of the
            model's weights, to which its embeddings are rounded first, as evaluators do that score
            what the model gave (in bfloat16 sums near 20 move in steps of 0.125, and tie).
        padding: "masked": a token's best match is among the page's own tokens. "zero": among them
            and, where the page was padded, a zero vector; so no match is below 0 there.
        page_block: Pages that are padded together, in the order of the data, when `padding` is
            "zero": all but the longest of them count as padded. 128 in colpali-engine and
            vidore-benchmark; None for the whole corpus, as in mteb. Of no effect when "masked".

    Raises:
        ValueError: A value is none of these.

    Source:
        colpali-engine 0.3.18, utils/processing_utils.py (`score_multi_vector`); vidore-benchmark
        5.0, which calls it with the model's own type; mteb, which pads to the corpus maximum in
        float32.
    """

    dtype: Literal["float32", "embeddings"] = "float32"
    padding: Literal["masked", "zero"] = "masked"
    page_block: int | None = 128

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "embeddings"):
            raise ValueError(f"dtype = {self.dtype!r}, expected 'float32' or 'embeddings'")
        if self.padding not in ("masked", "zero"):
            raise ValueError(f"padding = {self.padding!r}, expected 'masked' or 'zero'")
        if self.page_block is not None and self.page_block < 1:
            raise ValueError(f"page_block = {self.page_block}, expected at least 1, or None")
