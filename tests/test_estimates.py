"""Estimates against scipy, scikit-learn, brute force and simulation; and the laws that all of them obey."""

import math
import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from autointerp.estimates import FUNCTIONALS, bootstrap, estimate, estimate_all
from autointerp.estimates.bootstrap import (
    Replicates,
    bootstrap_interval,
    jackknife,
    resample_all,
    two_sided_p_value,
)
from autointerp.estimates.exact_sums import fixed_point
from autointerp.estimates.series import read_series
from autointerp.records import Failed, Measured, MetricDefinition, Skipped, Undefined, observation_frame

POINTS = [[c, 1.8 + 0.9 * (c / 1e16) ** -0.15] for c in np.geomspace(1e15, 1e18, 6)]


def definition(functional="ratio", name="m", **changes):
    base = MetricDefinition(name, "title", "meaning", "nats", "lower", functional, "document")
    return replace(base, **changes)


def clustered(rng, *, clusters=30, per_cluster=4, checkpoint="a", metric="m", **columns):
    """Units in clusters that share a level, so that units are far from independent."""
    level = np.repeat(rng.normal(2.0, 1.0, clusters), per_cluster)
    denominator = rng.integers(5, 40, clusters * per_cluster).astype(float)
    rate = level + rng.normal(0, 0.5, clusters * per_cluster)
    names = [f"doc{n // per_cluster:04d}" for n in range(clusters * per_cluster)]
    return observation_frame(
        checkpoint=checkpoint,
        metric=metric,
        unit=[f"u{n:05d}" for n in range(clusters * per_cluster)],
        cluster=names,
        numerator=rate * denominator,
        denominator=denominator,
        **columns,
    )


def ranking(rng, *, examples=60, clusters=15, groups=1, ties=True, **columns):
    label = (np.arange(examples) % 3 == 0).astype(float)
    score = rng.normal(label, 1.0)
    return observation_frame(
        checkpoint="a",
        metric="m",
        unit=[f"e{n:04d}" for n in range(examples)],
        cluster=[f"doc{n:03d}" for n in rng.integers(0, clusters, examples)],
        group=[f"g{n // 3 % groups}" for n in range(examples)],
        numerator=np.round(score, 1) if ties else score,
        label=label,
        sampling_weight=rng.uniform(0.5, 2.0, examples),
        **columns,
    )


def unseen(fired, documents=50, **columns):
    """One latent a number: in how many documents it fired; those with one name a document."""
    fired = list(fired)
    return observation_frame(
        checkpoint=columns.pop("checkpoint", "a"),
        metric="m",
        unit=[f"l{n}" for n in range(len(fired))],
        cluster=[f"doc{n % 7}" if count == 1 else "" for n, count in enumerate(fired)],
        numerator=[float(count) for count in fired],
        denominator=float(documents),
        **columns,
    )


def example_of(functional, rng):
    """Observations that suit each functional; a functional without an example fails the laws."""
    examples = {
        "ratio": lambda: clustered(rng),
        "one_minus_ratio": lambda: clustered(rng),
        "mean_of_group_ratios": lambda: clustered(
            rng, group=[f"g{n % 5}" for n in range(120)], group_weight=[1.0 + n % 5 for n in range(120)]
        ),
        "auroc": lambda: ranking(rng),
        "mean_of_group_aurocs": lambda: ranking(rng, groups=3, group_weight=1.5),
        "unseen_fraction": lambda: unseen(rng.poisson(1.0, 200)),
        "compute_equivalent_fraction": lambda: clustered(rng).with_columns(pl.col("numerator") * 0.1),
    }
    parameters = {"points": POINTS} if functional == "compute_equivalent_fraction" else {}
    return examples[functional](), definition(functional, parameters=parameters)


def expanded_level(level, clusters):
    """The level at which a normal's tails are as far out as those of a Student's t over these clusters."""
    reach = stats.t.ppf((1 + level) / 2, clusters - 1) * math.sqrt(clusters / (clusters - 1))
    return 2 * stats.norm.cdf(reach) - 1


def value_of(outcome):
    assert isinstance(outcome, Measured), outcome
    return outcome.estimate


EVERY = pytest.mark.parametrize("functional", FUNCTIONALS)


# ---- oracles


