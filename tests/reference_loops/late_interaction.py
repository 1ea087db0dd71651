"""Slow loops that define late-interaction scores: one dot product at a time, followed by autograd."""

import torch


def maxsim_loop(queries, pages, query_mask, page_mask):
    return torch.stack(
        [
            torch.stack([score(*pair) for pair in _pairs(query, real, pages, page_mask)])
            for query, real in zip(queries, query_mask, strict=True)
        ]
    )


def maxsim_paired_loop(queries, candidates, query_mask, candidate_mask):
    return torch.stack(
        [
            torch.stack([score(*pair) for pair in _pairs(query, real, pages, page_mask)])
            for query, real, pages, page_mask in zip(
                queries, query_mask, candidates, candidate_mask, strict=True
            )
        ]
    )


def score(query, query_real, page, page_real):
    """The sum over real query tokens of the best match among real page tokens."""
    total = query.new_zeros(())
    for i in range(len(query)):
        if not query_real[i]:
            continue
        best = None
        for j in range(len(page)):
            if not page_real[j]:
                continue
            similarity = (query[i] * page[j]).sum()
            if best is None or similarity > best:
                best = similarity
        total = total + best
    return total


def _pairs(query, query_real, pages, page_mask):
    return [(query, query_real, page, real) for page, real in zip(pages, page_mask, strict=True)]
