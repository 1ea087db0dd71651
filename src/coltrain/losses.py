"""Contrastive losses on late-interaction scores.

Every loss takes padded embeddings and their masks and returns one number. With s_ij the score of
query i and page j (`maxsim`, divided by the number of real query tokens of i where `normalize`
is on), T the temperature and p(i) the page of query i, over Q queries:

    softmax                  mean_i  -log( exp(s_ip(i) / T) / Σ_j exp(s_ij / T) )
    pairwise                 mean_i  softplus( (max_{j≠p(i)} s_ij - s_ip(i)) / T )
    sigmoid                  mean_i  mean_j  softplus( -y_ij s_ij / T ),  y = 1 at j = p(i), else -1
    *_hard_negatives         (1 - w) mean_i mean_n softplus( (h_in - s_ip(i)) / T ) + w (softmax | pairwise)
                             h_in: score of query i and its own n-th mined negative; w: in_batch_weight

Values and gradients equal colpali-engine 0.3.18 with `padding="zero"`, since it leaves padding in
the maximum as a zero vector; with the default they do wherever every query token's best match is
at least 0. What we have beside it: pairs that are not negatives (`ignore`) and positives in any
place.

The functions are pure, and those ending in `_from_scores` take any score matrix.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coltrain.late_interaction import maxsim, maxsim_paired
from coltrain.match_kernel import MatchKernel

Padding = Literal["masked", "zero"]


def softmax(
    queries: Float[Tensor, "queries query_tokens dim"],
    pages: Float[Tensor, "pages page_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"] | None = None,
    page_mask: Bool[Tensor, "pages page_tokens"] | None = None,
    *,
    temperature: float = 0.02,
    normalize: bool = True,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
    symmetric: bool = False,
    padding: Padding = "masked",
    kernel: MatchKernel | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of each query's page among all pages of the batch (InfoNCE).

    Use it with large batches: every page pushes, weighted by how near it is. Embeddings that
    have collapsed give ln(number of pages).

    Args:
        queries: One unit vector per token; any finite value where padded.
        pages: One unit vector per token; any finite value where padded.
        query_mask: True at real tokens, at least one per query.
        page_mask: True at real tokens, at least one per page.
        temperature: What scores are divided by, above 0.
        normalize: Divide scores by the query's number of real tokens.
        positives: For each query the index of its page; without it, query i's page is page i.
        ignore: True where a page must not be a negative of a query: it is relevant too, or is out
            of the query's group. A query's own page always counts.
        filter_threshold: Take a negative for a page that may be relevant when its score is above
            this fraction of the positive's (0.95 in colpali-engine); without it nothing is
            filtered.
        filter_factor: What the scores of such negatives are multiplied by; 0.5 in colpali-engine.
        symmetric: Average with the same loss from pages to queries. Each page needs exactly one
            query then.
        padding: `masked` leaves a page's padding out of the maximum. `zero` takes it for a zero
            vector, as colpali-engine does, so that a token's best match with a page that is shorter
            than the longest of its batch is at least 0.
        kernel: As in `maxsim`, for the scores of the batch; scores of mined negatives are few.

    Returns:
        The mean over queries. A query left with no negative contributes 0.

    Raises:
        ValueError: Shapes do not fit, a query or a page has no real token, or an argument is out
            of range.

    Source:
        colpali-engine 0.3.18, `ColbertLoss`, with its defaults.

    Example:
        >>> embeddings = torch.eye(2).unsqueeze(1)
        >>> softmax(embeddings, embeddings, temperature=1.0)
        tensor(0.3133)
    """
    return _in_batch(softmax_from_scores, **locals())


def pairwise(
    queries: Float[Tensor, "queries query_tokens dim"],
    pages: Float[Tensor, "pages page_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"] | None = None,
    page_mask: Bool[Tensor, "pages page_tokens"] | None = None,
    *,
    temperature: float = 1.0,
    normalize: bool = True,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
    symmetric: bool = False,
    padding: Padding = "masked",
    kernel: MatchKernel | None = None,
) -> Float[Tensor, ""]:
    """Softplus of the hardest in-batch negative's lead over each query's page.

    The published ColQwen2 models were trained with `temperature=1.0, normalize=False`.
    colpali-engine divides by the query's length by default since 0.3.11, which the defaults here
    follow: the same configuration file gives another loss there than it did, one that cannot
    fall below softplus(-1) = 0.313. Embeddings that have collapsed give ln 2.

    Arguments, result and errors are those of `softmax`. Of negatives that tie for the hardest,
    the first receives the gradient.

    Source:
        colpali-engine 0.3.18, `ColbertPairwiseCELoss`; `normalize=False` for 0.3.10 and before.

    Example:
        >>> embeddings = torch.eye(2).unsqueeze(1)
        >>> pairwise(embeddings, embeddings)
        tensor(0.3133)
    """
    return _in_batch(pairwise_from_scores, **locals())


