"""maxsim: equal to a slow loop in values and gradients, whatever the padding, order and blocks."""

import doctest
import importlib
import inspect

import pytest
import torch
from reference_loops.late_interaction import maxsim_loop, maxsim_paired_loop
from reference_loops.ragged import ragged
from torch.utils._python_dispatch import TorchDispatchMode

from coltrain.late_interaction import maxsim, maxsim_paired, maxsim_zero_padded

module = importlib.import_module("coltrain.late_interaction")

QUERY_LENGTHS = [3, 7, 1, 5]
PAGE_LENGTHS = [9, 4, 11, 6, 1]


@pytest.fixture(params=["cuts padding", "multiplies padding"])
def padding_treatment(request, monkeypatch):
    """Both ways of dealing with padding, whatever the size of the test's tensors."""
    limit = 0 if request.param == "cuts padding" else 2**62
    monkeypatch.setattr(module, "CUT_PADDING_FROM", limit)


@pytest.fixture(params=["one product", "query by query"])
def pairing(request, monkeypatch):
    monkeypatch.setattr(module, "SMALL_PAIRED", 2**62 if request.param == "one product" else 0)


def uneven(padding_side="right", dtype=torch.float64):
    queries, query_mask = ragged(
        QUERY_LENGTHS, 8, seed=1, padding_side=padding_side, rubbish=-7.0, dtype=dtype
    )
    pages, page_mask = ragged(PAGE_LENGTHS, 8, seed=2, padding_side=padding_side, dtype=dtype)
    return queries.requires_grad_(), pages.requires_grad_(), query_mask, page_mask


def gradients(scores, *inputs):
    """Gradients of a sum whose weights differ for every score."""
    weights = torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype).view_as(scores)
    return torch.autograd.grad((scores * weights).sum(), inputs)


def relative_difference(left, right):
    return ((left - right).norm() / right.norm()).item()


def assert_equal(ours, theirs, rtol=1e-14):
    for left, right in zip(ours, theirs, strict=True):
        assert right.norm() > 0
        assert relative_difference(left, right) <= rtol  # 1e-14: float64 sums of at most 11 terms


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("pages_per_block", [None, 1, 2, 5])
@pytest.mark.parametrize("tile", [None, 40])
@pytest.mark.usefixtures("padding_treatment")
def test_scores_and_gradients_equal_a_slow_loop(padding_side, pages_per_block, tile, monkeypatch):
    if tile is not None:
        monkeypatch.setattr(module, "CPU_TILE", tile)  # several blocks of query tokens
    queries, pages, *masks = uneven(padding_side)
    ours = maxsim(queries, pages, *masks, pages_per_block=pages_per_block)
    theirs = maxsim_loop(queries, pages, *masks)
    assert ours.shape == (4, 5)
    assert_equal(
        [ours, *gradients(ours, queries, pages)], [theirs, *gradients(theirs, queries, pages)]
    )


@pytest.mark.usefixtures("padding_treatment")
def test_padding_in_the_middle_is_left_out():
    queries, query_mask = ragged([7] * 4, 8, seed=7)
    pages, page_mask = ragged([11] * 5, 8, seed=8)
    queries.requires_grad_()
    pages.requires_grad_()
    query_mask[1, 2:4] = False
    page_mask[0, 3:7] = False
    page_mask[3, [1, 9]] = False
    for pages_per_block in (1, 3):
        ours = maxsim(queries, pages, query_mask, page_mask, pages_per_block=pages_per_block)
        theirs = maxsim_loop(queries, pages, query_mask, page_mask)
        assert_equal(
            [ours, *gradients(ours, queries, pages)], [theirs, *gradients(theirs, queries, pages)]
        )


@pytest.mark.usefixtures("pairing", "padding_treatment")
def test_paired_scores_and_gradients_equal_a_slow_loop():
    queries, query_mask = ragged([3, 7, 1], 8, seed=3)
    pages, page_mask = ragged([5, 2, 9, 1, 4, 6], 8, seed=4)
    pages, page_mask = pages.view(3, 2, 9, 8), page_mask.view(3, 2, 9)
    queries.requires_grad_()
    pages.requires_grad_()
    ours = maxsim_paired(queries, pages, query_mask, page_mask)
    theirs = maxsim_paired_loop(queries, pages, query_mask, page_mask)
    assert ours.shape == (3, 2)
    assert_equal(
        [ours, *gradients(ours, queries, pages)], [theirs, *gradients(theirs, queries, pages)]
    )


