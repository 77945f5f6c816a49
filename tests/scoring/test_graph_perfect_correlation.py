"""Perfect predictions, as a graph can make them, have a correlation of 1 and no more."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autointerp.scoring.refusal_bounds import correlation_bound


@given(st.integers(0, 2000), st.sampled_from([-0.3, 0.1, 7.0]))
def test_the_last_digit_does_not_lift_a_correlation_above_1(seed, scale):
    truth = np.random.default_rng(seed).random(12).round(2)
    for side in ("worst", "best"):
        found = correlation_bound(truth, scale * truth, [], side)
        assert abs(found) <= 1.0 and abs(abs(found) - 1) < 1e-9