def sigmoid(
    queries: Float[Tensor, "queries query_tokens dim"],
    pages: Float[Tensor, "pages page_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"] | None = None,
    page_mask: Bool[Tensor, "pages page_tokens"] | None = None,
    *,
    temperature: float = 0.02,
    normalize: bool = True,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
    symmetric: bool = False,
    padding: Padding = "masked",
    kernel: MatchKernel | None = None,
) -> Float[Tensor, ""]:
    """Each pair of a query and a page as a yes-or-no question of its own.

    Arguments, result and errors are those of `softmax`, but for one thing: here a query without
    negatives still counts its own page. Each query averages over the pages that it meets.

    Source:
        colpali-engine 0.3.18, `ColbertSigmoidLoss`, for positives in order. With an offset
        between queries and pages that class marks other pages as positive; this one does not.

    Example:
        >>> embeddings = torch.eye(2).unsqueeze(1)
        >>> sigmoid(embeddings, embeddings, temperature=1.0)
        tensor(0.5032)
    """
    return _in_batch(sigmoid_from_scores, **locals())


def softmax_hard_negatives(
    queries: Float[Tensor, "queries query_tokens dim"],
    pages: Float[Tensor, "pages page_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"] | None,
    page_mask: Bool[Tensor, "pages page_tokens"] | None,
    negatives: Float[Tensor, "queries hard_negatives negative_tokens dim"],
    negative_mask: Bool[Tensor, "queries hard_negatives negative_tokens"] | None = None,
    *,
    in_batch_weight: float = 0.5,
    temperature: float = 0.02,
    normalize: bool = True,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
    symmetric: bool = False,
    padding: Padding = "masked",
    kernel: MatchKernel | None = None,
) -> Float[Tensor, ""]:
    """Softplus of each mined negative's lead over the positive, and `softmax` in the batch.

    The other arguments are those of `softmax`; filtering and `ignore` act on the in-batch term.

    Args:
        negatives: For each query the embeddings of its own mined pages.
        negative_mask: True at real tokens, at least one per mined page.
        in_batch_weight: Share of the in-batch term, from 0 to 1; at 0 it is not computed.
        symmetric: Only False: pages have no mined queries.

    Source:
        colpali-engine 0.3.18, `ColbertNegativeCELoss`, with its defaults.
    """
    return _with_hard_negatives(softmax_from_scores, **locals())


def pairwise_hard_negatives(
    queries: Float[Tensor, "queries query_tokens dim"],
    pages: Float[Tensor, "pages page_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"] | None,
    page_mask: Bool[Tensor, "pages page_tokens"] | None,
    negatives: Float[Tensor, "queries hard_negatives negative_tokens dim"],
    negative_mask: Bool[Tensor, "queries hard_negatives negative_tokens"] | None = None,
    *,
    in_batch_weight: float = 0.5,
    temperature: float = 0.02,
    normalize: bool = True,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
    symmetric: bool = False,
    padding: Padding = "masked",
    kernel: MatchKernel | None = None,
) -> Float[Tensor, ""]:
    """Softplus of each mined negative's lead over the positive, and `pairwise` in the batch.

    Arguments are those of `softmax_hard_negatives`. Both terms share the temperature.

    Source:
        colpali-engine 0.3.18, `ColbertPairwiseNegativeCELoss`, with its defaults. In 0.3.1 the
        in-batch term was off, T was 1 and scores were not normalised.
    """
    return _with_hard_negatives(pairwise_from_scores, **locals())


LOSSES: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax,
    "pairwise": pairwise,
    "sigmoid": sigmoid,
    "softmax_hard_negatives": softmax_hard_negatives,
    "pairwise_hard_negatives": pairwise_hard_negatives,
}
"""Every loss by the name that recipes use."""


