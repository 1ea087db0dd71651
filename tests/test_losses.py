"""Losses: equal to slow loops in values and gradients, with every option, and right at the edges."""

import doctest
import inspect
import math

import pytest
import torch
from reference_loops.contrastive import mined_loop, pairwise_loop, sigmoid_loop, softmax_loop
from reference_loops.late_interaction import maxsim_loop, maxsim_paired_loop
from reference_loops.ragged import ragged

from coltrain import losses
from coltrain.losses import LOSSES

LOOPS = {"softmax": softmax_loop, "pairwise": pairwise_loop, "sigmoid": sigmoid_loop}
FROM_SCORES = {
    "softmax": losses.softmax_from_scores,
    "pairwise": losses.pairwise_from_scores,
    "sigmoid": losses.sigmoid_from_scores,
}
IN_BATCH = sorted(LOOPS)
HARD = {"softmax_hard_negatives": softmax_loop, "pairwise_hard_negatives": pairwise_loop}
NUM_NEGATIVES = 3


def batch(num_pages=5):
    queries, query_mask = ragged([3, 7, 2, 5, 4], 6, seed=11)
    pages, page_mask = ragged([8, 3, 9, 6, 4, 7, 2][:num_pages], 6, seed=12, padding_side="left")
    return queries.requires_grad_(), pages.requires_grad_(), query_mask, page_mask


def mined():
    lengths = [4, 2, 6, 3, 5, 1, 7, 2, 3, 6, 4, 5, 2, 1, 3]
    negatives, negative_mask = ragged(lengths, 6, seed=13)
    shape = (5, NUM_NEGATIVES, 7)
    return negatives.view(*shape, 6).requires_grad_(), negative_mask.view(shape)


def slow_scores(queries, pages, query_mask, page_mask, normalize):
    scores = maxsim_loop(queries, pages, query_mask, page_mask)
    lengths = torch.tensor([sum(row) for row in query_mask.tolist()], dtype=scores.dtype)
    return scores / lengths.unsqueeze(1) if normalize else scores


def assert_same(ours, theirs, *inputs):
    """Equal values, and equal gradients that are not zero."""
    assert ours.shape == ()
    # float64 sums of few terms, divided by a temperature down to 0.02
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    left = torch.autograd.grad(ours, inputs, retain_graph=True)
    right = torch.autograd.grad(theirs, inputs)
    for our_gradient, their_gradient in zip(left, right, strict=True):
        assert their_gradient.norm() > 1e-3
        difference = (our_gradient - their_gradient).norm() / their_gradient.norm()
        assert difference < 1e-12


IGNORE = torch.zeros(5, 5, dtype=torch.bool)
IGNORE[0, [2, 3]] = IGNORE[1, 1] = IGNORE[4, 0] = True  # [1, 1] is a positive, and stays one
OPTIONS = {
    "plain": {},
    "ignore": {"ignore": IGNORE},
    "positives": {"positives": torch.tensor([3, 0, 4, 1, 2])},
    "filter": {"filter_threshold": 0.6, "filter_factor": 0.3},
    "all": {
        "positives": torch.tensor([3, 0, 4, 1, 2]),
        "ignore": IGNORE,
        "filter_threshold": 0.6,
        "filter_factor": 0.3,
    },
}


def loop_arguments(options, num_queries=5):
    positives = options.get("positives", torch.arange(num_queries)).tolist()
    ignore = options["ignore"].tolist() if "ignore" in options else None
    filtering = {"threshold": options.get("filter_threshold")}
    return positives, ignore, filtering | {"factor": options.get("filter_factor", 0.5)}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", IN_BATCH)
def test_loss_and_gradients_equal_a_slow_loop(name, options, temperature, normalize):
    queries, pages, *masks = batch()
    ours = LOSSES[name](
        queries, pages, *masks, temperature=temperature, normalize=normalize, **options
    )
    positives, ignore, filtering = loop_arguments(options)
    scores = slow_scores(queries, pages, *masks, normalize)
    theirs = LOOPS[name](scores, positives, ignore, temperature, **filtering)
    assert_same(ours, theirs, queries, pages)


