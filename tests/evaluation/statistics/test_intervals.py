import time

import numpy as np
import pytest

from coltrain.evaluation.statistics import Sample, macro_interval, mean_interval, sample_interval
from coltrain.evaluation.statistics.intervals import BOOTSTRAP, BOUNDED, num_informative
from coltrain.evaluation.statistics.resampling import resampled_means

NDCG = np.array([0, 0.38685281, 0.43067656, 0.5, 0.63092975, 1.0])


def drawn(generator, count):
    return generator.choice(NDCG, size=count, p=[0.2, 0.05, 0.05, 0.05, 0.1, 0.55])


def test_all_ones_give_the_clopper_pearson_interval():
    # n of n: the lower end is (alpha / 2)^(1 / n), the upper end 1.
    found = mean_interval(np.ones(100), num_resamples=200_000)
    assert found.low == pytest.approx(0.025 ** (1 / 100), abs=2e-4)
    assert (found.mean, found.high, found.method) == (1.0, 1.0, BOUNDED)
    assert "0 of 100" in found.flag


def test_zeros_and_ones_give_the_clopper_pearson_interval():
    # 97 of 100; the table of Clopper and Pearson: .9148 to .9938.
    found = mean_interval([1.0] * 97 + [0.0] * 3, num_resamples=200_000)
    assert (found.low, found.high) == pytest.approx((0.91482, 0.99377), abs=5e-4)


def test_where_values_vary_the_interval_is_the_bootstrap_s_and_has_no_flag():
    values = drawn(np.random.default_rng(1), 400)
    found = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert (found.method, found.flag) == (BOOTSTRAP, None)
    assert found.mean == pytest.approx(values.mean(), abs=1e-15)
    # 10,000 resamples: an end moves by 1.2 % of the half-width, skewness by about as much.
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_a_skew_sample_has_its_ends_moved_towards_the_long_side():
    # Skewness about -2 of n = 100, an acceleration of -2 / (6 sqrt(100)) = -.033: both ends move down
    # by about 1.96^2 * .033 = .13 standard errors, .065 of the half-width.
    values = 1 - np.random.default_rng(0).exponential(0.1, 100).clip(0, 1)
    resamples = resampled_means(Sample.of(values), 10_000, np.random.default_rng(0))
    low, high = np.quantile(resamples, [0.025, 0.975])
    found = mean_interval(values)
    half = (high - low) / 2
    assert 0.04 < (low - found.low) / half < 0.25
    assert 0.04 < (high - found.high) / half < 0.25


def test_nineteen_queries_away_from_the_ceiling_are_too_few_and_twenty_are_enough():
    ones = np.ones(100)
    for count, method in ((19, BOUNDED), (20, BOOTSTRAP)):
        values = ones.copy()
        values[:count] = np.linspace(0, 0.9, count)
        assert mean_interval(values).method == method


def test_an_interval_does_not_depend_on_the_order_of_the_queries_but_on_the_seed():
    generator = np.random.default_rng(2)
    for values in (drawn(generator, 300), generator.random(300)):
        shuffled = generator.permutation(values)
        first, second = mean_interval(values), mean_interval(shuffled)
        assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)
        assert mean_interval(values, seed=1).low != first.low


def test_few_distinct_values_and_many_are_drawn_from_the_same_distribution():
    values = drawn(np.random.default_rng(3), 200)
    few = resampled_means(Sample.of(values), 20_000, np.random.default_rng(0))
    # A difference of 1e-9 makes every unit distinct, so that each is looked up.
    many = values + 1e-9 * np.arange(200)
    looked_up = resampled_means(Sample.of(many), 20_000, np.random.default_rng(0))
    assert not np.array_equal(few, looked_up)
    ends = [0.025, 0.25, 0.5, 0.75, 0.975]
    assert np.quantile(few, ends) == pytest.approx(np.quantile(looked_up, ends), abs=2e-3)
    assert few.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.02)


def test_three_translations_of_a_query_are_no_more_than_one():
    values = drawn(np.random.default_rng(4), 200)
    alone = mean_interval(values)
    translated = np.repeat(values, 3)
    together = mean_interval(translated, clusters=np.repeat(np.arange(200), 3))
    apart = mean_interval(translated)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.03)
    assert apart.high - apart.low == pytest.approx((alone.high - alone.low) / 3**0.5, rel=0.05)


