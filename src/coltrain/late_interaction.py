"""Late-interaction scores: exact, masked, differentiable, and small in memory.

The similarities of every query token with every page token are a tensor of
queries × pages × query tokens × page tokens. With 256 queries of 30 tokens and 256 pages of 768
tokens that is 1.5 billion numbers, 6 GB in float32, and autograd keeps them for the backward
pass. Here only one tile of it exists at a time: the similarities of the query tokens with the
page, or the few pages, at hand. All that the backward pass needs is which page token won, so
forward keeps one 32-bit index for each query token and page.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence

from coltrain.match_kernel import MatchKernel

# Elements of one tile. On a CPU a tile that stays in the core's cache makes the maximum nearly
# free beside the matrix product; on an accelerator it has to be large enough to fill the device.
CPU_TILE = 2**19
ACCELERATOR_TILE = 2**24

# From so many similarities to a page on, padding is cut out before the product; below, finding it
# costs more than multiplying it. (It also keeps small float32 products equal to the last bit with
# those of one padded matrix, which is what other libraries compute: at a temperature of 0.02 the
# last bit of a score is the sixth digit of a gradient.)
CUT_PADDING_FROM = 2**15

# Up to so many similarities, candidates are scored by one batched product: 1 MB in float32.
SMALL_PAIRED = 2**18


def maxsim(
    queries: Float[Tensor, "queries query_tokens dim"],
    pages: Float[Tensor, "pages page_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"] | None = None,
    page_mask: Bool[Tensor, "pages page_tokens"] | None = None,
    *,
    pages_per_block: int | None = None,
    kernel: MatchKernel | None = None,
) -> Float[Tensor, "queries pages"]:
    """Score every query against every page by late interaction.

    Each query token keeps its best match among a page's real tokens, and the matches are summed.
    Padding is removed before the maximum, so a score does not depend on how far its batch was
    padded. Differentiable once, in queries and pages; where several tokens of a page tie for the
    best match, the first of them receives the gradient.

    Costs one matrix product of all query tokens with all page tokens. Memory: one tile (a page
    on a CPU; at most a quarter of the pages and 2^24 elements on an accelerator) and, when a
    gradient is wanted, 4 bytes for each query token and page.

    Args:
        queries: One unit vector per token; any finite value where padded.
        pages: One unit vector per token; any finite value where padded.
        query_mask: True at real tokens; without it every token is real. A query without a real
            token scores 0.
        page_mask: True at real tokens, at least one per page; without it every token is real.
        pages_per_block: Pages in one tile, for measuring; chosen by the device otherwise.
        kernel: Finds the winning page tokens on a GPU, of which alone scores are then the products;
            None compares all products here. Its scores are at most 2e-3 lower for each query token
            (`SHORTFALL` of coltrain.match_kernel, which says where), and never higher.

    Returns:
        Scores, a sum over query tokens and not a mean. In float64 when an input is, in float32
        otherwise: half-precision embeddings are multiplied and summed in float32, also under
        autocast.

    Raises:
        ValueError: A page has no real token, or shapes do not fit.

    Source:
        MaxSim in ColBERT (Khattab and Zaharia, 2020, arXiv:2004.12832). colpali-engine leaves
        padding in the maximum as a zero vector (`maxsim_zero_padded`); scores agree wherever each
        query token has a match of at least 0.

    Example:
        >>> query = torch.tensor([[[1.0, 0.0]]])
        >>> page = torch.tensor([[[-0.6, 0.8], [0.0, 0.0]]])
        >>> maxsim(query, page, page_mask=torch.tensor([[True, False]]))
        tensor([[-0.6000]])
    """
    _check_shapes("queries", queries, query_mask, num_axes=3)
    _check_shapes("pages", pages, page_mask, num_axes=3)
    _check_dims(queries, pages)
    if pages_per_block is not None and pages_per_block < 1:
        raise ValueError(f"pages_per_block = {pages_per_block}, expected at least 1")
    spans = _spans(queries, pages, page_mask)
    keeps_winners = torch.is_grad_enabled() and (queries.requires_grad or pages.requires_grad)
    keeps_winners &= kernel is None
    winners = None
    if kernel is not None:
        winners = kernel.winners(queries, pages, query_mask, page_mask)
    return _MaxSim.apply(
        queries, pages, query_mask, page_mask, spans, pages_per_block, keeps_winners, winners
    )


def maxsim_paired(
    queries: Float[Tensor, "queries query_tokens dim"],
    pages: Float[Tensor, "queries candidates page_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"] | None = None,
    page_mask: Bool[Tensor, "queries candidates page_tokens"] | None = None,
) -> Float[Tensor, "queries candidates"]:
    """Score every query against its own candidates, such as its hard negatives.

    Masks, precision, ties and errors are those of `maxsim`, and so is the memory: one tile for a
    query and one of its candidates. Where all tiles together are below 1 MB they are one product.

    Args:
        queries: One unit vector per token; any finite value where padded.
        pages: For each query its own pages, the same number for each.
        query_mask: True at real tokens.
        page_mask: True at real tokens, at least one per page.

    Returns:
        One score for each query and each of its candidates.

    Raises:
        ValueError: A page has no real token, or shapes do not fit.
    """
    _check_shapes("queries", queries, query_mask, num_axes=3)
    _check_shapes("pages", pages, page_mask, num_axes=4)
    _check_dims(queries, pages)
    if len(queries) != len(pages):
        raise ValueError(
            f"{len(queries)} queries with candidates for {len(pages)}; "
            "the first axis of both counts the queries"
        )
    if pages.shape[-2] * pages.shape[1] * queries.shape[:2].numel() <= SMALL_PAIRED:
        return _small_paired(queries, pages, query_mask, page_mask)
    query_masks = [None] * len(queries) if query_mask is None else query_mask.split(1)
    page_masks = [None] * len(queries) if page_mask is None else page_mask.unbind()
    # unbind rather than indexing: its backward stacks the parts once, where every index would
    # add a zero-filled gradient as large as all candidates together.
    rows = [
        maxsim(query.unsqueeze(0), candidates, own_query_mask, own_page_mask).squeeze(0)
        for query, candidates, own_query_mask, own_page_mask in zip(
            queries.unbind(), pages.unbind(), query_masks, page_masks, strict=True
        )
    ]
    return torch.stack(rows)


def _small_paired(
    queries: Tensor, pages: Tensor, query_mask: Tensor | None, page_mask: Tensor | None
) -> Tensor:
    """`maxsim_paired` in one product, for autograd to follow."""
    if pages.shape[-2] == 0 or (page_mask is not None and not page_mask.any(dim=-1).all()):
        raise ValueError("page_mask leaves a candidate without a real token; it has no score")
    dtype = _compute_dtype(queries, pages)
    with torch.autocast(queries.device.type, enabled=False):
        tile = torch.einsum("qid,qkjd->qkij", queries.to(dtype), pages.to(dtype))
    if page_mask is not None:
        tile = tile.masked_fill(~page_mask.unsqueeze(2), -math.inf)
    matches = tile.max(dim=-1).values
    if query_mask is not None:
        matches = matches.masked_fill(~query_mask.unsqueeze(1), 0.0)
    return matches.sum(dim=-1)


def maxsim_zero_padded(
    queries: Sequence[Float[Tensor, "_ dim"]],
    pages: Sequence[Float[Tensor, "_ dim"]],
    *,
    block_size: int = 128,
    padded_to: int | None = None,
) -> Float[Tensor, "queries pages"]:
    """Score as the reference does: in the embeddings' own type, padding left in as zero vectors.

    For comparing with scores that others computed, not for ranking: a page that is shorter than
    the longest of its block gets no token match below 0, so that a score depends on which pages
    happen to stand beside it; and in bfloat16 a sum near 20 moves in steps of 0.125. It is the same
    operations on blocks of the same shape, so that the scores are equal to the last bit on the same
    device. Memory: the similarities of a whole block, 1.5 GB in float32 for 128 queries of 30
    tokens and 128 pages of 768.

    Args:
        queries: One tensor of tokens x dim each, unpadded.
        pages: One tensor of tokens x dim each, unpadded, of the queries' type.
        block_size: Queries, and pages, that are padded together, in the order given.
        padded_to: Tokens to which every page is padded; None for the longest of its block. mteb
            pads to the longest of the corpus.

    Returns:
        Scores in float32; with embeddings in bfloat16, values of bfloat16.

    Raises:
        ValueError: There is no query or no page, or a page is longer than what it is padded to.

    Source:
        colpali-engine 0.3.18, `score_multi_vector` in utils/processing_utils.py with
        `_torch_maxsim` in utils/maxsim.py. Its Triton kernel (GPUs of capability 8.0 and later,
        where the extra is installed) sums in another order.

    Example:
        >>> query = torch.tensor([[1.0, 0.0]])
        >>> short, long = torch.tensor([[-0.6, 0.8]]), torch.tensor([[-0.8, 0.6], [-0.6, 0.8]])
        >>> maxsim_zero_padded([query], [short, long])
        tensor([[ 0.0000, -0.6000]])
    """
    if not len(queries) or not len(pages):
        raise ValueError(f"{len(queries)} queries and {len(pages)} pages, expected one at least")
    if block_size < 1:
        raise ValueError(f"block_size = {block_size}, expected at least 1")
    longest = max(len(page) for page in pages)
    if padded_to is not None and padded_to < longest:
        raise ValueError(f"padded_to = {padded_to}, but a page has {longest} tokens")
    rows = []
    for start in range(0, len(queries), block_size):
        block = pad_sequence(list(queries[start : start + block_size]), batch_first=True)
        row = []
        for first in range(0, len(pages), block_size):
            beside = pad_sequence(list(pages[first : first + block_size]), batch_first=True)
            if padded_to is not None:
                beside = F.pad(beside, (0, 0, 0, padded_to - beside.shape[1]))
            matches = torch.einsum("bnd,csd->bcns", block, beside).amax(dim=3)
            row.append(matches.sum(dim=2))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows, dim=0).float()


class _MaxSim(torch.autograd.Function):
    """Tile by tile: one matrix product, the maximum over page tokens, the sum over query tokens."""

    @staticmethod
    def forward(
        ctx, queries, pages, query_mask, page_mask, spans, pages_per_block, keeps_winners, found
    ):
        num_queries, num_query_tokens, _ = queries.shape
        num_pages = len(pages)
        dtype = _compute_dtype(queries, pages)
        tokens, real, padding_queries = _query_tokens(queries, query_mask, pages.shape[1], dtype)
        scores = tokens.new_zeros(num_pages, num_queries)
        winners = None
        if found is not None:
            winners = found.transpose(0, 1).flatten(1)
            winners = winners if real is None else winners[:, real]
        elif keeps_winners:
            winners = torch.empty(num_pages, len(tokens), dtype=torch.int32, device=tokens.device)

        memory = tokens.new_empty(0)
        for block, page_tokens, parts in _blocks(tokens, pages, spans, pages_per_block):
            matches = tokens.new_zeros(block.stop - block.start, num_queries * num_query_tokens)
            documents = pages[block, page_tokens].to(dtype)
            padding = _padding_inside(page_mask, block, page_tokens)
            for part in parts:
                if found is not None:
                    best = _products_of(pages[block].to(dtype), tokens[part], winners[block, part])
                    matches[:, part if real is None else real[part]] = best
                    continue
                tile = _product(documents, tokens[part], memory)
                if padding is not None:
                    tile.masked_fill_(padding.unsqueeze(-1), -math.inf)
                best, winner = _best_match(tile, keeps_winners)
                matches[:, part if real is None else real[part]] = best
                if winners is not None:
                    winners[block, part] = winner.add_(page_tokens.start)
            if padding_queries is not None:
                matches.masked_fill_(padding_queries, 0.0)
            matches = matches.view(len(matches), num_queries, num_query_tokens)
            torch.sum(matches, dim=-1, out=scores[block])

        ctx.save_for_backward(queries, pages, query_mask, winners)
        ctx.spans, ctx.pages_per_block = spans, pages_per_block
        return scores.T.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_scores):
        queries, pages, query_mask, winners = ctx.saved_tensors
        needs_queries, needs_pages = ctx.needs_input_grad[:2]
        num_queries, num_query_tokens, dim = queries.shape
        num_page_tokens = pages.shape[1]
        dtype = _compute_dtype(queries, pages)
        tokens, real, padding = _query_tokens(queries, query_mask, num_page_tokens, dtype)
        owner = torch.arange(num_queries, device=tokens.device).repeat_interleave(num_query_tokens)
        owner = owner if real is None else owner[real]
        weights = grad_scores.to(dtype).T
        # A page token may be the best match of thousands of query tokens. Added one by one in
        # float32, that would cost a digit. (Apple's GPUs have no float64.)
        exact = dtype if tokens.device.type == "mps" else torch.float64

        grad_tokens = torch.zeros_like(tokens, dtype=exact) if needs_queries else None
        grad_pages = torch.empty(pages.shape, dtype=pages.dtype, device=pages.device)
        for block, _, parts in _blocks(tokens, pages, ctx.spans, ctx.pages_per_block):
            num_in_block = block.stop - block.start
            offsets = torch.arange(num_in_block, device=tokens.device, dtype=torch.int32)
            offsets = offsets.unsqueeze(1) * num_page_tokens
            documents = pages[block].reshape(-1, dim)
            grad_documents = torch.zeros_like(documents, dtype=exact) if needs_pages else None
            for part in parts:
                rows = (winners[block, part] + offsets).flatten()
                weight = weights[block][:, owner[part]]
                if padding is not None:
                    weight.masked_fill_(padding[part], 0.0)
                weight = weight.unsqueeze(-1)
                if needs_pages:
                    contributions = (weight * tokens[part]).view(-1, dim)
                    grad_documents.index_add_(0, rows, contributions.to(exact))
                if needs_queries:
                    matched = documents.index_select(0, rows).to(dtype).view(num_in_block, -1, dim)
                    grad_tokens[part] += matched.mul_(weight).sum(dim=0, dtype=exact)
            if needs_pages:
                grad_pages[block] = grad_documents.view(num_in_block, num_page_tokens, dim)

        grad_queries = None
        if needs_queries:
            grad_queries = torch.zeros_like(queries, memory_format=torch.contiguous_format)
            rows = slice(None) if real is None else real
            grad_queries.view(-1, dim)[rows] = grad_tokens.to(queries.dtype)
        return grad_queries, grad_pages if needs_pages else None, *[None] * 6


def _product(documents: Tensor, tokens: Tensor, memory: Tensor) -> Tensor:
    """[pages, page tokens, query tokens], in memory that every tile uses again.

    A fresh tensor for each would cost a page fault for every 4 KiB of it.
    A product into given memory also stays as it is where autocast would take it to half precision.
    """
    num_pages, num_page_tokens, dim = documents.shape
    size = num_pages * num_page_tokens * len(tokens)
    if memory.numel() < size:
        memory.resize_(size)
    tile = memory[:size].view(num_pages * num_page_tokens, len(tokens))
    torch.mm(documents.reshape(-1, dim), tokens.T, out=tile)
    return tile.view(num_pages, num_page_tokens, len(tokens))


def _products_of(documents: Tensor, tokens: Tensor, winners: Tensor) -> Tensor:
    """[pages, query tokens]: of each query token with the page token that won."""
    won = documents.gather(1, winners.long().unsqueeze(-1).expand(-1, -1, documents.shape[-1]))
    return won.mul_(tokens).sum(dim=-1)


def _best_match(tile: Tensor, wants_winner: bool) -> tuple[Tensor, Tensor | None]:
    """The largest entry of every column of [pages, page tokens, query tokens], and its row."""
    if not wants_winner:
        return tile.amax(dim=1), None  # several times as fast as the maximum with its index
    best, winner = tile.max(dim=1)
    return best, winner.to(torch.int32)


def _blocks(tokens: Tensor, pages: Tensor, spans: list[tuple[int, int]], pages_per_block):
    """Cut the work into tiles: (pages, their span of real tokens, parts of the query tokens)."""
    num_tokens, dim = tokens.shape
    num_pages, num_page_tokens, _ = pages.shape
    on_cpu = tokens.device.type == "cpu"
    limit = CPU_TILE if on_cpu else ACCELERATOR_TILE
    # The backward pass makes tiles of query tokens × dim, so that dim counts as well.
    width = max(num_page_tokens, dim, 1)
    if pages_per_block is None:
        fitting = limit // (max(num_tokens, 1) * width)
        pages_per_block = 1 if on_cpu else max(1, min(num_pages // 4, fitting))
    num_parts = max(1, math.ceil(num_tokens * pages_per_block * width / limit))
    tokens_per_part = max(1, math.ceil(num_tokens / num_parts))
    parts = [
        slice(start, min(start + tokens_per_part, num_tokens))
        for start in range(0, num_tokens, tokens_per_part)
    ]
    for start in range(0, num_pages, pages_per_block):
        block = slice(start, min(start + pages_per_block, num_pages))
        first = min(span[0] for span in spans[block])
        last = max(span[1] for span in spans[block])
        yield block, slice(first, last), parts


def _query_tokens(
    queries: Tensor, mask: Tensor | None, num_page_tokens: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Query tokens one below another, and how padding was dealt with.

    Either it was cut out: then the second result holds the rows that were kept. Or it is still
    there: then the third is True at padding. Both are None where there is none.
    """
    tokens = queries.reshape(-1, queries.shape[-1]).to(dtype)
    if mask is None or mask.all():
        return tokens, None, None
    if len(tokens) * num_page_tokens < CUT_PADDING_FROM:
        return tokens, None, ~mask.flatten()
    real = mask.flatten().nonzero().squeeze(1)
    return tokens[real], real, None