@pytest.mark.parametrize("options", ["plain", "ignore", "positives", "all"])
@pytest.mark.parametrize("name", IN_BATCH)
def test_symmetric_is_the_mean_of_both_directions(name, options):
    queries, pages, query_mask, page_mask = batch()
    options = OPTIONS[options]
    ours = LOSSES[name](
        queries, pages, query_mask, page_mask, temperature=0.2, symmetric=True, **options
    )
    positives, ignore, filtering = loop_arguments(options)
    there = slow_scores(queries, pages, query_mask, page_mask, True)
    back = slow_scores(pages, queries, page_mask, query_mask, True)
    back_positives = [positives.index(page) for page in range(5)]
    back_ignore = None if ignore is None else [list(column) for column in zip(*ignore, strict=True)]
    theirs = LOOPS[name](there, positives, ignore, 0.2, **filtering)
    theirs = (theirs + LOOPS[name](back, back_positives, back_ignore, 0.2, **filtering)) / 2
    assert_same(ours, theirs, queries, pages)


@pytest.mark.parametrize("name", IN_BATCH)
def test_more_pages_than_queries_are_further_negatives(name):
    queries, pages, *masks = batch(num_pages=7)
    ours = LOSSES[name](queries, pages, *masks, temperature=0.2)
    scores = slow_scores(queries, pages, *masks, True)
    assert_same(ours, LOOPS[name](scores, range(5), None, 0.2), queries, pages)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", HARD)
def test_hard_negative_loss_equals_a_slow_loop(name, options, weight, normalize):
    queries, pages, query_mask, page_mask = batch()
    negatives, negative_mask = mined()
    ours = LOSSES[name](
        queries,
        pages,
        query_mask,
        page_mask,
        negatives,
        negative_mask,
        in_batch_weight=weight,
        temperature=0.2,
        normalize=normalize,
        **options,
    )
    positives, ignore, filtering = loop_arguments(options)
    scores = slow_scores(queries, pages, query_mask, page_mask, normalize)
    own = torch.stack([scores[i][positives[i]] for i in range(5)])
    hard = maxsim_paired_loop(queries, negatives, query_mask, negative_mask)
    hard = hard / query_mask.sum(1, keepdim=True) if normalize else hard
    theirs = (1 - weight) * mined_loop(own, hard, 0.2)
    theirs = theirs + weight * HARD[name](scores, positives, ignore, 0.2, **filtering)
    inputs = (queries, pages) if weight == 1 else (queries, pages, negatives)
    assert_same(ours, theirs, *inputs)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck_passes_in_float64(name, normalize):
    queries, query_mask = ragged([2, 3, 1], 3, seed=21, rubbish=0.4)
    pages, page_mask = ragged([4, 2, 3], 3, seed=22, rubbish=0.4)
    inputs = [queries.requires_grad_(), pages.requires_grad_()]
    masks = [query_mask, page_mask]
    if name in HARD:
        negatives, negative_mask = ragged([3, 2, 1], 3, seed=23, rubbish=0.4)
        inputs.append(negatives.unsqueeze(1).requires_grad_())
        masks.append(negative_mask.unsqueeze(1))

    def loss(queries, pages, *negatives):
        arguments = [queries, pages, *masks[:2], *negatives, *masks[2:]]
        return LOSSES[name](*arguments, temperature=0.3, normalize=normalize)

    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_zero_padding_gives_a_shorter_page_one_more_token_that_is_zero(name):
    queries, query_mask = ragged([2, 3, 1], 3, seed=21)
    pages, page_mask = ragged([2, 4, 1], 3, seed=22)
    arguments = [[queries, pages, query_mask], [queries, pages, query_mask]]
    masks = [[page_mask], [with_a_zero(pages, page_mask)]]
    if name in HARD:
        negatives, negative_mask = ragged([3, 2, 1], 3, seed=23)
        negatives, negative_mask = negatives.unsqueeze(1), negative_mask.unsqueeze(1)
        masks[0] += [negatives, negative_mask]
        masks[1] += [negatives, with_a_zero(negatives, negative_mask)]
    (found, other), terms = zip(arguments, masks, strict=True), {"temperature": 0.3}
    masked = LOSSES[name](*found[0], *found[1], **terms)
    zero = LOSSES[name](*found[0], *found[1], **terms, padding="zero")
    assert zero.item() == pytest.approx(LOSSES[name](*other[0], *other[1], **terms).item())
    assert abs(zero.item() - masked.item()) > 1e-3


