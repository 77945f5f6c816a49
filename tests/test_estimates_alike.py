"""Units that are all alike: what their intervals must still hold, by closed form and by simulation."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from autointerp.estimates import compare_paired, estimate, estimate_all
from autointerp.estimates.bootstrap import binomial_interval, unseen_share
from autointerp.records import Measured, MetricDefinition, observation_frame

UNSEEN = MetricDefinition(
    "m", "t", "m", "fraction", "lower", "unseen_fraction", "latent", lowest=0.0, highest=1.0
)
SHARE = MetricDefinition("m", "t", "m", "fraction", "lower", "ratio", "document", lowest=0.0, highest=1.0)


def number(outcome):
    assert isinstance(outcome, Measured), outcome
    return outcome.estimate


def firings(fires, checkpoint="a"):
    """Which latent fired in which document -> a row a latent."""
    counts = fires.sum(axis=0)
    only = ["" if n != 1 else f"d{np.flatnonzero(fires[:, place])[0]}" for place, n in enumerate(counts)]
    return observation_frame(
        checkpoint=checkpoint,
        metric="m",
        unit=[f"{checkpoint}/{place}" for place in range(fires.shape[1])],
        cluster=only,
        numerator=counts.astype(float),
        denominator=float(len(fires)),
    )


def documents(values, checkpoint="a"):
    return observation_frame(
        checkpoint=checkpoint,
        metric="m",
        unit=[f"d{place}" for place in range(len(values))],
        numerator=np.asarray(values, float),
    )


@pytest.mark.parametrize(("document_count", "latents", "size"), [(24, 100, 24), (200, 30, 30)])
@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_latents_that_all_fire_or_none_leave_what_so_few_cannot_exclude(
    document_count, latents, size, fraction
):
    fires = np.full((document_count, latents), fraction == 0.0)
    found = number(estimate(firings(fires), UNSEEN))
    reach = 1 - 0.025 ** (1 / size)
    assert found.value == fraction
    assert found.high == pytest.approx(min(1.0, fraction + reach))
    assert found.low == pytest.approx(max(0.0, fraction - reach))
    assert f"Clopper-Pearson) as of {size} independent latents" in found.method
    assert "jackknife" not in found.method


def test_some_seen_everywhere_and_others_nowhere_have_the_binomial_interval():
    fires = np.zeros((40, 50), bool)
    fires[:, :40] = True
    found = number(estimate(firings(fires), UNSEEN))
    exact = stats.binomtest(8, 40).proportion_ci(0.95, "exact")  # 10 of 50 latents, as of 40
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_the_binomial_interval_is_scipys():
    for seen, size in ((0, 7), (3, 7), (7, 7)):
        exact = stats.binomtest(seen, size).proportion_ci(0.9, "exact")
        found = binomial_interval(seen / size, size, level=0.9)
        assert found == pytest.approx((exact.low, exact.high))
    assert binomial_interval(0.0, 12, level=0.95)[1] == pytest.approx(unseen_share(12, level=0.95))


@pytest.mark.parametrize(
    ("document_count", "latents", "block"), [(8, 40, 1), (20, 40, 2), (40, 20, 1), (24, 120, 5)]
)
@pytest.mark.parametrize("times", [0.02, 4.0, 8.0])
def test_the_interval_covers_where_the_jackknife_sees_nothing(document_count, latents, block, times):
    """Latents that fire in blocks, `times` in D documents on average; the truth is (1 - p)^D."""
    rng = np.random.default_rng([document_count, latents, int(100 * times)])
    p = times / document_count
    frames = []
    for simulation in range(200):
        blocks = rng.random((document_count, latents // block)) < p
        frames.append(firings(np.repeat(blocks, block, axis=1), str(simulation)))
    found = [number(each.outcome) for each in estimate_all(pl.concat(frames), [UNSEEN])]
    truth = (1 - p) ** document_count
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert covered >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 200)
    without = np.mean(["jackknife" in each.method for each in found])
    assert without < 1, "no simulation met the case at all"


def test_a_difference_that_no_document_changes_has_a_width():
    fires = [np.ones((24, 30), bool), np.zeros((24, 30), bool)]
    frame = pl.concat([firings(each, name) for each, name in zip(fires, "ab", strict=True)])
    found = compare_paired(frame, UNSEEN, "b", "a")
    share = 1 - 0.025 ** (1 / 24)
    assert number(found.outcome).value == 1.0
    assert (number(found.outcome).low, number(found.outcome).high) == pytest.approx((1 - 2 * share, 1.0))
    assert "none alone changes it" in number(found.outcome).method
    assert found.p_value == pytest.approx(2 * 2.0**-24, rel=1e-9)


def test_its_p_value_is_the_level_whose_interval_touches_zero():
    fires = [np.ones((24, 40), bool) for _ in "ab"]
    fires[1][:, :10] = False
    frame = pl.concat([firings(each, name) for each, name in zip(fires, "ab", strict=True)])
    p = compare_paired(frame, UNSEEN, "b", "a").p_value
    touching = number(compare_paired(frame, UNSEEN, "b", "a", level=1 - p).outcome)
    assert touching.value == pytest.approx(0.25)
    assert touching.low == pytest.approx(0.0, abs=1e-12)
    assert compare_paired(frame, UNSEEN, "a", "a").p_value == 1.0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_that_is_the_same_in_all_documents_has_a_width(value):
    found = number(estimate(documents([value] * 30), SHARE))
    reach = 1 - 0.025 ** (1 / 30)
    assert (found.low, found.high) == pytest.approx(
        (max(0.0, value - reach), min(1.0, value + reach)), abs=1e-12
    )
    assert "what they cannot exclude" in found.method


def test_two_shares_without_any_spread_differ_by_an_interval_but_copies_do_not():
    frame = pl.concat([documents([1.0] * 30, "a"), documents([0.0] * 30, "b"), documents([1.0] * 30, "c")])
    found = number(compare_paired(frame, SHARE, "b", "a").outcome)
    reach = math.hypot(1 - 0.025 ** (1 / 30), 1 - 0.025 ** (1 / 30))
    assert (found.low, found.high) == pytest.approx((-1.0, -1 + reach), abs=1e-12)
    equal = number(compare_paired(frame, SHARE, "c", "a").outcome)
    assert (equal.low, equal.value, equal.high) == (0.0, 0.0, 0.0)