def softmax_from_scores(
    scores: Float[Tensor, "queries pages"],
    *,
    temperature: float = 0.02,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
) -> Float[Tensor, ""]:
    """`softmax` of scores already at hand, normalised or not."""
    scores, positives, is_candidate = _candidates(
        scores, temperature, positives, ignore, filter_threshold, filter_factor
    )
    logits = (scores / temperature).masked_fill(~is_candidate, -math.inf)
    return functional.cross_entropy(logits, positives)


def pairwise_from_scores(
    scores: Float[Tensor, "queries pages"],
    *,
    temperature: float = 1.0,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
) -> Float[Tensor, ""]:
    """`pairwise` of scores already at hand, normalised or not."""
    scores, positives, is_candidate = _candidates(
        scores, temperature, positives, ignore, filter_threshold, filter_factor
    )
    positive = scores.gather(1, positives.unsqueeze(1)).squeeze(1)
    is_negative = is_candidate.scatter(1, positives.unsqueeze(1), False)
    # Without a negative the maximum is -inf, and softplus and its gradient are exactly 0.
    hardest = scores.masked_fill(~is_negative, -math.inf).max(dim=1).values
    return functional.softplus((hardest - positive) / temperature).mean()


def sigmoid_from_scores(
    scores: Float[Tensor, "queries pages"],
    *,
    temperature: float = 0.02,
    positives: Int[Tensor, " queries"] | None = None,
    ignore: Bool[Tensor, "queries pages"] | None = None,
    filter_threshold: float | None = None,
    filter_factor: float = 0.5,
) -> Float[Tensor, ""]:
    """`sigmoid` of scores already at hand, normalised or not."""
    scores, positives, is_candidate = _candidates(
        scores, temperature, positives, ignore, filter_threshold, filter_factor
    )
    answer = torch.full_like(scores, -1.0).scatter(1, positives.unsqueeze(1), 1.0)
    of_pairs = functional.softplus(-answer * scores / temperature)
    # The mean of each query over its own candidates, so that groups within one batch give what
    # separate batches of that size would.
    of_queries = of_pairs.masked_fill(~is_candidate, 0.0).sum(dim=1) / is_candidate.sum(dim=1)
    return of_queries.mean()


def _in_batch(
    loss_from_scores: Callable[..., Tensor],
    queries: Tensor,
    pages: Tensor,
    query_mask: Tensor | None,
    page_mask: Tensor | None,
    *,
    normalize: bool,
    positives: Tensor | None,
    ignore: Tensor | None,
    symmetric: bool,
    padding: Padding,
    kernel: MatchKernel | None,
    **options,
) -> Tensor:
    scores = _scores(queries, pages, query_mask, page_mask, normalize, padding, kernel)
    loss = loss_from_scores(scores, positives=positives, ignore=ignore, **options)
    if not symmetric:
        return loss
    back = _positives_of_pages(positives, len(queries), len(pages))
    scores = _scores(pages, queries, page_mask, query_mask, normalize, padding, kernel)
    ignore = None if ignore is None else ignore.T
    return (loss + loss_from_scores(scores, positives=back, ignore=ignore, **options)) / 2


def _with_hard_negatives(
    loss_from_scores: Callable[..., Tensor],
    queries: Tensor,
    pages: Tensor,
    query_mask: Tensor | None,
    page_mask: Tensor | None,
    negatives: Tensor,
    negative_mask: Tensor | None,
    *,
    in_batch_weight: float,
    temperature: float,
    normalize: bool,
    positives: Tensor | None,
    symmetric: bool,
    padding: Padding,
    kernel: MatchKernel | None,
    **options,
) -> Tensor:
    if symmetric:
        raise ValueError("symmetric = True with hard negatives; expected False, as pages have none")
    if not 0 <= in_batch_weight <= 1:
        raise ValueError(f"in_batch_weight = {in_batch_weight}, expected a number from 0 to 1")
    _check_temperature(temperature)
    positives = _check_positives(positives, len(queries), len(pages), pages.device)

    pages, page_mask = _in_maximum(pages, page_mask, padding)
    negatives, negative_mask = _in_maximum(negatives, negative_mask, padding)
    own = None if page_mask is None else page_mask[positives].unsqueeze(1)
    lengths = _lengths(queries, query_mask) if normalize else 1
    positive = maxsim_paired(queries, pages[positives].unsqueeze(1), query_mask, own) / lengths
    mined = maxsim_paired(queries, negatives, query_mask, negative_mask) / lengths
    loss = functional.softplus((mined - positive) / temperature).mean()
    if in_batch_weight == 0:
        return loss
    scores = _scores(queries, pages, query_mask, page_mask, normalize, padding, kernel)
    in_batch = loss_from_scores(scores, temperature=temperature, positives=positives, **options)
    return loss * (1 - in_batch_weight) + in_batch * in_batch_weight


