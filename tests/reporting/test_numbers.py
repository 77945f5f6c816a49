import pytest

from autointerp.reporting import numbers

THIN = "\u202f"


@pytest.mark.parametrize(
    ("low", "high", "decimals"),
    [
        (0.0498, 0.0544, 3),  # width 0.0046: one digit of it
        (0.049, 0.051, 4),  # width 0.0020: two digits of it
        (57.1, 59.6, 1),
        (1200.0, 1900.0, 0),
        (16.0, 16.0, 0),
        (0.125, 0.125, 3),
        (0.0, 0.0, 0),
        (-0.0302, -0.0098, 3),
        (0.0, 1e-30, 8),
    ],
)
def test_decimals_follow_from_the_width_of_the_interval(low, high, decimals):
    assert numbers.decimals_for(low, high) == decimals


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.0521, 0.0498, 0.0544, "0.052 [0.050, 0.054]"),
        (0.0, 0.0, 0.005, "0.000 [0.000, 0.005]"),
        (16.0, 16.0, 16.0, "16 [16, 16]"),
        (-1234.5, -1300.0, -1100.0, f"−1{THIN}234 [−1{THIN}300, −1{THIN}100]"),
    ],
)
def test_value_and_interval_share_their_decimals(value, low, high, expected):
    assert numbers.value_with_interval(value, low, high) == expected


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.012, -0.001, 0.025, "+0.012 [−0.001, +0.025]"),
        (-0.0410, -0.0425, -0.0395, "−0.0410 [−0.0425, −0.0395]"),
        (0.0, -0.1, 0.1, "0.00 [−0.10, +0.10]"),
    ],
)
def test_differences_always_show_their_sign_except_zero(value, low, high, expected):
    assert numbers.value_with_interval(value, low, high, show_sign=True) == expected


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.052, 0.050, 0.054, "0.052 ± 0.002"),
        (0.86, 0.79, 0.95, "0.86 [0.79, 0.95]"),
    ],
)
def test_plus_minus_is_used_only_where_both_sides_look_the_same(value, low, high, expected):
    assert numbers.plus_minus(value, low, high) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.25, "0.25"),
        (3.14159, "3.142"),
        (-2.5, "−2.5"),
        (123456.7, f"123{THIN}457"),
        (1.5e-7, "1.50e−7"),
        (2e15, "2.00e15"),
        (-1e-9, "−1.00e−9"),
    ],
)
def test_plain_numbers_keep_four_digits(value, expected):
    assert numbers.plain(value) == expected


def test_a_rounded_zero_has_no_sign():
    assert numbers.fixed(-0.0001, 2) == "0.00"
    assert numbers.signed(-0.0001, 2) == "0.00"


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0"), (999, "999"), (2048, f"2{THIN}048"), (1234567, f"1{THIN}234{THIN}567")]
)
def test_counts_are_grouped_by_threes(number, expected):
    assert numbers.count(number) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0 ms"),
        (0.8504, "850 ms"),
        (0.97, "1.0 s"),
        (12.44, "12.4 s"),
        (59.96, "1 min 0 s"),
        (200.4, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds, expected):
    assert numbers.duration(seconds) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, "0 B"), (768, "768 B"), (4500, "4.5 kB"), (999_960, "1.0 MB"), (3 * 10**15, f"3{THIN}000.0 TB")],
)
def test_bytes_are_counted_in_powers_of_a_thousand(amount, expected):
    assert numbers.byte_count(amount) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.0, "< 0.001"), (0.00099, "< 0.001"), (0.0341, "0.034"), (0.4, "0.40"), (1.0, "1.00")],
)
def test_p_values_stop_at_a_thousandth(p, expected):
    assert numbers.p_value(p) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "all"),
        ({"position": "4-15"}, "position 4–15"),
        ({"k": 5, "negatives": "hard-ish"}, "k 5, negatives hard-ish"),
    ],
)
def test_slices_are_said_in_words(settings, expected):
    assert numbers.slice_words(settings) == expected
