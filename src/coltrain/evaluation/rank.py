"""Scores of every query against every page: MaxSim streamed over pages, unpadded.

One page is multiplied with one block of query tokens at a time, into one buffer that stays in the
core's cache, so that the maximum over the page's tokens is nearly free beside the product. Nothing
is held but the queries, one page and the scores: a corpus may come from disk.

A score depends on its query and its page alone, to the last bit: not on the other queries, not on
the other pages, not on their order. Three things see to it. A page is copied to the same place in
memory before it is multiplied. It is checked, once for each length of a page, that the library's
matrix product treats all columns of all blocks alike; where it does not, each query gets a block of
its own. And a query's best matches are summed
in float64, where the sum of some dozen float32 numbers is exact in any order (for up to 64
numbers none of which is nearer to 0 than 6e-8), and rounded once.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import torch
from torch import Tensor

from coltrain.evaluation.scoring import Scoring

# Query tokens multiplied at once. With a page of 768 tokens a block's products take 1.6 MB on a
# CPU (benchmarks/ranking.py); a GPU wants them large.
CPU_BLOCK = 512
ACCELERATOR_BLOCK = 8192
# Pages whose scores lie together in memory. One small tensor for each page would stay between the
# products, which come and go, and the gaps that it leaves grew to 300 MB over 5,000 pages.
PAGES_TOGETHER = 256
# The layout of a block is chosen for pages of about this many tokens.
PAGE_TOKENS = 768
# The width of the last block, and of one that a query has for itself, is a multiple of this.
NARROWEST_BLOCK = 32


def score_all(
    queries: Sequence[Tensor], pages: Iterable[Tensor], scoring: Scoring | None = None
) -> Tensor:
    """MaxSim of unpadded embeddings.

    Costs one matrix product of all query tokens with all page tokens. Memory beside the queries
    and the scores: one page and one block.

    Args:
        queries: One tensor of tokens x dim each.
        pages: One tensor of tokens x dim each; asked for one after the other.
        scoring: Arithmetic and padding; the default of `Scoring` otherwise.

    Returns:
        Scores, queries x pages, on the CPU: in float32 (or float64, where the queries are). Under
        "embeddings" they are computed in the queries' type and handed back in float32.

    Raises:
        ValueError: A page has no token.
    """
    scorer = PageScorer(queries, scoring)
    scored = [scorer.score(page) for page in pages]
    return scorer.scores(scored)


class PageScorer:
    """Scores one page after the other against queries that stay.

    Args:
        queries: One tensor of tokens x dim each; their type and device are those of the work.
        scoring: Arithmetic and padding; the default of `Scoring` otherwise.
    """

    def __init__(self, queries: Sequence[Tensor], scoring: Scoring | None = None) -> None:
        self._scoring = scoring or Scoring()
        self._queries = list(queries)
        if self._queries:
            given, self._device = self._queries[0].dtype, self._queries[0].device
            self._dim = self._queries[0].shape[1]
        else:
            given, self._device, self._dim = torch.float32, torch.device("cpu"), 0
        # float64 stays, so that a test can compare without rounding.
        is_wide = self._scoring.dtype == "float32"
        self._dtype = torch.promote_types(given, torch.float32) if is_wide else given
        self._out_dtype = torch.promote_types(given, torch.float32)
        self._lengths = torch.tensor([len(query) for query in self._queries], dtype=torch.int64)
        self._lengths = self._lengths.to(self._device)
        self._shared = None
        if self._queries:
            width = CPU_BLOCK if self._device.type == "cpu" else ACCELERATOR_BLOCK
            tokens = torch.cat([query.to(self._dtype) for query in self._queries])
            self._shared = _Blocks(tokens.split(width))
        self._own: _Blocks | None = None
        self._page = torch.empty((0, self._dim), dtype=self._dtype, device=self._device)
        self._room: list[Tensor] = []  # rows for the scores of pages to come

    def score(self, page: Tensor) -> tuple[Tensor, Tensor | None, int]:
        """One page against all queries.

        Args:
            page: tokens x dim, of any type and on any device.

        Returns:
            The score of each query; the same with a zero vector among the page's tokens, where
            padding counts; and the number of tokens. For `scores`.

        Raises:
            ValueError: The page has no token.
        """
        with torch.inference_mode():
            num_tokens = len(page)
            if not num_tokens:
                raise ValueError("a page has no tokens; expected at least one")
            if not self._queries:
                none = torch.empty(0, dtype=self._out_dtype)
                return none, none, num_tokens
            if num_tokens > len(self._page):
                self._page = self._page.new_empty((num_tokens, self._dim))
            rows = self._page[:num_tokens].copy_(page)
            best = self._blocks_for(num_tokens).best_matches(rows)
            plain = self._summed(best)
            if self._scoring.padding == "masked":
                return plain, None, num_tokens
            return plain, self._summed(best.clamp(min=0)), num_tokens

    def scores(self, scored: Sequence[tuple[Tensor, Tensor | None, int]]) -> Tensor:
        """The scores of pages in the order of the data, queries x pages.

        Args:
            scored: What `score` returned for each page.
        """
        if not scored:
            return torch.empty((len(self._queries), 0), dtype=self._out_dtype)
        block = self._scoring.page_block or len(scored)
        columns = []
        for start in range(0, len(scored), block):
            together = scored[start : start + block]
            longest = max(num_tokens for _, _, num_tokens in together)
            for plain, floored, num_tokens in together:
                is_padded = floored is not None and num_tokens < longest
                columns.append(floored if is_padded else plain)
        return torch.stack(columns, dim=1).cpu()

    def _blocks_for(self, num_tokens: int) -> "_Blocks":
        widths = self._shared.widths
        if columns_are_alike(num_tokens, self._dim, widths, self._dtype, self._device):
            return self._shared
        if self._own is None:
            self._own = _Blocks([query.to(self._dtype) for query in self._queries])
        return self._own

    def _summed(self, best: Tensor) -> Tensor:
        sums = torch.segment_reduce(best.double(), "sum", lengths=self._lengths, initial=0.0)
        if not self._room:
            size = (PAGES_TOGETHER, len(self._queries))
            rows = torch.empty(size, dtype=self._out_dtype, device=self._device)
            self._room = list(rows.unbind())
        # Rounded to the working type first: a sum in bfloat16 has its steps.
        return self._room.pop().copy_(sums.to(self._dtype))


class _Blocks:
    """Query tokens as columns, in blocks.

    Args:
        groups: The tokens of each block. Blocks of many queries may begin in the middle of one.
    """

    def __init__(self, groups: Sequence[Tensor]) -> None:
        self._blocks = [_Block(group, block_width(len(group))) for group in groups]
        self.widths = tuple(sorted({block.width for block in self._blocks}))
        self._best = groups[0].new_empty(sum(map(len, groups)))
        self._places = self._best.split([len(group) for group in groups])

    def best_matches(self, rows: Tensor) -> Tensor:
        """For each query token its best match among the rows, until the next call."""
        for block, best in zip(self._blocks, self._places, strict=True):
            torch.amax(block.products(rows), 0, out=best)
        return self._best


def block_width(num_tokens: int) -> int:
    """Columns of a block that holds so many query tokens."""
    return -(-max(num_tokens, 1) // NARROWEST_BLOCK) * NARROWEST_BLOCK


class _Block:
    """Some query tokens, ready to be multiplied with the tokens of many pages.

    On a CPU in float32 they are laid out for oneDNN once: its product is 5 to 9 % faster than the
    one of `torch.mm`, which arranges them anew for each page. (The operators are those that
    torch's own compiler calls; elsewhere, and in other types, it is `torch.mm`.)

    Args:
        tokens: tokens x dim.
        width: Columns of the block, zero beyond the tokens.
    """

    def __init__(self, tokens: Tensor, width: int) -> None:
        self.width = width
        self._num_real = len(tokens)
        padded = tokens.new_zeros((width, tokens.shape[1]))
        padded[: len(tokens)] = tokens
        is_plain = tokens.dtype != torch.float32 or tokens.device.type != "cpu"
        self._packed = None
        if not is_plain and torch.backends.mkldnn.is_available():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(padded, PAGE_TOKENS)
        else:
            self._columns = padded.T.contiguous()
            self._tile = tokens.new_empty(0)

    def products(self, rows: Tensor) -> Tensor:
        """rows x tokens."""
        if self._packed is not None:
            found = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, "none", [], "")
        else:
            size = len(rows) * self.width
            if size > len(self._tile):
                self._tile = rows.new_empty(size)
            found = torch.mm(rows, self._columns, out=self._tile[:size].view(len(rows), -1))
        return found if self._num_real == self.width else found[:, : self._num_real]


@cache
def columns_are_alike(
    num_rows: int, dim: int, widths: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> bool:
    """Whether matrix products of these widths give equal columns for equal columns.

    A library may compute the columns at the edge of a block, or of a narrow block, by another
    routine, in another order of additions. Then a score would depend on where in the block its
    query stands, that is, on which queries are asked beside it. The narrowest block is always
    among those compared: one query alone has it.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((num_rows, dim), generator=generator).to(device, dtype)
    token = torch.randn((1, dim), generator=generator).to(device, dtype)
    with torch.inference_mode():
        first, *others = (
            _Block(token.expand(width, dim), width).products(rows)
            for width in (NARROWEST_BLOCK, *widths)
        )
        return all(bool((products == first[:, :1]).all()) for products in (first, *others))
