import pytest

from coltrain.reproduction.report import figures


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.44, "0.4 s"),
        (9.96, "10.0 s"),
        (37.978, "38 s"),
        (60, "1 min"),
        (713.2, "11 min 53 s"),
        (3600, "1 h"),
        (7265, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_time_is_written_in_its_two_largest_units(seconds, text):
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "–"),
        (0.721, "+72.1"),
        (-0.03, "−3.0"),
        (0.0, "±0.0"),
        (-0.0001, "±0.0"),
        (0.0004, "±0.0"),
        (0.0006, "+0.1"),
    ],
)
def test_a_change_always_has_a_sign(number, text):
    assert figures.change(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(3.6364e-5, "3.636e-5"), (1.13112, "1.131"), (-2.5, "−2.5"), (0, "0"), (1.5e12, "1.5e12")],
)
def test_a_quantity_keeps_four_digits(number, text):
    assert figures.significant(number) == text


def test_token_ids_are_counted_where_they_repeat():
    assert list(figures.run_lengths([7, 0, 0, 0, 7])) == [(7, 1), (0, 3), (7, 1)]


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert figures.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert figures.sparkline([2, 2, 2]) == "▁▁▁"
    assert figures.sparkline([1]) == ""
    assert len(figures.sparkline(list(range(1001)))) <= 40