def _spans(queries: Tensor, pages: Tensor, mask: Tensor | None) -> list[tuple[int, int]]:
    """For every page the tokens to multiply: from the first real token to the last.

    With padding on one side, as tokenizers pad, this leaves no padding to mask.
    """
    num_pages, num_page_tokens, _ = pages.shape
    if mask is None:
        if num_page_tokens == 0 and num_pages:
            raise ValueError("pages have no tokens; expected at least one real token per page")
        return [(0, num_page_tokens)] * num_pages
    is_empty = ~mask.any(dim=1)
    if is_empty.any():
        numbers = is_empty.nonzero().squeeze(1).tolist()
        shown = ", ".join(str(number) for number in numbers[:3])
        raise ValueError(
            f"page_mask leaves {len(numbers)} of {num_pages} pages without a real token "
            f"(page {shown}{', …' if len(numbers) > 3 else ''}); such a page has no score"
        )
    num_query_tokens = queries.shape[0] * queries.shape[1]
    if num_pages == 0 or num_query_tokens * num_page_tokens < CUT_PADDING_FROM:
        return [(0, num_page_tokens)] * num_pages
    as_number = mask.to(torch.uint8)
    first = as_number.argmax(dim=1)
    last = num_page_tokens - as_number.flip(1).argmax(dim=1)
    return list(map(tuple, torch.stack([first, last], dim=1).tolist()))