def test_the_mean_of_a_task_is_the_mean_of_its_languages():
    # French: 1 and 0, mean .5; English: 1; so the task has .75 and not 2 / 3.
    sample = Sample.of([1, 0, 1], clusters=["a", "b", "a"], subsets=["fr", "fr", "en"])
    assert sample.mean == 0.75
    assert sample.contributions.tolist() == [0.75, 0.0]
    assert (sample.num_units, sample.num_queries) == (2, 3)


def test_the_standard_error_of_single_queries_is_the_plain_one():
    values = drawn(np.random.default_rng(5), 50)
    expected = values.std(ddof=1) / np.sqrt(50)
    assert Sample.of(values).standard_error == pytest.approx(expected, rel=1e-12)


def test_the_standard_error_of_clusters_is_that_of_their_resamples():
    generator = np.random.default_rng(6)
    clusters = generator.integers(0, 120, 400)  # of 1 to about 8 queries
    values = np.clip(generator.random(120)[clusters] + 0.2 * generator.random(400), 0, 1)
    sample = Sample.of(values, clusters)
    assert len(np.unique(sample.sizes)) > 3
    resamples = resampled_means(sample, 20_000, generator)
    assert sample.standard_error == pytest.approx(resamples.std(), rel=0.03)


def test_the_macro_mean_weighs_each_task_the_same():
    generator = np.random.default_rng(7)
    tasks = [Sample.of(drawn(generator, count)) for count in (500, 60, 100)]
    found = macro_interval(tasks)
    half = 1.96 * np.sqrt(sum(task.standard_error**2 for task in tasks)) / 3
    assert found.mean == pytest.approx(np.mean([task.mean for task in tasks]), abs=1e-15)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert found.flag is None
    ceiling = macro_interval([Sample.of(np.ones(100))] * 2)
    assert "only 0 units" in ceiling.flag


def test_the_informative_are_those_away_from_the_most_common_value():
    assert num_informative(Sample.of([1, 1, 1, 0.5, 0])) == 2
    assert num_informative(Sample.of([0, 0, 0.25, -0.25])) == 2


@pytest.mark.parametrize("has_few_values", [True, False])
def test_ten_thousand_resamples_of_all_v1_queries_take_less_than_two_seconds(has_few_values):
    generator = np.random.default_rng(8)
    counts = (500, 451, 494, 280, 1646, 100, 100, 100, 100, 100)
    tasks = [
        Sample.of(drawn(generator, count) if has_few_values else generator.random(count))
        for count in counts
    ]
    assert sum(counts) == 3871
    start = time.process_time()
    macro_interval(tasks, num_resamples=10_000)
    assert time.process_time() - start < 2


def test_few_that_differ_in_all_tasks_widen_the_interval_of_their_mean():
    tasks = [Sample.of([0.0] * 99 + [0.5])] * 2
    found = macro_interval(tasks, bounds=(-1.0, 1.0))
    one = mean_interval([0.0] * 99 + [0.5], bounds=(-1.0, 1.0))
    assert found.high - found.mean == pytest.approx((one.high - one.mean) / 2**0.5)
    assert found.low < 0


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say():
    generator = np.random.default_rng(9)
    p = np.array([0.2, 0.05, 0.05, 0.05, 0.1, 0.55])
    ceiling = np.array([0.005, 0.005, 0.005, 0.005, 0.01, 0.97])
    hits = {"middle": 0, "ceiling": 0, "percentile at the ceiling": 0}
    for draw in range(400):
        for name, chances, count in (("middle", p, 280), ("ceiling", ceiling, 100)):
            sample = Sample.of(generator.choice(NDCG, size=count, p=chances))
            found = sample_interval(sample, num_resamples=1000, seed=draw)
            hits[name] += found.low <= chances @ NDCG <= found.high
        means = resampled_means(sample, 1000, generator)
        low, high = np.quantile(means, [0.025, 0.975])
        hits["percentile at the ceiling"] += low <= ceiling @ NDCG <= high
    # 400 draws: one standard error is 1.1 %.
    assert 0.92 < hits["middle"] / 400 < 0.98
    assert hits["ceiling"] / 400 > 0.95
    assert hits["percentile at the ceiling"] / 400 < 0.92


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"values": []}, "one value for each query"),
        ({"values": [0.5, float("nan")]}, "1 values are not finite"),
        ({"values": [0.5, 1.5]}, r"expected within \(0.0, 1.0\)"),
        ({"values": [0.5, 1], "clusters": [1]}, "2 values but 1 clusters"),
        ({"values": [0.5, 1], "level": 95}, "a level between 0 and 1, received 95"),
    ],
)
def test_what_cannot_have_an_interval_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        mean_interval(**arguments)
