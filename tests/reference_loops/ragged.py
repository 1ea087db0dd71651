"""Padded random embeddings of uneven lengths, with rubbish where padded."""

import torch


def ragged(lengths, dim, *, seed, padding_side="right", rubbish=100.0, dtype=torch.float64):
    """Unit vectors [len(lengths), max(lengths), dim] and their mask; `rubbish` fills the padding."""
    generator = torch.Generator().manual_seed(seed)
    size = max(lengths)
    mask = torch.arange(size) < torch.tensor(lengths).unsqueeze(1)
    if padding_side == "left":
        mask = mask.flip(1)
    vectors = torch.randn(len(lengths), size, dim, generator=generator, dtype=torch.float64)
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return torch.where(mask.unsqueeze(-1), vectors, rubbish).to(dtype), mask


def positive_ragged(lengths, dim, *, seed, dtype=torch.float64):
    """As `ragged`, with zeros where padded and no similarity below 0."""
    vectors, mask = ragged(lengths, dim, seed=seed, rubbish=0.0)
    return vectors.abs().to(dtype), mask