def _padding_inside(mask: Tensor | None, block: slice, page_tokens: slice) -> Tensor | None:
    """True where the cut-out of the block is padding; None where it surely holds none."""
    if mask is None:
        return None
    padding = ~mask[block, page_tokens]
    return padding if padding.any() else None


def _compute_dtype(queries: Tensor, pages: Tensor) -> torch.dtype:
    """float64 when an input is, float32 otherwise."""
    dtype = torch.promote_types(queries.dtype, pages.dtype)
    return torch.promote_types(dtype, torch.float32)


def _check_dims(queries: Tensor, pages: Tensor) -> None:
    if queries.shape[-1] != pages.shape[-1]:
        raise ValueError(
            f"queries and pages differ in dim: {queries.shape[-1]} and {pages.shape[-1]}; "
            "both come from one model, which has one dim"
        )


def _check_shapes(name: str, embeddings: Tensor, mask: Tensor | None, num_axes: int) -> None:
    if embeddings.ndim != num_axes:
        expected = f"[{name}, tokens, dim]" if num_axes == 3 else "[queries, pages, tokens, dim]"
        raise ValueError(f"{name} have shape {list(embeddings.shape)}, expected {expected}")
    if mask is None:
        return
    mask_name = name.replace("queries", "query").replace("pages", "page") + "_mask"
    if mask.shape != embeddings.shape[:-1]:
        raise ValueError(
            f"{mask_name} has shape {list(mask.shape)}, "
            f"expected {list(embeddings.shape[:-1])}, one value per token of {name}"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"{mask_name} has dtype {mask.dtype}, expected torch.bool")
