"""Checkpoints whose units are their own: differences of two independent samples of latents."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_ind

from autointerp.estimates import compare_all, compare_paired, estimate
from autointerp.records import Comparison, Estimate, Measured, MetricDefinition, Undefined, observation_frame

SCORE = MetricDefinition(
    "explanation.score",
    "Score",
    "A mean over latents.",
    "fraction",
    "higher",
    "ratio",
    "latent",
    lowest=0.0,
    highest=1.0,
    pairing="independent",
)


def latents(checkpoint: str, values, *, ids: str | None = None, weight: float = 1.0) -> pl.DataFrame:
    values = [float(value) for value in values]
    return observation_frame(
        checkpoint=checkpoint,
        metric=SCORE.name,
        unit=[f"{ids or checkpoint}:{n}" for n in range(len(values))],
        numerator=values,
        sampling_weight=weight,
    )


def compared(one, other, **options) -> Comparison:
    frame = pl.concat([latents("a", one), latents("b", other)])
    return compare_paired(frame, SCORE, "a", "b", **{"resamples": 1000} | options)


def estimate_of(comparison: Comparison) -> Estimate:
    assert isinstance(comparison.outcome, Measured), comparison
    return comparison.outcome.estimate


def drawn(seed: int, count: int, mean: float = 0.6) -> np.ndarray:
    return np.clip(np.random.default_rng([seed, count]).normal(mean, 0.15, size=count), 0, 1)


def test_the_difference_is_that_of_the_means_and_counts_both_samples() -> None:
    one, other = drawn(0, 40), drawn(1, 30, 0.5)
    found = estimate_of(compared(one, other))
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.low < found.value < found.high
    assert (found.n, found.sampled) == (70, "latent")
    assert found.method.startswith("independent samples of 40 and 30 latents, BCa")


@pytest.mark.parametrize("means", [(0.6, 0.6), (0.6, 0.5), (0.55, 0.5)])
def test_interval_and_p_value_are_near_welchs(means: tuple[float, float]) -> None:
    one, other = drawn(3, 60, means[0]), drawn(4, 45, means[1])
    expected = ttest_ind(one, other, equal_var=False)
    limits = expected.confidence_interval(0.95)
    comparison = compared(one, other, resamples=4000)
    found = estimate_of(comparison)
    width = limits.high - limits.low
    assert abs(found.low - limits.low) < 0.12 * width
    assert abs(found.high - limits.high) < 0.12 * width
    assert comparison.p_value == pytest.approx(expected.pvalue, rel=0.5, abs=0.02)


def test_turned_round_it_is_the_opposite() -> None:
    one, other = drawn(0, 40), drawn(1, 40, 0.5)
    frame = pl.concat([latents("a", one), latents("b", other)])
    forth = estimate_of(compare_paired(frame, SCORE, "a", "b"))
    back = estimate_of(compare_paired(frame, SCORE, "b", "a"))
    assert (back.value, back.low) == pytest.approx((-forth.value, -forth.high), abs=2e-3)


def test_the_order_of_rows_does_not_matter_to_the_bit() -> None:
    frame = pl.concat([latents("a", drawn(0, 40)), latents("b", drawn(1, 40))])
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    assert compare_paired(shuffled, SCORE, "a", "b") == compare_paired(frame, SCORE, "a", "b")


def test_two_copies_of_a_checkpoint_do_not_differ() -> None:
    values = drawn(0, 40)
    frame = pl.concat([latents("a", values, ids="x"), latents("b", values, ids="x")])
    comparison = compare_paired(frame, SCORE, "a", "b")
    found = estimate_of(comparison)
    assert (found.value, found.low, found.high, comparison.p_value) == (0, 0, 0, 1)
    assert found.method.startswith("paired")


def test_units_that_must_be_shared_still_must() -> None:
    frame = pl.concat([latents("a", drawn(0, 10)), latents("b", drawn(1, 10))])
    comparison = compare_paired(frame, replace(SCORE, pairing="units"), "a", "b")
    assert comparison.outcome == Undefined("no unit in common")


def test_intervals_cover_and_p_values_are_not_too_small() -> None:
    covered = rejected = 0
    for seed in range(120):
        one, other = drawn(seed, 25, 0.6), drawn(seed + 1000, 12, 0.6)
        comparison = compared(one, other, resamples=400)
        found = estimate_of(comparison)
        covered += found.low <= 0 <= found.high
        rejected += comparison.p_value < 0.05
    assert covered / 120 >= 0.9
    assert rejected / 120 <= 0.1


def test_few_latents_are_not_compared() -> None:
    reason = Undefined("b: only 4 latents: no interval can be trusted")
    assert compared(drawn(0, 40), drawn(1, 4)).outcome == reason


def test_all_latents_alike_have_a_mean_with_a_width() -> None:
    outcome = estimate(latents("a", [1.0] * 12), SCORE)
    assert isinstance(outcome, Measured)
    found = outcome.estimate
    share = 1 - 0.025 ** (1 / 12)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1 - share, 1.0))
    half = estimate(latents("a", [0.5] * 12), SCORE)
    assert isinstance(half, Measured)
    assert (half.estimate.low, half.estimate.high) == pytest.approx((0.5 - share / 2, 0.5 + share / 2))
    unbounded = estimate(latents("a", [0.0] * 12), replace(SCORE, lowest=None))
    assert isinstance(unbounded, Measured)
    assert unbounded.estimate.low == pytest.approx(-share)


def test_documents_that_are_all_alike_keep_the_point_of_what_has_no_bounds() -> None:
    constant = replace(SCORE, pairing="units", lowest=None, highest=None)
    outcome = estimate(latents("a", [1.0] * 12), constant)
    assert isinstance(outcome, Measured)
    assert outcome.estimate.low == outcome.estimate.high == 1


def test_samples_without_spread_differ_only_if_they_are_far_apart() -> None:
    clear = compared([1.0] * 20, [0.5] * 20)
    assert estimate_of(clear).low > 0
    assert clear.p_value is not None and clear.p_value < 0.01
    unclear = compared([0.55] * 20, [0.5] * 20)
    assert estimate_of(unclear).low < 0 < estimate_of(unclear).high
    assert unclear.p_value is None
    same = compared([0.5] * 20, [0.5] * 20)
    assert same.p_value == 1
    assert estimate_of(same).low < 0 < estimate_of(same).high


def test_paired_and_independent_metrics_share_one_table_and_one_adjustment() -> None:
    documents = replace(SCORE, name="reconstruction.it", pairing="units", sampled="document")
    rows = [
        latents("a", drawn(0, 30), ids="d").with_columns(metric=pl.lit(documents.name)),
        latents("b", drawn(0, 30) + 0.01, ids="d").with_columns(metric=pl.lit(documents.name)),
        latents("a", drawn(0, 30)),
        latents("b", drawn(5, 30, 0.3)),
    ]
    found = compare_all(pl.concat(rows), [documents, SCORE], [("a", "b")])
    assert [estimate_of(each).method.split()[0] for each in found] == ["paired", "independent"]
    assert all(each.adjusted_p_value is not None for each in found)