def with_a_zero(pages, mask):
    """The mask with one place of each page's padding, which is zero now, taken for a token."""
    pages[~mask] = 0.0
    first = (~mask).int().argmax(dim=-1, keepdim=True)
    return mask | ((~mask) & (torch.arange(mask.shape[-1]) == first))


def test_values_worked_by_hand():
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    # softmax: -log of e²/(e²+e+1), e/(1+e+e³), 1/3
    e = math.e
    by_hand = -(math.log(e**2 / (e**2 + e + 1)) + math.log(e / (1 + e + e**3)) + math.log(1 / 3))
    assert losses.softmax_from_scores(scores, temperature=1.0).item() == pytest.approx(by_hand / 3)
    # pairwise: 1 - 2, 3 - 1, 1 - 1
    by_hand = (softplus(-1) + softplus(2) + softplus(0)) / 3
    assert losses.pairwise_from_scores(scores).item() == pytest.approx(by_hand)
    # sigmoid: every pair
    by_hand = softplus(-2) + softplus(1) + softplus(0) + softplus(0) + softplus(-1) + softplus(3)
    by_hand += softplus(1) + softplus(1) + softplus(-1)
    assert losses.sigmoid_from_scores(scores, temperature=1.0).item() == pytest.approx(by_hand / 9)


def test_collapsed_embeddings_give_the_known_values():
    queries = torch.nn.functional.normalize(torch.ones(4, 3, 8), dim=-1)
    pages = torch.nn.functional.normalize(torch.ones(4, 5, 8), dim=-1)
    assert losses.softmax(queries, pages).item() == pytest.approx(math.log(4))
    assert losses.pairwise(queries, pages).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", IN_BATCH)
def test_an_ignored_page_is_as_good_as_absent(name):
    queries, pages, query_mask, page_mask = batch(num_pages=6)
    ignore = torch.zeros(5, 6, dtype=torch.bool)
    ignore[:, 5] = True
    ours = LOSSES[name](queries, pages, query_mask, page_mask, ignore=ignore, temperature=0.2)
    without = LOSSES[name](queries, pages[:5], query_mask, page_mask[:5], temperature=0.2)
    assert_same(ours, without, queries, pages)
    with_it = LOSSES[name](queries, pages, query_mask, page_mask, temperature=0.2)
    assert (with_it - ours).abs() > 1e-4