@pytest.mark.usefixtures("pairing")
def test_paired_without_masks_takes_every_token():
    queries, pages = torch.randn(2, 3, 4), torch.randn(2, 5, 6, 4)
    everything = [torch.ones(x.shape[:-1], dtype=torch.bool) for x in (queries, pages)]
    torch.testing.assert_close(
        maxsim_paired(queries, pages), maxsim_paired(queries, pages, *everything)
    )


@pytest.mark.usefixtures("padding_treatment")
def test_gradcheck_passes_in_float64():
    queries, query_mask = ragged([2, 4], 3, seed=5, rubbish=0.3)
    pages, page_mask = ragged([5, 3, 6], 3, seed=6, rubbish=0.3)
    inputs = (queries.requires_grad_(), pages.requires_grad_(), query_mask, page_mask)
    assert torch.autograd.gradcheck(maxsim, inputs)
    assert torch.autograd.gradcheck(lambda q, p: maxsim(q, p, None, page_mask), inputs[:2])


@pytest.mark.parametrize("needs", ["queries", "pages"])
def test_one_side_alone_can_need_a_gradient(needs):
    queries, pages, *masks = uneven()
    both = gradients(maxsim(queries, pages, *masks), queries, pages)
    if needs == "queries":
        (alone,) = gradients(maxsim(queries, pages.detach(), *masks), queries)
    else:
        (alone,) = gradients(maxsim(queries.detach(), pages, *masks), pages)
    assert torch.equal(alone, both[needs == "pages"])


@pytest.mark.usefixtures("padding_treatment")
def test_padding_gets_no_gradient():
    queries, pages, query_mask, page_mask = uneven()
    grad_queries, grad_pages = gradients(
        maxsim(queries, pages, query_mask, page_mask), queries, pages
    )
    assert (grad_queries[~query_mask] == 0).all()
    assert (grad_pages[~page_mask] == 0).all()
    assert (grad_queries[query_mask] != 0).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_scores(side):
    queries, pages, query_mask, page_mask = (tensor.detach() for tensor in uneven(side))
    before = maxsim(queries, pages, query_mask, page_mask)
    widths = (3, 0) if side == "left" else (0, 3)
    further = maxsim(
        torch.nn.functional.pad(queries, (0, 0, *widths), value=55.0),
        torch.nn.functional.pad(pages, (0, 0, *widths), value=55.0),
        torch.nn.functional.pad(query_mask, widths),
        torch.nn.functional.pad(page_mask, widths),
    )
    torch.testing.assert_close(further, before, rtol=1e-14, atol=1e-14)
    assert (before < 55).all()


def test_every_pair_scores_as_it_does_alone():
    queries, pages, query_mask, page_mask = uneven()
    whole = maxsim(queries, pages, query_mask, page_mask)
    for i, query in enumerate(queries):
        for j, page in enumerate(pages):
            alone = maxsim(query[query_mask[i]].unsqueeze(0), page[page_mask[j]].unsqueeze(0))
            torch.testing.assert_close(alone.squeeze(), whole[i, j], rtol=1e-14, atol=1e-14)


def test_order_of_pages_queries_and_tokens_does_not_matter():
    queries, pages, query_mask, page_mask = (tensor.detach() for tensor in uneven())
    scores = maxsim(queries, pages, query_mask, page_mask)
    order = torch.tensor([3, 0, 4, 2, 1])
    swapped = maxsim(queries, pages[order], query_mask, page_mask[order])
    assert torch.equal(swapped, scores[:, order])
    backwards = maxsim(queries.flip(0), pages, query_mask.flip(0), page_mask)
    torch.testing.assert_close(backwards, scores.flip(0), rtol=1e-14, atol=1e-14)
    mirrored = maxsim(queries.flip(1), pages.flip(1), query_mask.flip(1), page_mask.flip(1))
    torch.testing.assert_close(mirrored, scores, rtol=1e-14, atol=1e-14)


def test_a_page_given_twice_scores_the_same_twice():
    queries, pages, query_mask, page_mask = uneven()
    twice = maxsim(queries, pages[[0, 0]], query_mask, page_mask[[0, 0]])
    assert torch.equal(twice[:, 0], twice[:, 1])