def test_ratio_agrees_with_scipys_bca_bootstrap():
    rng = np.random.default_rng(1)
    numerator = rng.gamma(1.5, 1.0, 25) * 20
    denominator = rng.integers(10, 30, 25).astype(float)
    frame = observation_frame(
        checkpoint="a",
        metric="m",
        unit=[str(n) for n in range(25)],
        numerator=numerator,
        denominator=denominator,
    )
    mine = value_of(estimate(frame, definition(), resamples=20000))
    oracle = stats.bootstrap(
        (numerator, denominator),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        method="BCa",
        n_resamples=20000,
        confidence_level=expanded_level(0.95, 25),
        rng=np.random.default_rng(2),
    )
    width = mine.high - mine.low
    assert mine.value == pytest.approx(numerator.sum() / denominator.sum(), rel=1e-15)
    assert mine.low == pytest.approx(oracle.confidence_interval.low, abs=0.03 * width)
    assert mine.high == pytest.approx(oracle.confidence_interval.high, abs=0.03 * width)
    assert mine.method.startswith("BCa bootstrap over 25 clusters, 20000 resamples")


def test_bca_given_the_same_resamples_is_scipys_to_the_last_digits():
    rng = np.random.default_rng(3)
    frame = clustered(rng, clusters=20, per_cluster=1)
    (key,) = series = read_series(frame, [definition()])
    statistic = FUNCTIONALS["ratio"](series[key], {})
    (mine,) = resample_all([statistic], series[key].cluster_ids, resamples=500, seed=0)
    interval = bootstrap_interval(mine, level=0.9)
    share = np.mean(mine.resampled < mine.value)
    deviations = mine.left_out.mean() - mine.left_out
    acceleration = stats.skew(deviations) / (6 * math.sqrt(len(deviations)))  # Efron's a is a skewness
    bias = stats.norm.ppf(share)
    tails = [
        stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        for z in math.sqrt(20 / 19) * stats.t.ppf([0.05, 0.95], 19)
    ]
    assert [interval.low, interval.high] == pytest.approx(np.quantile(mine.resampled, tails), rel=1e-12)


@pytest.mark.parametrize("ties", [True, False])
def test_auroc_is_scikit_learns_with_ties_and_weights(ties):
    rng = np.random.default_rng(4)
    frame = ranking(rng, ties=ties)
    oracle = roc_auc_score(frame["label"], frame["numerator"], sample_weight=frame["sampling_weight"])
    assert value_of(estimate(frame, definition("auroc"))).value == pytest.approx(oracle, rel=1e-12)


def test_auroc_resamples_are_scikit_learns_on_the_resampled_documents():
    frame = ranking(np.random.default_rng(5))
    (series,) = read_series(frame, [definition("auroc")]).values()
    statistic = FUNCTIONALS["auroc"](series, {})
    counts = np.random.default_rng(0).integers(0, 3, (len(statistic.clusters), 8)).astype(float)
    names = series.cluster_ids[statistic.clusters].tolist()
    position = np.array([names.index(name) for name in frame["cluster"]])
    for column, value in zip(counts.T, statistic.finish(statistic.rows @ counts), strict=True):
        weights = frame["sampling_weight"].to_numpy() * column[position]
        oracle = roc_auc_score(frame["label"], frame["numerator"], sample_weight=weights)
        assert value == pytest.approx(oracle, rel=1e-10)


def test_mean_of_group_aurocs_is_the_weighted_mean_of_scikit_learns():
    frame = ranking(np.random.default_rng(6), groups=3).with_columns(
        group_weight=pl.col("group").replace_strict({"g0": 1.0, "g1": 2.0, "g2": 5.0})
    )
    parts = frame.partition_by("group", maintain_order=True)
    scores = [roc_auc_score(p["label"], p["numerator"], sample_weight=p["sampling_weight"]) for p in parts]
    oracle = np.average(scores, weights=[p["group_weight"][0] for p in parts])
    mine = value_of(estimate(frame, definition("mean_of_group_aurocs")))
    assert mine.value == pytest.approx(oracle, rel=1e-12)


