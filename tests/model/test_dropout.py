"""A dropout mask is a pure function of key, module, position and feature."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from coltrain.model.dropout import KeyedDropout, SampleKeys, keep_rows, stable_key

GOLDEN_KEY = 7266875865834619304
CPU = torch.device("cpu")
KEYS = [stable_key(0, 1, "query", sample) for sample in range(5)]


def drop(features, keys, p=0.1, name="layers.0.q_proj"):
    sample_keys = SampleKeys()
    dropout = KeyedDropout(p, name, sample_keys)
    with sample_keys.use(keys, CPU):
        return dropout(features)


def mask_of(keys, num_tokens=7, dim=64, p=0.5, name="layers.0.q_proj"):
    return drop(torch.ones(len(keys), num_tokens, dim), keys, p, name) != 0


def keep_mask(keys, num_tokens, dim, p):
    """The mask itself, samples x tokens x dim, of a module whose key is 0."""
    sample_keys = SampleKeys()
    with sample_keys.use(keys.tolist(), keys.device):
        starts = sample_keys.starts(0, torch.empty(len(keys), num_tokens, 0))
    return keep_rows(starts, dim, p).view(len(keys), num_tokens, dim)


def test_a_mask_does_not_depend_on_neighbours_or_their_order():
    whole = mask_of(KEYS)
    for order in [(0,), (3,), (4, 1), (2, 2, 0)]:
        assert torch.equal(mask_of([KEYS[sample] for sample in order]), whole[list(order)])


def test_a_mask_does_not_depend_on_padding():
    assert torch.equal(mask_of(KEYS, num_tokens=40)[:, :7], mask_of(KEYS, num_tokens=7))


def test_a_mask_does_not_depend_on_how_many_features_there_are():
    for dim in (1, 2, 3, 5, 63):
        assert torch.equal(mask_of(KEYS, dim=dim), mask_of(KEYS, dim=64)[:, :, :dim])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_mask_does_not_depend_on_the_type_of_the_features(dtype):
    features = torch.ones(5, 7, 64)
    expected = drop(features, KEYS) != 0
    dropped = drop(features.to(dtype), KEYS)
    assert dropped.dtype == dtype
    assert torch.equal(dropped != 0, expected)


def test_samples_end_to_end_have_the_masks_of_samples_side_by_side():
    lengths = (7, 1, 40, 3, 7)
    features = torch.ones(1, sum(lengths), 64)
    sample_keys = SampleKeys()
    dropout = KeyedDropout(0.5, "layers.0.q_proj", sample_keys)
    with sample_keys.use(KEYS, CPU):
        sample_keys.lay_out(lengths)
        row = dropout(features)[0].split(lengths)
    apart = mask_of(KEYS, num_tokens=40)
    for sample, (one, length) in enumerate(zip(row, lengths, strict=True)):
        assert torch.equal(one != 0, apart[sample, :length])


def test_rows_are_hashed_in_blocks_that_do_not_show(monkeypatch):
    whole = keep_mask(torch.tensor(KEYS), 9, 130, 0.3)
    for limit in (1, 33, 34 * 33):  # one row at a time, and blocks that do not divide the rows
        monkeypatch.setattr("coltrain.model.dropout.CPU_HASHES", limit)
        assert torch.equal(keep_mask(torch.tensor(KEYS), 9, 130, 0.3), whole)


def test_the_layout_of_a_scope_cannot_change_under_checkpointed_layers():
    sample_keys = SampleKeys()
    with sample_keys.use(KEYS[:2], CPU):
        sample_keys.lay_out((3, 4))
        sample_keys.lay_out((3, 4))  # the same samples again
        with pytest.raises(ValueError, match=r"\(4, 3\) tokens in the scope of \(3, 4\)"):
            sample_keys.lay_out((4, 3))
    with sample_keys.use(KEYS[:2], CPU), pytest.raises(ValueError, match="3 samples with 2 keys"):
        sample_keys.lay_out((1, 1, 1))
    sample_keys.lay_out((1, 1, 1))  # evaluation: nothing drops


@pytest.mark.gpu
def test_a_mask_does_not_depend_on_the_device():
    keys = torch.tensor(KEYS)
    on_gpu = keep_mask(keys.cuda(), 50, 130, 0.1)
    assert torch.equal(on_gpu.cpu(), keep_mask(keys, 50, 130, 0.1))


def test_a_mask_depends_on_no_generator():
    torch.manual_seed(0)
    first, state = mask_of(KEYS), torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(mask_of(KEYS), first)


def test_masks_stay_what_they_are():
    # Another hash would change every run that is resumed or repeated.
    key = stable_key(0, 1, "query", "17")
    assert key == GOLDEN_KEY
    for p in (0.1, 0.25, 0.9):
        mask = keep_mask(torch.tensor([key, 3]), 3, 10, p)
        assert mask.tolist() == [slow_mask(key, 3, 10, p), slow_mask(3, 3, 10, p)]


def slow_mask(key, num_tokens, dim, p):
    """SplitMix64 on Python's integers."""
    bits = (1 << 64) - 1
    increment = 0x9E3779B97F4A7C15

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
        return z ^ (z >> 31)

    rows = []
    for token in range(num_tokens):
        row_key = mix((key + token * increment) & bits)
        row = []
        for feature in range(dim):
            hashed = mix((row_key + (feature // 4 + 1) * increment) & bits)
            draw = hashed >> (16 * (feature % 4)) & 0xFFFF
            draw -= (draw >> 15) << 16  # signed
            row.append(draw >= round(p * 65536) - 32768)
        rows.append(row)
    return rows


def test_step_sample_side_seed_module_and_token_each_change_the_mask():
    def mask(seed=0, step=1, side="query", sample="17", name="layers.0.q_proj"):
        return mask_of([stable_key(seed, step, side, sample)], num_tokens=2, name=name)[0]

    masks = [
        mask(),
        mask(seed=1),
        mask(step=2),
        mask(side="page"),
        mask(sample="18"),
        mask(sample="1"),
        mask(name="layers.1.q_proj"),
        mask(name="layers.0.k_proj"),
    ]
    tokens = [row for one in masks for row in one]
    for left, right in itertools.combinations(tokens, 2):
        # 64 fair coins agree in 32 ± 4.
        assert 8 <= (left == right).sum() <= 56


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_the_share_that_is_kept_is_one_minus_p(p):
    keep = keep_mask(torch.tensor(KEYS), 100, 512, p).double()
    deviation = math.sqrt(p * (1 - p))
    assert abs(keep.mean() - (1 - p)) < 4 * deviation / math.sqrt(keep.numel())
    for axis, count in ((0, 512 * 5), (1, 512 * 100), (2, 500)):  # along samples, tokens, features
        others = [other for other in range(3) if other != axis]
        size = keep.numel() / keep.shape[axis]
        assert (keep.mean(others) - (1 - p)).abs().max() < 5 * deviation / math.sqrt(size), count


def test_neighbouring_features_and_tokens_are_not_correlated():
    keep = keep_mask(torch.tensor(KEYS), 200, 256, 0.1).double() - 0.9
    for left, right in [
        (keep[:, :, :-1], keep[:, :, 1:]),
        (keep[:, :, :-4], keep[:, :, 4:]),
        (keep[:, :-1], keep[:, 1:]),
        (keep[:-1], keep[1:]),
    ]:
        assert abs((left * right).mean()) < 4 * 0.09 / math.sqrt(left.numel())


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    features = torch.randn(5, 400, 64, dtype=torch.float64)
    dropped = drop(features, KEYS, p=0.2)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], features[kept] / 0.8)
    assert abs(drop(torch.ones(5, 400, 64), KEYS, p=0.2).mean() - 1) < 0.01


def test_gradients_pass_where_features_were_kept():
    features = torch.randn(5, 7, 64, dtype=torch.float64, requires_grad=True)
    dropped = drop(features, KEYS, p=0.3)
    dropped.sum().backward()
    torch.testing.assert_close(features.grad, (dropped != 0).double() / 0.7)


def test_an_infinity_that_is_dropped_leaves_zero():
    features = torch.full((5, 7, 64), torch.inf)
    dropped = drop(features, KEYS, p=0.5)
    assert set(dropped.unique().tolist()) == {0.0, torch.inf}


def test_nothing_is_dropped_without_keys_or_with_probability_zero():
    features = torch.randn(5, 7, 64)
    assert KeyedDropout(0.5, "q_proj", SampleKeys())(features) is features
    assert drop(features, KEYS, p=0.0) is features


def test_keys_are_forgotten_after_use_even_if_a_step_fails():
    sample_keys = SampleKeys()

    def fail():
        with sample_keys.use(KEYS, CPU):
            assert sample_keys.current.tolist() == KEYS
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sample_keys.current is None


def embed_queries(built, texts, keys):
    inputs = built.preparer.collate_queries(texts)
    with torch.no_grad(), built.model.sample_keys.use(keys, CPU):
        return built.model(inputs.input_ids, inputs.mask, inputs.position_ids)


def test_every_dropout_of_the_model_is_keyed_by_its_own_name(tiny_built):
    keyed = [m for m in tiny_built.model.modules() if isinstance(m, KeyedDropout)]
    assert len(keyed) == len({module.module_key for module in keyed}) == 15
    assert all(module.p == 0.1 for module in keyed)
    assert not any(isinstance(m, nn.Dropout) for m in tiny_built.model.modules())


def test_embeddings_under_dropout_do_not_depend_on_the_batch(float64_built, uneven_queries):
    built = float64_built
    whole = embed_queries(built, uneven_queries, KEYS[:4])
    for number, text in enumerate(uneven_queries):
        alone = embed_queries(built, [text], [KEYS[number]])[0]
        torch.testing.assert_close(whole[number, : len(alone)], alone, rtol=0, atol=1e-12)
    # The case can tell: other keys give something else.
    others = embed_queries(built, uneven_queries, KEYS[1:])
    assert (whole - others).abs().max() > 1e-3


def test_a_model_left_in_training_mode_does_not_drop_without_keys(float64_built, uneven_queries):
    inputs = float64_built.preparer.collate_queries(uneven_queries)
    model = float64_built.model
    with torch.no_grad():
        evaluated = model(inputs.input_ids, inputs.mask, inputs.position_ids)
        model.train()
        trained = model(inputs.input_ids, inputs.mask, inputs.position_ids)
    assert torch.equal(evaluated, trained)


def test_a_copy_of_a_model_listens_to_its_own_keys(float64_built, uneven_queries):
    twin = copy.deepcopy(float64_built)
    expected = embed_queries(float64_built, uneven_queries, KEYS[:4])
    inputs = twin.preparer.collate_queries(uneven_queries)
    with torch.no_grad(), float64_built.model.sample_keys.use(KEYS[:4], CPU):
        undropped = twin.model(inputs.input_ids, inputs.mask, inputs.position_ids)
    assert not torch.equal(undropped, expected)
    assert torch.equal(embed_queries(twin, uneven_queries, KEYS[:4]), expected)