@pytest.mark.parametrize("name", IN_BATCH)
def test_groups_give_the_mean_of_separate_batches(name):
    queries, pages, query_mask, page_mask = (tensor[:4] for tensor in batch())
    group = torch.tensor([0, 0, 1, 1])
    ignore = group.unsqueeze(1) != group
    ours = LOSSES[name](queries, pages, query_mask, page_mask, ignore=ignore, temperature=0.2)
    separate = [
        LOSSES[name](queries[part], pages[part], query_mask[part], page_mask[part], temperature=0.2)
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert_same(ours, sum(separate) / 2, queries, pages)


@pytest.mark.parametrize("name", IN_BATCH)
def test_the_same_page_twice_pushes_nothing_away_when_ignored(name):
    queries, pages, query_mask, page_mask = batch()
    order = torch.tensor([0, 1, 0, 3, 4])  # query 2 has the page of query 0
    same = order.unsqueeze(1) == order
    ignore = same & ~torch.eye(5, dtype=torch.bool)
    assert ignore.sum() == 2
    twice, twice_mask = pages[order], page_mask[order]
    ours = LOSSES[name](queries, twice, query_mask, twice_mask, ignore=ignore, temperature=0.2)
    # The same with each page once: pages 0, 1, 3, 4.
    once = torch.tensor([0, 1, 3, 4])
    theirs = LOSSES[name](
        queries,
        pages[once],
        query_mask,
        page_mask[once],
        positives=torch.tensor([0, 1, 0, 2, 3]),
        temperature=0.2,
    )
    if name == "pairwise":
        assert_same(ours, theirs, queries, pages)
    else:  # a page that is there twice weighs twice for the other queries
        scores = slow_scores(queries, twice, query_mask, twice_mask, True)
        assert_same(ours, LOOPS[name](scores, range(5), ignore.tolist(), 0.2), queries, pages)


@pytest.mark.parametrize("name", ["softmax", "pairwise"])
def test_a_query_without_negatives_contributes_zero(name):
    scores = torch.tensor([[0.2, 0.9, 0.5], [0.3, 0.1, 0.8]], requires_grad=True)
    ignore = torch.tensor([[False, True, True], [False, False, False]])
    loss = FROM_SCORES[name](scores, ignore=ignore, temperature=1.0)
    alone = FROM_SCORES[name](scores[1:], positives=torch.tensor([1]), temperature=1.0)
    assert loss.item() == pytest.approx(alone.item() / 2)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient[0].tolist() == [0, 0, 0]
    assert (gradient[1] != 0).any()


@pytest.mark.parametrize("name", ["softmax", "pairwise"])
def test_a_batch_of_one_has_no_signal(name):
    queries, pages, *masks = (tensor[:1] for tensor in batch())
    loss = LOSSES[name](queries, pages, *masks)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (queries, pages)))


@pytest.mark.parametrize("name", IN_BATCH)
def test_order_of_the_batch_does_not_matter(name):
    queries, pages, query_mask, page_mask = batch()
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = [tensor[order] for tensor in (queries, pages, query_mask, page_mask)]
    ours, theirs = LOSSES[name](*shuffled), LOSSES[name](queries, pages, query_mask, page_mask)
    assert_same(ours, theirs, queries, pages)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_does_not_change_a_loss(name):
    queries, pages, query_mask, page_mask = batch()
    more = mined() if name in HARD else ()
    before = LOSSES[name](queries, pages, query_mask, page_mask, *more)
    wider = [
        torch.nn.functional.pad(x, (0, 0, 2, 3) if x.is_floating_point() else (2, 3))
        for x in (queries, pages, query_mask, page_mask, *more)
    ]
    assert_same(LOSSES[name](*wider), before, queries, pages)


def test_filtering_halves_a_suspicious_negative_and_its_gradient():
    scores = torch.tensor([[1.0, 0.96, 0.94]], requires_grad=True)
    loss = losses.softmax_from_scores(scores, temperature=1.0, filter_threshold=0.95)
    by_hand = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(0.48) + math.exp(0.94)))
    assert loss.item() == pytest.approx(by_hand)
    (gradient,) = torch.autograd.grad(loss, scores)
    share = math.exp(0.48) / (math.exp(1.0) + math.exp(0.48) + math.exp(0.94))
    assert gradient[0, 1].item() == pytest.approx(share / 2)


@pytest.mark.parametrize("name", IN_BATCH)
def test_normalize_divides_by_real_query_tokens(name):
    queries, pages, query_mask, page_mask = (tensor.detach() for tensor in batch())
    plain = losses.maxsim(queries, pages, query_mask, page_mask)
    scores = plain / torch.tensor([3.0, 7.0, 2.0, 5.0, 4.0]).unsqueeze(1)
    ours = LOSSES[name](queries, pages, query_mask, page_mask, temperature=0.2)
    torch.testing.assert_close(ours, FROM_SCORES[name](scores, temperature=0.2))
    unmasked = LOSSES[name](queries, pages, None, page_mask, temperature=0.2, normalize=True)
    scores = losses.maxsim(queries, pages, None, page_mask) / 7
    torch.testing.assert_close(unmasked, FROM_SCORES[name](scores, temperature=0.2))