def test_auroc_divides_by_the_denominator_and_pools_equal_units_of_different_groups():
    frame = observation_frame(
        checkpoint="a",
        metric="m",
        unit=["x", "x", "y", "z", "w"],
        group=["g", "h", "g", "h", "g"],
        cluster=["1", "2", "3", "4", "5"],
        numerator=[8.0, 1.0, 6.0, 2.0, 9.0],
        denominator=[4.0, 1.0, 2.0, 1.0, 1.0],
        label=[1.0, 0.0, 1.0, 0.0, 1.0],
    )
    # predictions: positives 2, 3 and 9, negatives 1 and 2: five and a half of six pairs are in order
    assert value_of(estimate(frame, definition("auroc"))).value == 5.5 / 6


def test_mean_of_group_ratios_by_hand():
    frame = observation_frame(
        checkpoint="a",
        metric="m",
        unit=["1", "2", "3", "4", "5"],
        group=["g", "g", "h", "i", "i"],
        group_weight=[3.0, 3.0, 1.0, 7.0, 7.0],
        numerator=[1.0, 2.0, 10.0, 0.0, 0.0],
        denominator=[1.0, 5.0, 2.0, 0.0, 0.0],
    )
    mine = value_of(estimate(frame, definition("mean_of_group_ratios")))
    assert mine.value == pytest.approx((3 * 0.5 + 1 * 5.0) / 4)
    assert "1 of 3 groups undefined" in mine.method
    assert mine.n == 5


def test_one_minus_ratio_mirrors_the_ratio_and_its_interval():
    frame = clustered(np.random.default_rng(7))
    one, other = (value_of(estimate(frame, definition(name))) for name in ("ratio", "one_minus_ratio"))
    assert other.value == pytest.approx(1 - one.value)
    # quantiles of the mirrored resamples, and BCa mirrors too
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low), abs=1e-9)


@pytest.mark.parametrize(
    "functional",
    [name for name in FUNCTIONALS if name not in ("unseen_fraction", "compute_equivalent_fraction")],
)
def test_the_jackknife_is_brute_force_leave_one_out(functional):
    frame, what = example_of(functional, np.random.default_rng(8))
    (series,) = read_series(frame, [what]).values()
    statistic = FUNCTIONALS[functional](series, {})
    closed = jackknife(statistic)
    for position, cluster in enumerate(series.cluster_ids[statistic.clusters]):
        (rest,) = read_series(frame.filter(pl.col("cluster") != cluster), [what]).values()
        assert closed[position] == pytest.approx(FUNCTIONALS[functional](rest, {}).value(), rel=1e-9)


def test_unseen_fraction_and_its_jackknife_by_brute_force():
    rng = np.random.default_rng(9)
    fires = rng.random((12, 40)) < rng.uniform(0, 0.1, 40)  # [document latent]
    counts = fires.sum(axis=0)
    frame = observation_frame(
        checkpoint="a",
        metric="m",
        unit=[f"l{n}" for n in range(40)],
        cluster=[str(np.flatnonzero(fires[:, n])[0]) if counts[n] == 1 else "" for n in range(40)],
        numerator=counts.astype(float),
        denominator=12.0,
    )
    mine = value_of(estimate(frame, definition("unseen_fraction", sampled="latent"), level=0.9))
    left_out = np.array([(np.delete(fires, d, axis=0).sum(axis=0) == 0).mean() for d in range(12)])
    error = math.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    assert mine.value == (counts == 0).mean()
    assert mine.high == pytest.approx(min(1.0, mine.value + stats.t.ppf(0.95, 11) * error))
    assert mine.low == pytest.approx(max(0.0, mine.value - stats.t.ppf(0.95, 11) * error))
    assert (mine.n, mine.sampled) == (40, "latent")
    assert "jackknife over 12 documents" in mine.method
    assert "fires in < 0.25 of them" in mine.method


def test_unseen_fraction_adds_up_chunks():
    chunks = [
        # l0 fires once in each chunk, l1 once in all, l2 never
        observation_frame(
            checkpoint="a",
            metric="m",
            unit=["l0", "l1", "l2"],
            cluster=[f"doc{chunk}", "doc9" if chunk else "", ""],
            numerator=[1.0, float(chunk), 0.0],
            denominator=10.0,
        )
        for chunk in (0, 1)
    ]
    mine = value_of(estimate(pl.concat(chunks), definition("unseen_fraction")))
    error = math.sqrt(19 / 20 * (1 - 1 / 20)) / 3  # one document of twenty changes the fraction by a third
    assert mine.value == pytest.approx(1 / 3)
    assert mine.high == pytest.approx(min(1, 1 / 3 + stats.t.ppf(0.975, 19) * error))
    assert "over 20 documents" in mine.method