@pytest.mark.parametrize("num_tokens", [3, 150])
def test_of_tied_tokens_the_first_gets_the_gradient(num_tokens):
    query = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    page = torch.zeros(1, num_tokens, 2)
    page[0, 1:, 0] = 1.0  # all but the first token tie
    page.requires_grad_()
    (gradient,) = torch.autograd.grad(maxsim(query, page).sum(), page)
    assert gradient[0, :, 0].nonzero().tolist() == [[1]]


def test_negative_matches_count_although_padding_is_zero():
    query = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    pages = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    # Two query tokens with similarity -1: -2 on both pages. With a zero vector in the maximum
    # the shorter page would score 0.
    assert maxsim(query, pages, page_mask=mask).tolist() == [[-2.0, -2.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_multiplied_and_summed_in_float32(dtype):
    queries, pages, *masks = uneven(dtype=dtype)
    scores = maxsim(queries, pages, *masks)
    assert scores.dtype == torch.float32
    exact = maxsim(queries.double(), pages.double(), *masks)
    assert relative_difference(scores.double(), exact) < 1e-6  # float32 sums of products of halves
    halves = gradients(scores, queries, pages)
    assert [gradient.dtype for gradient in halves] == [dtype, dtype]
    for ours, theirs in zip(halves, gradients(exact, queries, pages), strict=True):
        # theirs is rounded to half precision as well, in the conversion's backward
        assert relative_difference(ours.double(), theirs.double()) < torch.finfo(dtype).eps


@pytest.mark.usefixtures("pairing")
def test_autocast_does_not_lower_the_precision():
    queries, pages, query_mask, page_mask = uneven(dtype=torch.float32)
    candidates = pages[:4].unsqueeze(1), page_mask[:4].unsqueeze(1)
    before = maxsim(queries, pages, query_mask, page_mask)
    paired = maxsim_paired(queries, candidates[0], query_mask, candidates[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = maxsim(queries, pages, query_mask, page_mask)
        paired_inside = maxsim_paired(queries, candidates[0], query_mask, candidates[1])
    assert inside.dtype == torch.float32
    assert torch.equal(inside, before)
    assert torch.equal(paired_inside, paired)


def test_a_float64_side_makes_float64_scores():
    queries, pages, *masks = uneven()
    assert maxsim(queries.float(), pages, *masks).dtype == torch.float64


def test_a_query_without_a_real_token_scores_zero():
    queries, pages, query_mask, page_mask = uneven()
    query_mask[2] = False
    scores = maxsim(queries, pages, query_mask, page_mask)
    assert (scores[2] == 0).all()
    assert (scores[1] != 0).all()


def test_no_queries_or_no_pages_give_an_empty_matrix():
    some, none = torch.ones(2, 3, 4), torch.ones(0, 3, 4)
    assert maxsim(none, some).shape == (0, 2)
    assert maxsim(some, none).shape == (2, 0)
    assert maxsim_paired(none, torch.ones(0, 5, 3, 4)).shape == (0, 5)


def test_non_finite_embeddings_show_in_the_scores():
    queries, pages = torch.ones(2, 3, 4), torch.ones(2, 200, 4)
    pages[1, 150, 2] = float("nan")
    queries.requires_grad_()
    assert maxsim(queries, pages).isnan().tolist() == [[False, True], [False, True]]


def test_scores_without_gradient_keep_nothing_for_backward():
    queries, pages, *masks = uneven()
    with torch.no_grad():
        scores = maxsim(queries, pages, *masks)
    assert scores.grad_fn is None
    torch.testing.assert_close(scores, maxsim(queries, pages, *masks).detach(), rtol=0, atol=0)


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.num_elements = 0
        self.num_operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.num_elements = max(self.num_elements, tensor.numel())
        self.num_operations += 1
        return result


def test_the_largest_tensor_is_seen():
    queries, pages = torch.ones(2, 3, 4), torch.ones(2, 5, 4)
    with LargestTensor() as largest:
        torch.einsum("qid,kjd->qkij", queries, pages)
    assert largest.num_elements == 2 * 2 * 3 * 5


@pytest.mark.parametrize("on", ["a CPU", "an accelerator"])
@pytest.mark.parametrize(("page_tokens", "query_tokens"), [(64, 24), (200, 16), (64, 64)])
def test_no_tensor_is_as_large_as_all_pairs(on, page_tokens, query_tokens):
    batch, dim = 32, 128
    queries = torch.randn(batch, query_tokens, dim, requires_grad=True)
    pages = torch.randn(batch, page_tokens, dim, requires_grad=True)
    masks = [torch.ones(x.shape[:2], dtype=torch.bool) for x in (queries, pages)]
    masks[1][1::2, 50:] = False
    masks[0][1::2, 12:] = False
    all_pairs = batch * batch * query_tokens * page_tokens
    blocks = batch // 4 if on == "an accelerator" else None
    with LargestTensor() as largest:
        scores = maxsim(queries, pages, *masks, pages_per_block=blocks)
        forward = largest.num_operations
        scores.sum().backward()
    assert forward > 8
    assert largest.num_operations > forward + 8  # the operations of backward were seen too
    # At most embeddings, and the tile: one page's share of the whole on a CPU, a quarter on an
    # accelerator, where the matched vectors of a block (dim for every query token) are tiles too.
    share = all_pairs // 4 if on == "an accelerator" else all_pairs // batch
    matched = share // page_tokens * dim
    assert largest.num_elements <= max(pages.numel(), queries.numel(), share, matched)
    assert largest.num_elements <= all_pairs // 2


def test_blocks_of_an_accelerator_hold_a_quarter_of_the_pages_at_most():
    for num_pages, num_query_tokens, page_tokens in [(32, 768, 64), (256, 8192, 768), (3, 9, 5)]:
        tokens = torch.empty(num_query_tokens, 128, device="meta")
        pages = torch.empty(num_pages, page_tokens, 128, device="meta")
        blocks = list(module._blocks(tokens, pages, [(0, page_tokens)] * num_pages, None))
        assert [page for block, _, _ in blocks for page in range(*block.indices(num_pages))] == (
            list(range(num_pages))
        )
        for block, _, parts in blocks:
            assert sum(part.stop - part.start for part in parts) == num_query_tokens
            assert block.stop - block.start <= max(1, num_pages // 4)
            width = (block.stop - block.start) * max(page_tokens, 128)
            assert all((part.stop - part.start) * width <= 2**24 for part in parts)


@pytest.mark.gpu
def test_an_accelerator_gives_the_scores_and_gradients_of_a_cpu():
    queries, query_mask = ragged([24, 7, 30] * 8, 128, seed=31)
    pages, page_mask = ragged([64, 300, 121] * 8, 128, seed=32)
    results = []
    for device in ("cpu", "cuda"):
        leaves = [x.to(device).requires_grad_() for x in (queries, pages)]
        scores = maxsim(*leaves, query_mask.to(device), page_mask.to(device))
        results.append([scores, *gradients(scores, *leaves)])
    assert_equal([tensor.cpu() for tensor in results[1]], results[0], rtol=1e-12)


def test_shapes_that_do_not_fit_are_named():
    plain = inspect.unwrap(maxsim)  # without the shape check of the test run
    queries, pages = torch.ones(2, 3, 4), torch.ones(5, 6, 4)
    cases = [
        ((queries[0], pages), "queries have shape [3, 4], expected [queries, tokens, dim]"),
        ((queries, pages[0]), "pages have shape [6, 4], expected [pages, tokens, dim]"),
        ((queries, torch.ones(5, 6, 7)), "queries and pages differ in dim: 4 and 7"),
        (
            (queries, pages, torch.ones(3, 3, dtype=torch.bool)),
            "query_mask has shape [3, 3], expected [2, 3], one value per token of queries",
        ),
        (
            (queries, pages, None, torch.ones(5, 7, dtype=torch.bool)),
            "page_mask has shape [5, 7], expected [5, 6], one value per token of pages",
        ),
        ((queries, pages, None, torch.ones(5, 6)), "page_mask has dtype torch.float32"),
    ]
    for arguments, text in cases:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
            plain(*arguments)
        assert text in str(caught.value)
    with pytest.raises(ValueError, match="pages_per_block = 0, expected at least 1"):
        plain(queries, pages, pages_per_block=0)


def test_paired_shapes_that_do_not_fit_are_named():
    plain = inspect.unwrap(maxsim_paired)
    queries, pages = torch.ones(2, 3, 4), torch.ones(3, 5, 6, 4)
    with pytest.raises(ValueError, match="2 queries with candidates for 3"):
        plain(queries, pages)
    with pytest.raises(
        ValueError, match=r"pages have shape \[5, 6, 4\], expected \[queries, pages"
    ):
        plain(queries, pages[0])
    with pytest.raises(ValueError, match="differ in dim: 4 and 2"):
        plain(queries, pages[:2, ..., :2])


def test_a_page_without_a_real_token_is_refused():
    queries, pages = torch.ones(2, 3, 4), torch.ones(6, 6, 4)
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[[1, 4]] = False
    with pytest.raises(ValueError, match=r"leaves 2 of 6 pages without a real token \(page 1, 4\)"):
        maxsim(queries, pages, None, mask)
    with pytest.raises(ValueError, match="pages have no tokens"):
        maxsim(queries, pages[:, :0])


@pytest.mark.usefixtures("pairing")
def test_a_candidate_without_a_real_token_is_refused():
    mask = torch.ones(2, 2, 6, dtype=torch.bool)
    mask[1, 0] = False
    with pytest.raises(ValueError, match="without a real token"):
        maxsim_paired(torch.ones(2, 3, 4), torch.ones(2, 2, 6, 4), None, mask)


def unpadded(lengths, seed, away):
    """Unpadded unit vectors that lean away from those of the opposite sign."""
    padded, mask = ragged(lengths, 8, seed=seed)
    leaning = torch.nn.functional.normalize(padded + away, dim=-1)
    return [tokens[real] for tokens, real in zip(leaning, mask, strict=True)]


def opposed():
    """Queries and pages: some query tokens have no match above 0, others have one."""
    return unpadded(QUERY_LENGTHS, 1, away=0.3), unpadded(PAGE_LENGTHS, 2, away=-0.3)


def zero_padded_loop(queries, pages, num_tokens):
    """Each page with zero vectors behind it, up to a number of tokens for each page."""
    whole = [
        torch.cat([page, page.new_zeros(tokens - len(page), page.shape[1])])
        for page, tokens in zip(pages, num_tokens, strict=True)
    ]
    return torch.stack([torch.stack([(q @ p.T).amax(1).sum() for p in whole]) for q in queries])


@pytest.mark.parametrize(
    ("block_size", "padded_to", "num_tokens"),
    [
        (128, None, [11] * 5),
        (2, None, [9, 9, 11, 11, 1]),
        (1, None, PAGE_LENGTHS),
        (2, 11, [11] * 5),
        (128, 20, [20] * 5),
    ],
)
def test_zero_padding_floors_pages_that_are_shorter_than_their_block(
    block_size, padded_to, num_tokens
):
    queries, pages = opposed()
    found = maxsim_zero_padded(queries, pages, block_size=block_size, padded_to=padded_to)
    expected = zero_padded_loop(queries, pages, num_tokens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float())
    masked = zero_padded_loop(queries, pages, PAGE_LENGTHS)
    assert (masked > 0).any()
    differs = (expected - masked).abs().amax(0) > 0.01
    # The case bites: some token has no match above 0, on every page that got padding.
    assert differs.tolist() == [
        tokens > length for tokens, length in zip(num_tokens, PAGE_LENGTHS, strict=True)
    ]


def test_zero_padding_alone_leaves_positive_matches_as_they_are():
    queries, pages = opposed()
    queries, pages = [q.abs() for q in queries], [p.abs() for p in pages]
    expected = zero_padded_loop(queries, pages, PAGE_LENGTHS)
    torch.testing.assert_close(maxsim_zero_padded(queries, pages), expected.float())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"block_size": 0}, "block_size = 0, expected at least 1"),
        ({"padded_to": 10}, "padded_to = 10, but a page has 11 tokens"),
    ],
)
def test_zero_padding_that_cannot_be_is_refused(settings, text):
    queries, pages = opposed()
    with pytest.raises(ValueError, match=text):
        maxsim_zero_padded(queries, pages, **settings)
    with pytest.raises(ValueError, match="4 queries and 0 pages, expected one at least"):
        maxsim_zero_padded(queries, [])


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(module)
    assert result.attempted >= 3
    assert result.failed == 0