def _scores(
    queries: Tensor,
    pages: Tensor,
    query_mask: Tensor | None,
    page_mask: Tensor | None,
    normalize: bool,
    padding: Padding,
    kernel: MatchKernel | None,
) -> Tensor:
    pages, page_mask = _in_maximum(pages, page_mask, padding)
    scores = maxsim(queries, pages, query_mask, page_mask, kernel=kernel)
    return scores / _lengths(queries, query_mask) if normalize else scores


def _in_maximum(
    pages: Tensor, page_mask: Tensor | None, padding: Padding
) -> tuple[Tensor, Tensor | None]:
    """Pages and the mask of what takes part in the maximum over their tokens."""
    if padding not in ("masked", "zero"):
        raise ValueError(f"padding = {padding!r}, expected 'masked' or 'zero'")
    if padding == "masked" or page_mask is None:
        return pages, page_mask
    return pages.masked_fill(~page_mask.unsqueeze(-1), 0.0), None


def _lengths(queries: Tensor, query_mask: Tensor | None) -> Tensor:
    """The number of real tokens of each query, [queries, 1]."""
    if query_mask is None:
        return torch.full((len(queries), 1), queries.shape[1], device=queries.device)
    lengths = query_mask.sum(dim=1, keepdim=True)
    if (lengths == 0).any():
        numbers = (lengths.squeeze(1) == 0).nonzero().squeeze(1).tolist()
        raise ValueError(
            f"query_mask leaves {len(numbers)} of {len(queries)} queries without a real token "
            f"(the first is query {numbers[0]}); their scores cannot be normalised"
        )
    return lengths


def _candidates(
    scores: Tensor,
    temperature: float,
    positives: Tensor | None,
    ignore: Tensor | None,
    filter_threshold: float | None,
    filter_factor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores after filtering, positives, and True where a page counts for a query."""
    _check_temperature(temperature)
    positives = _check_positives(positives, *scores.shape, scores.device)
    columns = positives.unsqueeze(1)
    if ignore is None:
        is_candidate = torch.ones_like(scores, dtype=torch.bool)
    elif ignore.shape != scores.shape:
        raise ValueError(
            f"ignore has shape {list(ignore.shape)}, expected {list(scores.shape)}, "
            "one value for each query and page"
        )
    else:
        is_candidate = (~ignore).scatter(1, columns, True)
    if filter_threshold is not None:
        positive = scores.gather(1, columns)
        is_suspect = (scores > filter_threshold * positive).scatter(1, columns, False)
        scores = torch.where(is_suspect, scores * filter_factor, scores)
    return scores, positives, is_candidate


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}, expected a number above 0")


def _check_positives(
    positives: Tensor | None, num_queries: int, num_pages: int, device: torch.device
) -> Tensor:
    if positives is None:
        if num_pages < num_queries:
            raise ValueError(
                f"{num_queries} queries and {num_pages} pages; expected a page for every query, "
                "or `positives` to say which page belongs to which query"
            )
        return torch.arange(num_queries, device=device)
    if positives.shape != (num_queries,):
        raise ValueError(
            f"positives have shape {list(positives.shape)}, expected [{num_queries}], "
            "one page index for each query"
        )
    if num_queries and not 0 <= int(positives.min()) <= int(positives.max()) < num_pages:
        raise ValueError(
            f"positives run from {int(positives.min())} to {int(positives.max())}, "
            f"expected indices of {num_pages} pages"
        )
    return positives.to(device=device, dtype=torch.long)


def _positives_of_pages(
    positives: Tensor | None, num_queries: int, num_pages: int
) -> Tensor | None:
    """For every page its query."""
    if num_queries == num_pages:
        if positives is None:
            return None
        back = positives.argsort()
        if torch.equal(positives[back], torch.arange(num_pages, device=back.device)):
            return back
    raise ValueError(
        f"symmetric = True with {num_queries} queries and {num_pages} pages, "
        "expected exactly one query for each page"
    )