def test_latents_watched_on_different_numbers_of_documents_are_a_failure():
    frame = pl.concat([unseen([0, 3], 50), unseen([1], 20).with_columns(unit=pl.lit("z"))])
    assert isinstance(estimate(frame, definition("unseen_fraction")), Failed)


# ---- coverage


def test_intervals_cover_the_truth_as_often_as_they_claim():
    frames = []
    for simulation in range(300):
        rng = np.random.default_rng([10, simulation])
        frames.append(clustered(rng, clusters=40, per_cluster=3, checkpoint=str(simulation)))
    results = estimate_all(pl.concat(frames), [definition()], resamples=1000)
    hits = [r.outcome.estimate.low <= 2.0 <= r.outcome.estimate.high for r in results]
    assert len(hits) == 300
    assert 0.90 <= np.mean(hits) <= 0.99


@pytest.mark.parametrize("clusters", [5, 8, 20])
def test_intervals_of_few_documents_cover_the_truth_too(clusters):
    names = [f"{n}" for n in range(clusters)]
    frames = [
        observation_frame(
            checkpoint=str(simulation),
            metric="m",
            unit=[f"{simulation}-{name}" for name in names],
            numerator=np.random.default_rng([52, simulation, clusters]).normal(2.0, 1.0, clusters),
        )
        for simulation in range(300)
    ]
    results = estimate_all(pl.concat(frames), [definition()], resamples=1000)
    hits = [r.outcome.estimate.low <= 2.0 <= r.outcome.estimate.high for r in results]
    assert np.mean(hits) >= 0.90


def test_clusters_widen_the_interval_of_dependent_units():
    frame = clustered(np.random.default_rng(11), clusters=30, per_cluster=20)
    dependent = value_of(estimate(frame, definition()))
    naive = value_of(estimate(frame.with_columns(cluster=pl.lit("")), definition()))
    assert naive.n == dependent.n == 600
    assert dependent.high - dependent.low > 2 * (naive.high - naive.low)


# ---- laws


@EVERY
def test_order_and_chunking_do_not_change_a_single_bit(functional):
    frame, what = example_of(functional, np.random.default_rng(12))
    expected = estimate(frame, what, resamples=300)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    assert estimate(shuffled, what, resamples=300) == expected
    assert estimate(shuffled.reverse().rechunk(), what, resamples=300) == expected


@pytest.mark.parametrize("functional", ["ratio", "one_minus_ratio", "mean_of_group_ratios"])
def test_parts_of_a_unit_in_several_chunks_add_up(functional):
    frame, what = example_of(functional, np.random.default_rng(13))
    whole = frame.with_columns(numerator=pl.col("numerator").round(0))
    part = whole.with_columns(numerator=pl.lit(1.0), denominator=pl.lit(2.0))
    rest = whole.with_columns(pl.col("numerator") - 1.0, pl.col("denominator") - 2.0)
    expected = value_of(estimate(whole, what, resamples=300))
    mine = value_of(estimate(pl.concat([rest, part]), what, resamples=300))
    assert mine == expected


@EVERY
def test_other_checkpoints_and_their_order_do_not_change_a_single_bit(functional):
    rng = np.random.default_rng(14)
    frame, what = example_of(functional, rng)
    others = [
        example_of(functional, rng)[0].with_columns(checkpoint=pl.lit(name)) for name in ("0", "z", "b")
    ]
    expected = estimate(frame, what, resamples=300)
    for frames in ([frame, *others], [*reversed(others), frame]):
        results = estimate_all(pl.concat(frames), [what], resamples=300)
        assert [r.checkpoint for r in results] == ["0", "a", "b", "z"]
        assert results[1].outcome == expected


@EVERY
@pytest.mark.parametrize("scale", [0.37, 1e9, 1e-9])
def test_the_scale_of_weights_does_not_matter(functional, scale):
    frame, what = example_of(functional, np.random.default_rng(15))
    scaled = frame.with_columns(pl.col("sampling_weight") * scale, pl.col("group_weight") * scale)
    one, other = (value_of(estimate(each, what, resamples=300)) for each in (frame, scaled))
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high), rel=1e-8)


