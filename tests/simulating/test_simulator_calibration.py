"""Calibrations of simulators against SciPy and NumPy, and where they are undefined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autointerp.simulating.calibration import (
    Calibration,
    LinearCalibration,
    fit_calibration,
    fit_linear,
    fit_percentile,
)

PAIRS = st.lists(st.tuples(st.integers(0, 10), st.floats(-5, 50)), min_size=2, max_size=40)


@given(PAIRS)
def test_linear_is_least_squares(pairs):
    p, t = np.array(pairs, dtype=float).T
    found = fit_linear(p, t)
    if np.ptp(p) == 0:
        assert found is None
        return
    expected = stats.linregress(p, t)
    assert found.slope == pytest.approx(expected.slope, abs=1e-9)
    assert found.intercept == pytest.approx(expected.intercept, abs=1e-9)
    residual = t - found.apply(p)
    assert residual.sum() == pytest.approx(0, abs=1e-6)
    assert residual @ p == pytest.approx(0, abs=1e-5)


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=30, unique_by=lambda pair: pair[0]
    )
)
def test_percentile_gives_distinct_predictions_the_sorted_activations(pairs):
    p, t = np.array(pairs).T
    found = fit_percentile(p, t)
    np.testing.assert_allclose(np.sort(found.apply(p)), np.sort(t))
    np.testing.assert_allclose(found.apply(p), np.sort(t)[stats.rankdata(p).astype(int) - 1])


@given(PAIRS)
def test_percentile_keeps_order_range_and_mean(pairs):
    p, t = np.array(pairs, dtype=float).T
    found = fit_percentile(p, t).apply(p)
    assert found.mean() == pytest.approx(t.mean())
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= -1e-9).all()
    assert t.min() - 1e-9 <= found.min() and found.max() <= t.max() + 1e-9
    for value in set(p):  # ties: the mean of the activations at their ranks
        ranks = np.flatnonzero(np.sort(p) == value)
        assert found[p == value] == pytest.approx(np.sort(t)[ranks].mean())


def test_percentile_is_linear_between_and_constant_beyond():
    found = fit_percentile([0.0, 10.0], [1.0, 3.0])
    np.testing.assert_allclose(found.apply([-5, 0, 5, 10, 99]), [1, 1, 2, 3, 3])


def test_missing_predictions_are_left_out_and_stay_missing():
    nan = np.nan
    for fit in (fit_linear, fit_percentile):
        there = fit([0.0, nan, 10.0], [1.0, 100.0, 3.0])
        assert there == fit([0.0, 10.0], [1.0, 3.0])
        np.testing.assert_array_equal(there.apply([nan, 0.0]), [nan, 1.0])


def test_undefined_cases_give_no_calibration():
    assert fit_linear([], []) is None
    assert fit_linear([1.0], [2.0]) is None
    assert fit_linear([1.0, 1.0], [2.0, 3.0]) is None
    assert fit_linear([np.nan, 1.0], [2.0, 3.0]) is None
    assert fit_percentile([], []) is None
    assert fit_percentile([np.nan], [1.0]) is None
    np.testing.assert_array_equal(fit_percentile([1.0, 1.0], [2.0, 4.0]).apply([0.0, 1.0, 7.0]), [3, 3, 3])
    with pytest.raises(ValueError, match="2 predictions and 1"):
        fit_linear([1.0, 2.0], [1.0])


def test_the_suites_names_choose_the_fit():
    p, t = [0.0, 1.0, 5.0], [0.0, 2.0, 3.0]
    assert fit_calibration("none", p, t) is None
    assert fit_calibration("linear", p, t) == fit_linear(p, t)
    assert fit_calibration("percentile", p, t) == fit_percentile(p, t)
    assert isinstance(LinearCalibration(1.0, 0.0), Calibration)
    assert isinstance(fit_percentile(p, t), Calibration)
