"""Paired differences: narrower than unpaired ones, honest under the null, adjusted for their number."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from autointerp.estimates import compare_all, compare_paired, estimate, estimate_all
from autointerp.records import Failed, Measured, MetricDefinition, Undefined, observation_frame


def definition(name="m", functional="ratio", **changes):
    return MetricDefinition(name, "title", "meaning", "nats", "lower", functional, "document", **changes)


def documents(checkpoint, values, *, metric="m", first=0, **columns):
    return observation_frame(
        checkpoint=checkpoint,
        metric=metric,
        unit=[f"d{n + first:04d}" for n in range(len(values))],
        numerator=np.asarray(values, dtype=float),
        **columns,
    )


def correlated(rng, *, count=80, shift=0.1, noise=0.1):
    hardness = rng.normal(3, 1, count)
    return documents("a", hardness), documents("b", hardness + shift + noise * rng.normal(size=count))


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    frame = pl.concat(correlated(np.random.default_rng(0)))
    mine = compare_paired(frame, definition(), "b", "a").outcome.estimate
    a, b = (r.outcome.estimate for r in estimate_all(frame, [definition()]))
    unpaired_width = math.hypot(a.high - a.low, b.high - b.low)
    assert mine.value == pytest.approx(b.value - a.value)
    assert mine.high - mine.low < unpaired_width / 4
    assert mine.method.startswith("paired BCa bootstrap over 80 clusters")


def test_the_difference_agrees_with_scipys_bca_bootstrap_and_t_test():
    rng = np.random.default_rng(1)
    one, other = correlated(rng, shift=0.03)
    mine = compare_paired(pl.concat([one, other]), definition(), "b", "a", resamples=20000)
    difference = other["numerator"].to_numpy() - one["numerator"].to_numpy()
    oracle = stats.bootstrap((difference,), np.mean, n_resamples=20000, rng=np.random.default_rng(2))
    found = mine.outcome.estimate
    width = found.high - found.low
    assert found.low == pytest.approx(oracle.confidence_interval.low, abs=0.03 * width)
    assert found.high == pytest.approx(oracle.confidence_interval.high, abs=0.03 * width)
    assert mine.p_value == pytest.approx(stats.ttest_1samp(difference, 0.0).pvalue, abs=0.01)


def null_comparisons(count=300):
    frames = []
    for n in range(count):
        one, other = correlated(np.random.default_rng([3, n]), count=40, shift=0.0)
        frames += [
            one.with_columns(metric=pl.lit(f"m{n}")),
            other.with_columns(metric=pl.lit(f"m{n}")),
        ]
    return compare_all(pl.concat(frames), [definition(f"m{n}") for n in range(count)], resamples=500)


def test_p_values_are_uniform_under_the_null_and_agree_with_the_intervals():
    comparisons = null_comparisons()
    p_values = np.array([c.p_value for c in comparisons])
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    assert 0.01 <= np.mean(p_values < 0.05) <= 0.11
    for comparison in comparisons:
        found = comparison.outcome.estimate
        if abs(comparison.p_value - 0.05) > 0.015:  # what add-one counting and interpolation may move it
            assert (comparison.p_value < 0.05) == (not found.low <= 0 <= found.high)


@pytest.mark.parametrize("count", [5, 6, 8, 20])
def test_few_documents_are_seldom_significant_where_there_is_no_difference(count):
    frames = [
        documents(name, np.random.default_rng([20, n, count, name == "a"]).normal(size=count)).with_columns(
            metric=pl.lit(f"m{n}"), unit=pl.lit(f"{n}-") + pl.col("unit")
        )
        for n in range(300)
        for name in "ab"
    ]
    comparisons = compare_all(pl.concat(frames), [definition(f"m{n}") for n in range(300)], resamples=1000)
    p_values = np.array([c.p_value for c in comparisons])
    assert np.mean(p_values < 0.05) <= 0.08
    assert p_values.min() >= 2.0 ** (1 - count)
    hits = [c.outcome.estimate.low <= 0 <= c.outcome.estimate.high for c in comparisons]
    assert np.mean(hits) >= 0.90


def test_too_few_documents_give_neither_difference_nor_p_value():
    rng = np.random.default_rng(21)
    frame = pl.concat([documents(name, rng.normal(size=4)) for name in "ab"])
    comparison = compare_paired(frame, definition(), "b", "a")
    assert comparison.outcome == Undefined("b: only 4 documents: no interval can be trusted")
    assert comparison.p_value is None


def test_equal_signs_of_five_documents_are_not_significant_however_clear():
    frame = pl.concat([documents("a", np.zeros(5)), documents("b", np.full(5, 3.0))])
    assert compare_paired(frame, definition(), "b", "a").p_value == 2.0**-4


def test_a_denominator_that_may_be_zero_on_either_side_gives_no_difference():
    rng = np.random.default_rng(22)
    one, other = correlated(rng)
    shaky = one.with_columns(denominator=pl.Series(rng.normal(0.1, 1.0, one.height)))
    for pair in (("a", "b"), ("b", "a")):
        comparison = compare_paired(pl.concat([shaky, other]), definition(), *pair)
        assert isinstance(comparison.outcome, Undefined)
        assert comparison.outcome.reason.startswith("a: the denominator is not clearly above 0")
        assert comparison.p_value is None


def test_p_values_are_adjusted_as_benjamini_and_hochberg_do():
    rng = np.random.default_rng(4)
    frames = [
        frame.with_columns(metric=pl.lit(f"m{n}"))
        for n in range(8)
        for frame in correlated(rng, shift=0.01 * n)
    ]
    comparisons = compare_all(pl.concat(frames), [definition(f"m{n}") for n in range(8)])
    adjusted = stats.false_discovery_control([c.p_value for c in comparisons])
    assert [c.adjusted_p_value for c in comparisons] == pytest.approx(adjusted.tolist())
    assert all(c.adjusted_p_value >= c.p_value > 0 for c in comparisons)


def test_all_pairs_are_later_minus_earlier():
    rng = np.random.default_rng(5)
    names = ["step 1000", "step 20", "step 300"]
    frame = pl.concat([documents(name, rng.normal(size=20)) for name in names])
    pairs = [(c.checkpoint, c.reference) for c in compare_all(frame, [definition()], resamples=50)]
    assert pairs == [("step 300", "step 20"), ("step 1000", "step 20"), ("step 1000", "step 300")]
    given = compare_all(frame, [definition()], checkpoints=names, resamples=50)
    assert [(c.checkpoint, c.reference) for c in given] == [
        ("step 20", "step 1000"),
        ("step 300", "step 1000"),
        ("step 300", "step 20"),
    ]
    chosen = compare_all(frame, [definition()], [("step 20", "step 300")], resamples=50)
    assert [(c.checkpoint, c.reference) for c in chosen] == [("step 20", "step 300")]


def test_order_of_rows_and_other_checkpoints_do_not_change_a_single_bit():
    rng = np.random.default_rng(6)
    frame = pl.concat([*correlated(rng), documents("c", rng.normal(size=70), first=30)])
    expected = {(c.checkpoint, c.reference): c.outcome for c in compare_all(frame, [definition()])}
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=0)
    for comparison in compare_all(shuffled, [definition()]):
        assert comparison.outcome == expected[comparison.checkpoint, comparison.reference]
    alone = compare_paired(frame.filter(pl.col("checkpoint") != "c"), definition(), "b", "a")
    assert alone.outcome == expected["b", "a"]


def test_swapping_the_two_turns_the_sign():
    frame = pl.concat(correlated(np.random.default_rng(7)))
    forth, back = (compare_paired(frame, definition(), *names) for names in (("a", "b"), ("b", "a")))
    one, other = forth.outcome.estimate, back.outcome.estimate
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-9)
    assert forth.p_value == pytest.approx(back.p_value, rel=1e-6)


def test_only_common_units_count():
    rng = np.random.default_rng(8)
    one, other = correlated(rng)
    alien = documents("b", rng.normal(100, 1, 10), first=500)
    found = compare_paired(pl.concat([one.tail(60), other, alien]), definition(), "b", "a").outcome.estimate
    expected = compare_paired(pl.concat([one.tail(60), other.tail(60)]), definition(), "b", "a")
    assert found.value == expected.outcome.estimate.value
    assert (found.low, found.high) == (expected.outcome.estimate.low, expected.outcome.estimate.high)
    assert found.n == 60
    assert found.method.endswith("on the 60 units common to both (of 90 and 60)")


def test_no_common_unit_is_undefined():
    rng = np.random.default_rng(9)
    frame = pl.concat([documents("a", rng.normal(size=9)), documents("b", rng.normal(size=9), first=50)])
    comparison = compare_paired(frame, definition(), "b", "a")
    assert comparison.outcome == Undefined("no unit in common")
    assert comparison.p_value is None


def test_a_checkpoint_compared_with_itself_does_not_differ():
    one, _ = correlated(np.random.default_rng(10))
    frame = pl.concat([one, one.with_columns(checkpoint=pl.lit("b"))])
    comparison = compare_paired(frame, definition(), "b", "a")
    found = comparison.outcome.estimate
    assert (found.value, found.low, found.high, comparison.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_constant_difference_has_the_smallest_p_value():
    one, other = correlated(np.random.default_rng(11), noise=0.0, shift=0.5)
    comparison = compare_paired(pl.concat([one, other]), definition(), "b", "a", resamples=999)
    assert comparison.p_value == pytest.approx(2 / 1000)
    assert comparison.outcome.estimate.low == pytest.approx(0.5)


def test_a_tiny_constant_difference_is_not_taken_for_scatter():
    one, _ = correlated(np.random.default_rng(17))
    other = one.with_columns(pl.col("numerator") + 1e-6, checkpoint=pl.lit("b"))
    found = compare_paired(pl.concat([one, other]), definition(), "b", "a").outcome.estimate
    assert found.low == found.high == found.value == pytest.approx(1e-6, rel=1e-6)


def test_a_missing_or_failed_side_is_the_outcome_and_names_the_checkpoint():
    one, other = correlated(np.random.default_rng(12))
    failed = one.with_columns(status=pl.lit("failed"), reason=pl.lit("out of memory"))
    skipped = other.with_columns(status=pl.lit("skipped"), reason=pl.lit("not asked for"))
    comparison = compare_paired(pl.concat([failed, skipped]), definition(), "b", "a")
    assert comparison.outcome == Failed("a: out of memory")
    assert (comparison.p_value, comparison.adjusted_p_value) == (None, None)
    gone = compare_all(one, [definition()], [("b", "a")])[0]
    assert gone.outcome == Undefined("b: no observations")
    flat = compare_paired(
        pl.concat([one.with_columns(denominator=pl.lit(0.0)), other]), definition(), "b", "a"
    )
    assert isinstance(flat.outcome, Undefined)
    assert flat.outcome.reason.startswith("a: ")


def test_units_in_different_clusters_are_a_failure():
    one, other = correlated(np.random.default_rng(13))
    frame = pl.concat([one, other.with_columns(cluster=pl.lit("x") + pl.col("unit"))])
    assert isinstance(compare_paired(frame, definition(), "b", "a").outcome, Failed)


def test_comparisons_use_the_headline_slice_and_others_on_request():
    rng = np.random.default_rng(14)
    one, other = correlated(rng)
    sliced = [
        f.with_columns(slice=pl.lit('{"k":5}'), numerator=pl.col("numerator") * 2) for f in (one, other)
    ]
    frame = pl.concat([one, other, *sliced])
    assert [c.slice for c in compare_all(frame, [definition()])] == [{}]
    headline = compare_paired(frame, definition(), "b", "a")
    doubled = compare_paired(frame, definition(), "b", "a", slice_text='{"k":5}')
    assert doubled.slice == {"k": 5}
    assert doubled.outcome.estimate.value == pytest.approx(2 * headline.outcome.estimate.value)


def unseen_rows(checkpoint, fires):
    counts = fires.sum(axis=0)
    return observation_frame(
        checkpoint=checkpoint,
        metric="m",
        unit=[f"{checkpoint}/{n}" for n in range(fires.shape[1])],
        cluster=[
            f"d{np.flatnonzero(f)[0]}" if count == 1 else "" for f, count in zip(fires.T, counts, strict=True)
        ],
        numerator=counts.astype(float),
        denominator=float(len(fires)),
    )


def test_unseen_fractions_are_compared_on_the_documents_though_no_latent_is_common():
    rng = np.random.default_rng(15)
    fires = [rng.random((30, 60)) < rate for rate in (0.03, 0.05)]
    frame = pl.concat([unseen_rows(name, each) for name, each in zip("ab", fires, strict=True)])
    comparison = compare_paired(frame, definition(functional="unseen_fraction"), "b", "a")
    unseen = [
        np.array([(np.delete(each, d, axis=0).sum(axis=0) == 0).mean() for d in range(30)]) for each in fires
    ]
    left_out = unseen[1] - unseen[0]
    error = math.sqrt(29 / 30 * ((left_out - left_out.mean()) ** 2).sum())
    found = comparison.outcome.estimate
    assert found.value == pytest.approx((fires[1].sum(0) == 0).mean() - (fires[0].sum(0) == 0).mean())
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 29) * error)
    assert comparison.p_value == pytest.approx(2 * stats.t.sf(abs(found.value) / error, 29))


def test_compute_equivalents_are_compared_through_the_same_curves():
    rng = np.random.default_rng(16)
    points = [[c, 1.8 + 0.9 * (c / 1e16) ** -0.15] for c in np.geomspace(1e15, 1e18, 6)]
    noise = rng.normal(0, 0.05, 80)
    frame = pl.concat([documents("a", 0.3 + noise), documents("b", 0.2 + noise)])
    what = definition(functional="compute_equivalent_fraction", parameters={"points": points})
    comparison = compare_paired(frame, what, "b", "a")
    parts = [estimate(f, what).estimate for f in frame.partition_by("checkpoint", maintain_order=True)]
    found = comparison.outcome.estimate
    assert found.value == pytest.approx(parts[1].value - parts[0].value)
    assert 0 < found.low < found.value < found.high
    assert isinstance(comparison.outcome, Measured)
    assert comparison.p_value < 0.01
