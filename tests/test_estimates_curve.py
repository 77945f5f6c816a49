"""The compute curve gives back what made its points, and knows where it ends."""

import numpy as np
import pytest

from autointerp.compute_curve import ComputeCurve

FLOPS = np.geomspace(1e15, 1e18, 6)


def losses(irreducible=1.7, scale=0.8, exponent=0.12, unit=1e17):
    return irreducible + scale * (FLOPS / unit) ** -exponent


def points(noise=0.0, **changes):
    return np.stack([FLOPS, losses(**changes) + noise], axis=1).tolist()


@pytest.mark.parametrize("irreducible", [0.05, 1.7, 3.0])
@pytest.mark.parametrize("exponent", [0.04, 0.12, 0.5])
def test_the_fit_gives_back_the_parameters_that_made_the_points(irreducible, exponent):
    curve = ComputeCurve.fit(points(irreducible=irreducible, exponent=exponent))
    assert curve.irreducible_nats == pytest.approx(irreducible, rel=1e-4)
    assert curve.exponent == pytest.approx(exponent, rel=1e-4)
    assert curve.loss(1e17) == pytest.approx(irreducible + 0.8, rel=1e-8)


def test_compute_is_the_inverse_of_loss():
    curve = ComputeCurve.fit(points())
    for flops in np.geomspace(1e15, 1e18, 13):
        assert curve.compute(curve.loss(flops)) == pytest.approx(flops, rel=1e-9)


def test_there_is_no_compute_outside_the_points():
    curve = ComputeCurve.fit(points())
    lowest, highest = curve.loss_range
    assert curve.compute(lowest - 1e-6) is None
    assert curve.compute(highest + 1e-6) is None
    assert curve.compute(float("nan")) is None


def test_the_order_of_points_does_not_matter():
    one, other = ComputeCurve.fit(points()), ComputeCurve.fit(points()[::-1])
    assert (one.irreducible_nats, one.scale_nats, one.exponent) == (
        other.irreducible_nats,
        other.scale_nats,
        other.exponent,
    )


def test_the_fit_is_no_worse_than_any_curve_on_a_fine_grid():
    noise = np.random.default_rng(0).normal(0, 0.02, 6)
    curve = ComputeCurve.fit(points(noise))
    mine = sum((curve.loss(c) - loss) ** 2 for c, loss in points(noise))
    target = losses() + noise
    best = np.inf
    for exponent in np.geomspace(0.005, 2, 2000):
        design = np.stack([np.ones(6), (FLOPS / 1e17) ** -exponent], axis=1)
        solution, *_ = np.linalg.lstsq(design, target, rcond=None)
        if (solution > 0).all():
            best = min(best, ((design @ solution - target) ** 2).sum())
    assert mine <= best * (1 + 1e-6)


def test_draws_scatter_around_the_fit_as_noise_does():
    curve = ComputeCurve.fit(points(np.array([0.01, -0.01, 0.01, -0.01, 0.01, -0.01])))
    draws = curve.draws(300, np.random.default_rng(0))
    delta = np.full(300, 0.3)
    flops = draws.compute_after(delta, from_flops=1e18)
    expected = curve.compute(curve.loss(1e18) + 0.3)
    assert np.quantile(flops, 0.05) < expected < np.quantile(flops, 0.95)
    exact = ComputeCurve.fit(points()).draws(5, np.random.default_rng(0))
    assert exact.exponent == pytest.approx(np.full(5, 0.12), rel=0.02)


def test_draws_are_clipped_to_the_range_of_the_points():
    draws = ComputeCurve.fit(points()).draws(3, np.random.default_rng(0))
    assert draws.compute_after(np.full(3, 50.0), from_flops=1e18).tolist() == pytest.approx([1e15] * 3)
    assert draws.compute_after(np.full(3, -50.0), from_flops=1e18).tolist() == pytest.approx([1e18] * 3)


@pytest.mark.parametrize(
    "bad", [points()[:3], [], [[1e15, 2.0]] * 6, [*points(), [1e16, -1.0]], [*points(), [0.0, 2.0]]]
)
def test_too_few_or_impossible_points_are_refused(bad):
    with pytest.raises(ValueError, match="compute"):
        ComputeCurve.fit(bad)


@pytest.mark.parametrize(
    "losses", [[3.0, 3.1, 3.2, 3.3], [3.0] * 4, [3.3, 3.0, 3.4, 3.3], [3.0, 3.0, 3.0, 2.99999999999]]
)
def test_a_curve_that_does_not_fall_is_refused(losses):
    with pytest.raises(ValueError, match="do not fall with compute"):
        ComputeCurve.fit(np.stack([np.geomspace(1e10, 1e13, 4), losses], axis=1).tolist())


def test_both_ends_of_a_steep_or_shallow_curve_invert_without_overflow():
    for losses in ([3.3, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 2.9], [3.0003, 3.0002, 3.0001, 3.0]):
        curve = ComputeCurve.fit(np.stack([np.geomspace(1e10, 1e13, 4), losses], axis=1).tolist())
        lowest, highest = curve.loss_range
        for loss in (lowest - 1e-13, lowest, lowest + 1e-13, (lowest + highest) / 2, highest):
            assert 1e10 <= curve.compute(loss) <= 1e13
