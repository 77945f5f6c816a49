"""Which points no other point beats."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.reporting.pareto import on_front


def beaten(point, points, sign):
    """By the definition, one pair at a time."""
    cost, value = point[0], sign * point[1]
    return any(
        other[0] <= cost and sign * other[1] <= value and (other[0] < cost or sign * other[1] < value)
        for other in points
    )


@pytest.mark.parametrize(("better", "sign"), [("lower", 1), ("higher", -1)])
@given(points=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9))
def test_it_is_what_the_definition_says_ties_and_equal_points_too(better, sign, points):
    places = [(float(cost), float(value)) for cost, value in points]
    expected = [not beaten(point, places, sign) for point in places]
    assert on_front(places, better=better) == expected


def test_one_point_is_a_front_and_none_have_none():
    assert on_front([(8.0, 0.2)], better="lower") == [True]
    assert on_front([], better="higher") == []


def test_the_order_of_points_does_not_matter():
    points = [(8.0, 0.3), (8.0, 0.2), (16.0, 0.2), (32.0, 0.1), (20.0, 0.5)]
    expected = {(8.0, 0.2), (32.0, 0.1)}
    for order in itertools.permutations(points):
        assert {
            p for p, is_on in zip(order, on_front(order, better="lower"), strict=True) if is_on
        } == expected


def test_what_is_better_turns_the_front_around():
    points = [(8.0, 0.3), (16.0, 0.2), (32.0, 0.4)]
    assert on_front(points, better="lower") == [True, True, False]
    assert on_front(points, better="higher") == [True, False, True]