@EVERY
def test_a_weight_of_two_is_worth_two_equal_units_of_the_same_cluster(functional):
    frame, what = example_of(functional, np.random.default_rng(16))
    twin = pl.concat([frame, frame.with_columns(unit=pl.col("unit") + "'")])
    double = frame.with_columns(pl.col("sampling_weight") * 2)
    assert value_of(estimate(twin, what, resamples=50)).value == pytest.approx(
        value_of(estimate(double, what, resamples=50)).value
    )


@EVERY
def test_the_value_lies_in_its_interval_and_all_is_finite(functional):
    frame, what = example_of(functional, np.random.default_rng(17))
    mine = value_of(estimate(frame, what))
    assert mine.low <= mine.value <= mine.high
    assert mine.low < mine.high
    assert all(type(x) is float for x in (mine.value, mine.low, mine.high))


@EVERY
def test_no_rows_are_undefined(functional):
    frame, what = example_of(functional, np.random.default_rng(18))
    assert estimate(frame.clear(), what) == Undefined("no observations")


@EVERY
def test_one_failed_row_makes_the_outcome_failed(functional):
    frame, what = example_of(functional, np.random.default_rng(19))
    bad = frame.head(1).with_columns(
        numerator=pl.lit(None, dtype=pl.Float64), status=pl.lit("failed"), reason=pl.lit("out of memory")
    )
    outcome = estimate(pl.concat([frame.tail(-1), bad]), what)
    assert outcome == Failed(f"out of memory (1 of {frame.height} rows failed)")


@EVERY
def test_some_undefined_units_are_counted_in_the_method(functional):
    frame, what = example_of(functional, np.random.default_rng(20))
    total = frame.height
    hole = pl.col("unit").is_in(frame["unit"].head(3).implode())
    frame = frame.with_columns(
        numerator=pl.when(hole).then(None).otherwise(pl.col("numerator")),
        status=pl.when(hole).then(pl.lit("undefined")).otherwise("status"),
    )
    mine = value_of(estimate(frame, what))
    assert mine.n == total - 3
    assert mine.method.endswith(f"; 3 of {total} units undefined")


@EVERY
@pytest.mark.parametrize(("status", "kind"), [("undefined", Undefined), ("skipped", Skipped)])
def test_units_that_all_lack_a_number_give_their_reason(functional, status, kind):
    frame, what = example_of(functional, np.random.default_rng(21))
    frame = frame.with_columns(status=pl.lit(status), reason=pl.lit("empty text"))
    count = frame.height
    assert estimate(frame, what) == kind(f"empty text ({count} of {count} units {status})")


@pytest.mark.parametrize(("count", "words"), [(1, "only 1 document"), (4, "only 4 documents")])
def test_too_few_documents_have_no_interval(count, words):
    expected = Undefined(f"{words}: no interval can be trusted")
    frame = clustered(np.random.default_rng(22), clusters=count)
    assert estimate(frame, definition()) == expected
    assert estimate(frame, definition("mean_of_group_ratios")) == expected
    assert estimate(unseen([0, 1], documents=count), definition("unseen_fraction")) == expected
    enough = clustered(np.random.default_rng(22), clusters=5)
    assert "5 clusters, 2000 resamples, tails widened" in value_of(estimate(enough, definition())).method


def signed_denominators(rng, *, mean, count=40):
    """What is recovered of a rise of the loss that is not there in every document."""
    return observation_frame(
        checkpoint="a",
        metric="m",
        unit=[str(n) for n in range(count)],
        numerator=rng.normal(1.0, 0.3, count),
        denominator=rng.normal(mean, 1.0, count),
    )


@pytest.mark.parametrize("functional", ["ratio", "one_minus_ratio"])
@pytest.mark.parametrize("mean", [0.2, 0.0, -0.2, -5.0])
def test_a_denominator_that_may_be_zero_gives_no_number(functional, mean):
    outcome = estimate(signed_denominators(np.random.default_rng(50), mean=mean), definition(functional))
    assert isinstance(outcome, Undefined), outcome
    assert outcome.reason.startswith("the denominator is not clearly above 0: it ")


def test_a_denominator_clearly_above_zero_may_be_below_it_in_some_documents():
    frame = signed_denominators(np.random.default_rng(51), mean=1.0)
    assert (frame["denominator"] < 0).any()
    assert value_of(estimate(frame, definition())).value == pytest.approx(
        frame["numerator"].sum() / frame["denominator"].sum()
    )


