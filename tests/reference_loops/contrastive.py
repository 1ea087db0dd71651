"""Slow loops that define the losses on a score matrix: lists of pages, logarithms, plain sums.

`scores` is [queries, pages]; `positives` a list; `ignore` a nested list of booleans or None.
"""

import torch


def softmax_loop(scores, positives, ignore, temperature, threshold=None, factor=0.5):
    terms = []
    for query, positive, negatives in _queries(scores, positives, ignore, threshold, factor):
        every = torch.stack([positive, *negatives]) / temperature
        terms.append(torch.log(torch.exp(every - every.max().detach()).sum()))
        terms[-1] = terms[-1] + every.max().detach() - positive / temperature
        assert query == len(terms) - 1
    return sum(terms) / len(terms)


def pairwise_loop(scores, positives, ignore, temperature, threshold=None, factor=0.5):
    terms = []
    for _, positive, negatives in _queries(scores, positives, ignore, threshold, factor):
        if not negatives:
            terms.append(0.0 * positive)
            continue
        hardest = negatives[0]
        for negative in negatives[1:]:
            if negative > hardest:
                hardest = negative
        terms.append(torch.log1p(torch.exp((hardest - positive) / temperature)))
    return sum(terms) / len(terms)


def sigmoid_loop(scores, positives, ignore, temperature, threshold=None, factor=0.5):
    terms = []
    for _, positive, negatives in _queries(scores, positives, ignore, threshold, factor):
        own = torch.log1p(torch.exp(-positive / temperature))
        others = [torch.log1p(torch.exp(negative / temperature)) for negative in negatives]
        terms.append(sum(others, own) / (1 + len(others)))
    return sum(terms) / len(terms)


def mined_loop(positive_scores, mined_scores, temperature):
    terms = [
        torch.log1p(torch.exp((mined - positive) / temperature))
        for positive, row in zip(positive_scores, mined_scores, strict=True)
        for mined in row
    ]
    return sum(terms) / len(terms)


def _queries(scores, positives, ignore, threshold, factor):
    """(query, score of its page, scores of its negatives) for every query."""
    for query in range(len(scores)):
        positive = scores[query][positives[query]]
        negatives = []
        for page in range(len(scores[query])):
            if page == positives[query] or (ignore is not None and ignore[query][page]):
                continue
            negative = scores[query][page]
            if threshold is not None and negative > threshold * positive:
                negative = negative * factor
            negatives.append(negative)
        yield query, positive, negatives
