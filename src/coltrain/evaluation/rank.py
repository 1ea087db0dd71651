"""Scores of every query against every page, page by page, unpadded."""

from collections.abc import Sequence

import torch
from torch import Tensor

from coltrain.late_interaction import maxsim


def score_all(queries: Sequence[Tensor], pages: Sequence[Tensor]) -> Tensor:
    """MaxSim of unpadded embeddings, in float32 (or float64).

    Args:
        queries: One tensor of tokens x dim each.
        pages: One tensor of tokens x dim each.

    Returns:
        Scores, queries x pages, in float32.
    """
    padded = torch.nn.utils.rnn.pad_sequence(list(queries), batch_first=True)
    lengths = torch.tensor([len(query) for query in queries])
    mask = torch.arange(padded.shape[1])[None, :] < lengths[:, None]
    with torch.inference_mode():
        columns = [maxsim(padded, page[None], query_mask=mask)[:, 0] for page in pages]
    return torch.stack(columns, dim=1)