def test_counts_that_few_documents_have_still_give_a_number():
    counts = np.r_[3.0, 5.0, np.zeros(10)]  # one resample in nine has none of the two
    frame = observation_frame(
        checkpoint="a",
        metric="m",
        unit=[str(n) for n in range(12)],
        numerator=counts * np.r_[1.0, 2.0, np.zeros(10)],
        denominator=counts,
    )
    assert "of them undefined" in value_of(estimate(frame, definition())).method
    risen = frame.with_columns(pl.col("numerator") * 0.1)
    through_curve = value_of(estimate(risen, compute_definition()))
    assert "of them undefined" in through_curve.method


def test_denominators_of_zero_are_undefined():
    frame = clustered(np.random.default_rng(23)).with_columns(denominator=pl.lit(0.0))
    for functional in ("ratio", "one_minus_ratio", "mean_of_group_ratios"):
        assert isinstance(estimate(frame, definition(functional)), Undefined)
    assert isinstance(
        estimate(frame.with_columns(sampling_weight=pl.lit(0.0), denominator=pl.lit(1.0)), definition()),
        Undefined,
    )


def test_one_class_has_no_auroc():
    frame = ranking(np.random.default_rng(24)).with_columns(label=pl.lit(1.0))
    assert estimate(frame, definition("auroc")) == Undefined("the examples are all of one class")
    assert isinstance(estimate(frame.with_columns(label=pl.lit(0.5)), definition("auroc")), Failed)


def test_a_single_positive_document_gives_a_percentile_interval_and_says_so():
    frame = ranking(np.random.default_rng(25)).with_columns(cluster=pl.col("unit"))
    frame = frame.with_columns(label=(pl.col("unit") == "e0000").cast(pl.Float64))
    mine = value_of(estimate(frame, definition("auroc")))
    assert mine.method.startswith("percentile bootstrap over 60 clusters, 2000 resamples (")
    assert "of them undefined" in mine.method


@pytest.mark.parametrize("value", [0.0, 3.7, -1e12, 1e-9])
def test_equal_units_give_an_interval_of_one_point_and_say_so(value):
    denominator = np.random.default_rng(26).integers(1, 50, 40).astype(float)
    frame = observation_frame(
        checkpoint="a",
        metric="m",
        unit=[str(n) for n in range(40)],
        numerator=value * denominator,
        denominator=denominator,
    )
    mine = value_of(estimate(frame, definition()))
    assert mine.low == mine.high == mine.value == pytest.approx(value)
    assert "all equal" in mine.method


def test_the_level_changes_the_width_and_the_seed_the_digits():
    frame = clustered(np.random.default_rng(27))
    narrow, wide = (value_of(estimate(frame, definition(), level=level)) for level in (0.5, 0.99))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert (narrow.level, wide.level) == (0.5, 0.99)
    other = value_of(estimate(frame, definition(), level=0.5, seed=1))
    assert other.value == narrow.value
    assert other.low != narrow.low


def test_numbers_that_are_not_finite_are_a_failure_not_a_number():
    frame = clustered(np.random.default_rng(28))
    broken = frame.with_columns(
        numerator=pl.when(pl.col("unit") == "u00003").then(float("nan")).otherwise(1.0)
    )
    assert isinstance(estimate(broken, definition()), Failed)
    assert isinstance(estimate(frame.with_columns(sampling_weight=pl.lit(-1.0)), definition()), Failed)


def test_the_value_is_correctly_rounded():
    numerator = [1e16, 1.0, -1e16, 1.0, 0.5]
    frame = observation_frame(checkpoint="a", metric="m", unit=list("abcde"), numerator=numerator)
    assert value_of(estimate(frame, definition())).value == 0.5


def test_a_replicate_without_value_is_told_apart_from_too_many():
    values = np.r_[np.full(60, np.nan), np.linspace(0, 1, 40)]
    assert bootstrap_interval(Replicates(0.5, values, None, 10, 1.0), level=0.95) is None