def test_large_scores_stay_finite():
    scores = torch.tensor([[0.0, 4e4], [4e4, 0.0]], requires_grad=True)
    for loss in FROM_SCORES.values():
        value = loss(scores)
        assert value.isfinite()
        assert torch.autograd.grad(value, scores)[0].isfinite().all()


@pytest.mark.parametrize("name", IN_BATCH)
def test_every_loss_and_its_form_from_scores_share_their_options(name):
    of_embeddings = inspect.signature(LOSSES[name]).parameters
    of_scores = inspect.signature(FROM_SCORES[name]).parameters
    for option, parameter in of_scores.items():
        if option != "scores":
            assert of_embeddings[option].default == parameter.default


def test_names_and_defaults_are_those_of_recipes():
    assert sorted(LOSSES) == [
        "pairwise",
        "pairwise_hard_negatives",
        "sigmoid",
        "softmax",
        "softmax_hard_negatives",
    ]
    temperatures = {
        name: inspect.signature(loss).parameters["temperature"].default
        for name, loss in LOSSES.items()
    }
    assert temperatures.pop("pairwise") == 1.0
    assert set(temperatures.values()) == {0.02}


def test_mistakes_are_named():
    queries, pages, query_mask, page_mask = batch()
    negatives, negative_mask = mined()
    masked = (queries, pages, query_mask, page_mask)
    scores = torch.zeros(5, 5)
    # Without the shape check of the test run:
    softmax = inspect.unwrap(losses.softmax)
    from_scores = inspect.unwrap(losses.softmax_from_scores)
    hard = inspect.unwrap(losses.softmax_hard_negatives)
    empty = query_mask.clone()
    empty[3] = False
    cases = [
        (lambda: softmax(*masked, temperature=0.0), "temperature = 0.0, expected a number above 0"),
        (lambda: softmax(queries, pages[:3]), "5 queries and 3 pages; expected a page for every"),
        (
            lambda: from_scores(scores, positives=torch.tensor([0, 1])),
            "positives have shape [2], expected [5], one page index for each query",
        ),
        (
            lambda: softmax(*masked, positives=torch.tensor([0, 1, 2, 3, 5])),
            "positives run from 0 to 5, expected indices of 5 pages",
        ),
        (
            lambda: from_scores(scores, ignore=IGNORE[:3]),
            "ignore has shape [3, 5], expected [5, 5], one value for each query and page",
        ),
        (
            lambda: softmax(queries, pages, empty, page_mask),
            "query_mask leaves 1 of 5 queries without a real token (the first is query 3)",
        ),
        (
            lambda: softmax(queries[:4], pages, query_mask[:4], page_mask, symmetric=True),
            "symmetric = True with 4 queries and 5 pages, expected exactly one query for each",
        ),
        (
            lambda: softmax(*masked, positives=torch.tensor([0, 1, 2, 3, 3]), symmetric=True),
            "expected exactly one query for each page",
        ),
        (
            lambda: hard(*masked, negatives, negative_mask, in_batch_weight=1.5),
            "in_batch_weight = 1.5, expected a number from 0 to 1",
        ),
        (
            lambda: hard(*masked, negatives, negative_mask, symmetric=True),
            "symmetric = True with hard negatives",
        ),
        (
            lambda: hard(*masked, negatives, negative_mask, temperature=-1.0, in_batch_weight=0.0),
            "temperature = -1.0",
        ),
    ]
    for call, text in cases:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
            call()
        assert text in str(caught.value)


def test_the_examples_in_docstrings_run():
    result = doctest.testmod(losses)
    assert result.attempted >= 6
    assert result.failed == 0


def test_an_unknown_kind_of_padding_is_refused():
    queries, pages, query_mask, page_mask = batch()
    # By the check of types before ours here; a user has ours.
    with pytest.raises(Exception, match="'none'"):
        losses.softmax(queries, pages, query_mask, page_mask, padding="none")
