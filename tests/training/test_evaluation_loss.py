import pytest
import torch
from small_pages import small_collection
from torch.nn.functional import normalize

from coltrain.evaluation.evaluate import Evaluation
from coltrain.evaluation.results import Result
from coltrain.losses import softmax
from coltrain.recipe import LossSection
from coltrain.training.evaluation_loss import evaluation_loss

SOFTMAX = LossSection(name="softmax", temperature=0.1, normalize=True)


def evaluation(num_queries, num_pages):
    generator = torch.Generator().manual_seed(1)

    def vectors(number):
        lengths = torch.randint(1, 6, (number,), generator=generator).tolist()
        return [normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in lengths]

    queries, pages = vectors(num_queries), vectors(num_pages)
    scores = torch.zeros(num_queries, num_pages)
    return Evaluation(Result("pages", 0, 0, {}, {}), queries, pages, scores)


def loss_of(found, pairs, ignore=()):
    """The loss of some (query, page) pairs, scored one by one."""
    scores = torch.stack(
        [
            torch.stack(
                [(found.queries[query] @ found.pages[page].T).amax(1).sum() for _, page in pairs]
            )
            / len(found.queries[query])
            for query, _ in pairs
        ]
    )
    for query, page in ignore:
        scores[query, page] = -torch.inf
    return torch.nn.functional.cross_entropy(scores / 0.1, torch.arange(len(pairs))).item()


def test_rows_are_taken_in_order_in_batches_of_the_training_size():
    found = evaluation(7, 7)
    pairs = [(number, number) for number in range(7)]
    parts = [pairs[:3], pairs[3:6]]  # the seventh row alone has no negative
    expected = sum(3 * loss_of(found, part) for part in parts) / 6
    loss = evaluation_loss(found, small_collection("pages", 7), SOFTMAX, 3, None)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_last_batch_counts_by_its_rows():
    found = evaluation(5, 5)
    pairs = [(number, number) for number in range(5)]
    expected = (3 * loss_of(found, pairs[:3]) + 2 * loss_of(found, pairs[3:])) / 5
    loss = evaluation_loss(found, small_collection("pages", 5), SOFTMAX, 3, None)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_groups_keep_their_negatives_to_themselves():
    found = evaluation(4, 4)
    pairs = [(number, number) for number in range(4)]
    expected = (loss_of(found, pairs[:2]) + loss_of(found, pairs[2:])) / 2
    loss = evaluation_loss(found, small_collection("pages", 4), SOFTMAX, 4, 2)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_two_queries_of_one_page_are_no_negatives():
    found = evaluation(4, 3)
    collection = small_collection("pages", 3, copies=1)  # query 3 asks for page 0 again
    pairs = [(0, 0), (1, 1), (2, 2), (3, 0)]
    expected = loss_of(found, pairs, ignore=[(0, 3), (3, 0)])
    loss = evaluation_loss(found, collection, SOFTMAX, 4, None)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss != pytest.approx(loss_of(found, pairs), rel=1e-3)


def test_there_is_no_loss_without_two_rows_nor_with_hard_negatives():
    found = evaluation(4, 4)
    assert evaluation_loss(found, small_collection("pages", 1), SOFTMAX, 4, None) is None
    hard = LossSection(name="softmax_hard_negatives", temperature=0.1, normalize=True)
    assert evaluation_loss(found, small_collection("pages", 4), hard, 4, None) is None


def test_the_embeddings_of_the_evaluation_are_used_as_they_are():
    found = evaluation(3, 3)
    padded = [
        torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (found.queries, found.pages)
    ]
    masks = [
        torch.arange(p.shape[1])[None, :] < torch.tensor([len(v) for v in x])[:, None]
        for p, x in zip(padded, (found.queries, found.pages), strict=True)
    ]
    expected = softmax(*padded, *masks, temperature=0.1)
    loss = evaluation_loss(found, small_collection("pages", 3), SOFTMAX, 8, None)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