def test_extreme_skewness_falls_back_to_percentiles_and_never_gives_a_p_value_of_zero():
    values = np.random.default_rng(40).normal(1.0, 0.3, 2000)
    left_out = np.r_[np.zeros(300), -1.0]  # one cluster decides: acceleration near its bound of 1/6
    replicates = Replicates(float(np.quantile(values, 0.999)), values, left_out, 301, 2.0)
    assert bootstrap_interval(replicates, level=0.9999).method.startswith("percentile")
    assert bootstrap_interval(replicates, level=0.9).method.startswith("BCa")
    for shift in (-5.0, -1.0, 0.0, 5.0):
        moved = Replicates(replicates.value + shift, values + shift, left_out, 301, 10.0)
        assert 2 / 2001 <= two_sided_p_value(moved) <= 1


def test_many_rows_are_resampled_in_blocks_without_a_difference(monkeypatch):
    frame, what = example_of("mean_of_group_aurocs", np.random.default_rng(41))
    expected = estimate(frame, what, resamples=200)
    monkeypatch.setattr(bootstrap, "_NUMBERS_AT_ONCE", 500)
    monkeypatch.setattr(bootstrap, "_BLOCK_BYTES", 2000)
    assert estimate(frame, what, resamples=200) == expected


def test_fixed_point_sums_are_exact_in_any_order():
    rng = np.random.default_rng(29)
    values = rng.normal(size=1000) * 10.0 ** rng.integers(-6, 6, 1000)
    fixed = fixed_point(values)
    assert sum(fixed.tolist()) == math.fsum(fixed) == sum(sorted(fixed.tolist()))
    assert np.abs(fixed - values).max() <= np.abs(values).max() * 2.0**-41
    assert fixed_point(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert fixed_point(np.arange(5.0)).tolist() == [0, 1, 2, 3, 4]


# ---- compute equivalents


def compute_frame(delta, *, spread=0.0):
    rng = np.random.default_rng(30)
    tokens = rng.integers(20, 60, 100).astype(float)
    per_token = delta + spread * rng.normal(size=100)
    return observation_frame(
        checkpoint="a",
        metric="m",
        unit=[f"d{n}" for n in range(100)],
        numerator=per_token * tokens,
        denominator=tokens,
    )


def compute_definition(**parameters):
    return definition("compute_equivalent_fraction", parameters={"points": POINTS} | parameters)


def test_a_perfect_reconstruction_keeps_all_of_the_compute():
    mine = value_of(estimate(compute_frame(0.0), compute_definition()))
    assert mine.value == pytest.approx(1.0, abs=1e-9)


def test_the_loss_of_a_smaller_member_gives_that_members_compute():
    delta = POINTS[3][1] - POINTS[5][1]
    mine = value_of(estimate(compute_frame(delta, spread=0.05), compute_definition()))
    tokens = compute_frame(0.0)["denominator"].to_numpy()
    measured = (compute_frame(delta, spread=0.05)["numerator"].to_numpy()).sum() / tokens.sum()
    # closed form of the inverse at the loss that was measured
    loss = POINTS[5][1] + measured
    assert mine.value == pytest.approx(1e16 * (0.9 / (loss - 1.8)) ** (1 / 0.15) / 1e18, rel=1e-6)
    assert mine.low < POINTS[3][0] / 1e18 < mine.high
    assert "percentile" in mine.method
    assert "curve" in mine.method


def test_residuals_of_the_curve_widen_the_interval():
    noisy = [[c, loss + 0.01 * (-1) ** n] for n, (c, loss) in enumerate(POINTS)]
    frame = compute_frame(0.3, spread=0.05)
    exact = value_of(estimate(frame, compute_definition()))
    mine = value_of(estimate(frame, compute_definition(points=noisy)))
    assert mine.high - mine.low > exact.high - exact.low


def test_a_loss_outside_the_curve_is_undefined_and_named():
    outcome = estimate(compute_frame(5.0), compute_definition())
    assert isinstance(outcome, Undefined)
    lowest, highest = POINTS[5][1], POINTS[0][1]
    assert f"loss of {lowest + 5:.4g} nats" in outcome.reason
    assert f"range of {lowest:.4g} to {highest:.4g} nats" in outcome.reason


def test_an_end_outside_the_curve_is_clipped_and_said():
    near_worst = compute_frame(POINTS[0][1] - POINTS[5][1] - 0.02, spread=0.2)
    mine = value_of(estimate(near_worst, compute_definition()))
    assert mine.low == pytest.approx(1e-3)
    assert "lower end clipped to the compute curve's range" in mine.method
    near_best = value_of(estimate(compute_frame(0.01, spread=0.2), compute_definition()))
    assert near_best.high == 1.0
    assert "upper end clipped" in near_best.method


@pytest.mark.parametrize("losses", [[3.0, 3.1, 3.2, 3.3], [3.0] * 4, [3.0, 3.0, 3.0, 3.0 - 1e-12]])
def test_losses_that_do_not_fall_with_compute_are_undefined(losses):
    points = [[c, loss] for c, loss in zip([1e15, 1e16, 1e17, 1e18], losses, strict=True)]
    outcome = estimate(compute_frame(0.1), compute_definition(points=points))
    assert isinstance(outcome, Undefined)
    assert "do not fall with compute" in outcome.reason


def test_few_points_and_foreign_text_are_undefined():
    assert isinstance(estimate(compute_frame(0.1), compute_definition(points=POINTS[:3])), Undefined)
    assert isinstance(estimate(compute_frame(0.1), definition("compute_equivalent_fraction")), Undefined)
    foreign = estimate(compute_frame(0.1), compute_definition(clean_loss_nats=2.2, clean_ce_nats=2.4))
    assert isinstance(foreign, Undefined)
    assert "does not belong to this text" in foreign.reason
    near = compute_definition(clean_loss_nats=2.2, clean_ce_nats=2.3)
    assert isinstance(estimate(compute_frame(0.1), near), Measured)


# ---- tables


def test_every_metric_of_every_checkpoint_has_a_headline_result():
    rng = np.random.default_rng(31)
    frame = pl.concat(
        [
            clustered(rng, checkpoint="step 1000"),
            clustered(rng, checkpoint="step 500"),
            clustered(rng, checkpoint="step 500", metric="n", slice={"position": "16-63"}),
            clustered(rng, checkpoint="step 500", metric="n", slice={"position": "4-15"}),
            clustered(rng, checkpoint="step 500", metric="unknown"),
        ]
    )
    what = [definition(name="m"), definition(name="n")]
    results = estimate_all(frame, what, resamples=50)
    assert [(r.checkpoint, r.metric, r.slice, r.outcome.status) for r in results] == [
        ("step 500", "m", {}, "measured"),
        ("step 500", "n", {}, "undefined"),
        ("step 500", "n", {"position": "4-15"}, "measured"),
        ("step 500", "n", {"position": "16-63"}, "measured"),
        ("step 1000", "m", {}, "measured"),
        ("step 1000", "n", {}, "undefined"),
    ]
    given = estimate_all(frame, what[:1], checkpoints=["step 1000", "gone"], resamples=50)
    assert [(r.checkpoint, r.outcome.status) for r in given] == [
        ("step 1000", "measured"),
        ("gone", "undefined"),
    ]


def test_bad_requests_are_refused():
    frame = clustered(np.random.default_rng(32))
    with pytest.raises(ValueError, match="no functional"):
        estimate(frame, definition("median"))
    with pytest.raises(ValueError, match="one checkpoint"):
        estimate(pl.concat([frame, frame.with_columns(checkpoint=pl.lit("b"))]), definition())
    with pytest.raises(ValueError, match="missing columns"):
        estimate(frame.drop("cluster"), definition())
    with pytest.raises(ValueError, match="unknown status"):
        estimate(frame.with_columns(status=pl.lit("lost")), definition())
    with pytest.raises(ValueError, match="level"):
        estimate(frame, definition(), level=1.0)


def test_no_number_raises_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for functional in FUNCTIONALS:
            frame, what = example_of(functional, np.random.default_rng(33))
            estimate(frame, what, resamples=50)


def test_a_level_that_so_few_documents_cannot_show_is_undefined() -> None:
    rows = observation_frame(
        checkpoint="c",
        metric="m",
        unit=[f"d{n}" for n in range(6)],
        cluster=[f"d{n}" for n in range(6)],
        numerator=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    )
    plain = MetricDefinition("m", "M", "", "nats", "lower", "ratio", "document")
    assert isinstance(estimate(rows, plain, level=0.95), Measured)
    refused = estimate(rows, plain, level=0.99)
    assert isinstance(refused, Undefined)
    assert "99 %" in refused.reason
