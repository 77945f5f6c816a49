"""What ablations changed -> observations: values, slices, weights, and what has no number."""

import numpy as np
import polars as pl
import pytest

from autointerp.estimates import compare_paired, estimate
from autointerp.metrics.ablation_observations import ABLATION_METRICS, READINGS, ablation_observations
from autointerp.metrics.catalogue import METRICS, definition
from autointerp.records import OBSERVATION_SCHEMA, Failed, Measured, Undefined, slice_key

V, T = 50, 3


def reading(checkpoint="a", kind="latent", unit="u0", **given):
    row = {
        "checkpoint": checkpoint,
        "kind": kind,
        "unit": unit,
        "cluster": f"document of {unit}",
        "index": 3,
        "weight": 8.0,
        "status": "measured",
        "reason": "",
        "vocabulary_size": V,
        "absolute": [4.0, 2.0, 0.0],
        "squared": [2.0, 1.0, 0.0],
        "kl": [0.3, 0.1, 0.0],
        "direct_absolute": 3.0,
        "direct_squared": 1.5,
        "mediated_absolute": 1.0,
        "mediated_squared": 0.5,
        "not_direct": "",
    }
    return row | given


def missing(status, reason, **given):
    empty = dict.fromkeys(name for name in READINGS if name not in ("checkpoint", "kind", "unit", "cluster"))
    return reading(**empty | {"status": status, "reason": reason} | given)


def observed(*rows):
    return ablation_observations(pl.DataFrame(list(rows), schema=READINGS))


def value_of(frame, metric, **settings):
    found = frame.filter(
        (pl.col("metric") == f"ablation.{metric}") & (pl.col("slice") == slice_key(settings))
    )
    assert found.height == 1
    row = found.row(0, named=True)
    assert row["status"] == "measured"
    return row["numerator"] / row["denominator"]


def test_every_number_of_one_ablation_by_hand():
    frame = observed(reading(), reading(kind="random", absolute=[8.0, 8.0, 8.0], squared=[9.0, 9.0, 9.0]))
    sparse, other = 36 / 3 / (V * T), 24**2 / 27 / (V * T)
    assert value_of(frame, "sparsity") == pytest.approx(sparse)
    assert value_of(frame, "sparsity", horizon=1) == pytest.approx(16 / 2 / V)
    assert value_of(frame, "sparsity", null="random_directions") == pytest.approx(other)
    assert value_of(frame, "sparsity", path="direct") == pytest.approx(9 / 1.5 / V)
    assert value_of(frame, "sparsity", path="mediated") == pytest.approx(9 / 1.5 / (V * T))
    assert value_of(frame, "sparsity_over_random") == pytest.approx(sparse / other)
    assert value_of(frame, "sparsity_over_random", horizon=1) == pytest.approx(8 / (64 / 9))
    assert value_of(frame, "token_concentration") == pytest.approx((2**0.5 + 1) ** 2 / (3 * 3))
    assert value_of(frame, "effect_kl_nats") == pytest.approx(0.4)
    assert value_of(frame, "effect_kl_nats", horizon=1) == pytest.approx(0.3)
    assert value_of(frame, "direct_share") == pytest.approx(1.5 / (1.5 + 0.5 + 1.0))


def test_columns_and_definitions():
    frame = observed(reading(), reading(kind="channel"), reading(kind="random"))
    assert dict(frame.schema) == OBSERVATION_SCHEMA
    assert set(frame["metric"]) == {metric.name for metric in ABLATION_METRICS}
    assert all(metric in METRICS for metric in ABLATION_METRICS)
    nulls = frame.filter(pl.col("metric") == "ablation.sparsity")["slice"].to_list()
    assert slice_key({"null": "channels"}) in nulls
    assert slice_key({"null": "channels", "horizon": 1}) in nulls


def test_at_horizon_one_there_is_one_slice_of_each():
    one = {"absolute": [4.0], "squared": [2.0], "kl": [0.3]}
    frame = observed(reading(**one), reading(kind="random", **one))
    assert not frame["slice"].str.contains("horizon").any()
    assert value_of(frame, "sparsity_over_random") == 1.0


def test_means_are_weighted_by_how_many_latents_were_active():
    pairs = [(1.0, [1.0, 0.0, 0.0]), (3.0, [5.0, 0.0, 0.0])] * 6
    frame = observed(*(reading(unit=f"u{i}", weight=w, kl=kl) for i, (w, kl) in enumerate(pairs)))
    rows = frame.filter((pl.col("metric") == "ablation.effect_kl_nats") & (pl.col("slice") == "{}"))
    outcome = estimate(rows, definition("ablation.effect_kl_nats"), resamples=100)
    assert isinstance(outcome, Measured)
    assert outcome.estimate.value == pytest.approx(4.0)
    assert (outcome.estimate.n, outcome.estimate.sampled) == (12, "sample")


def test_over_random_is_a_ratio_of_sums():
    rows = [
        reading(unit=f"u{i}", absolute=[float(i + 1), 0.0, 0.0], squared=[1.0, 0.0, 0.0]) for i in range(12)
    ]
    random = [
        reading(unit=f"u{i}", kind="random", absolute=[2.0, 0.0, 0.0], squared=[1.0, 0.0, 0.0])
        for i in range(12)
    ]
    frame = observed(*rows, *random)
    chosen = frame.filter((pl.col("metric") == "ablation.sparsity_over_random") & (pl.col("slice") == "{}"))
    outcome = estimate(chosen, definition("ablation.sparsity_over_random"), resamples=100)
    assert outcome.estimate.value == pytest.approx(sum((i + 1) ** 2 for i in range(12)) / (4 * 12))


def test_where_nothing_changes_it_is_undefined_not_a_number():
    nothing = {"absolute": [0.0] * T, "squared": [0.0] * T, "kl": [0.0] * T}
    no_direct = {
        "direct_absolute": 0.0,
        "direct_squared": 0.0,
        "mediated_absolute": 0.0,
        "mediated_squared": 0.0,
    }
    frame = observed(reading(**nothing, **no_direct), reading(kind="random"))
    for metric in ("sparsity", "token_concentration", "direct_share", "sparsity_over_random"):
        found = frame.filter((pl.col("metric") == f"ablation.{metric}") & (pl.col("slice") == "{}"))
        row = found.row(0, named=True)
        assert (row["status"], row["numerator"]) == ("undefined", None)
        assert row["reason"]
    assert value_of(frame, "effect_kl_nats") == 0.0


def test_without_a_direct_path_the_share_says_why_and_has_no_slices():
    gone = dict.fromkeys(("direct_absolute", "direct_squared", "mediated_absolute", "mediated_squared"))
    frame = observed(reading(**gone, not_direct="not added to the stream"))
    row = frame.filter(pl.col("metric") == "ablation.direct_share").row(0, named=True)
    assert (row["status"], row["reason"]) == ("undefined", "not added to the stream")
    assert not frame["slice"].str.contains("path").any()


def test_behind_the_last_block_nothing_is_mediated():
    all_direct = {
        "absolute": [4.0, 0.0, 0.0],
        "squared": [2.0, 0.0, 0.0],
        "direct_absolute": 4.0,
        "direct_squared": 2.0,
        "mediated_absolute": 0.0,
        "mediated_squared": 0.0,
    }
    frame = observed(reading(**all_direct))
    assert value_of(frame, "direct_share") == 1.0
    row = frame.filter(pl.col("slice") == slice_key({"path": "mediated"})).row(0, named=True)
    assert (row["status"], row["reason"]) == ("undefined", "nothing is mediated")


def test_tokens_without_an_active_latent_are_rows_with_their_reason():
    rows = [
        missing("undefined", "no latent is active at this token", kind=kind) for kind in ("latent", "random")
    ]
    more = [reading(unit=f"u{i}", kind=kind) for i in range(1, 12) for kind in ("latent", "random")]
    frame = observed(*rows, *more, reading(kind="channel"))
    chosen = frame.filter((pl.col("metric") == "ablation.sparsity") & (pl.col("slice") == "{}"))
    assert chosen.height == 12
    outcome = estimate(chosen, definition("ablation.sparsity"), resamples=100)
    assert outcome.estimate.n == 11
    assert "1 of 12 units undefined" in outcome.estimate.method


def test_a_dictionary_that_never_fires_is_undefined_with_the_reason():
    frame = observed(missing("undefined", "no latent is active at this token"))
    chosen = frame.filter((pl.col("metric") == "ablation.sparsity") & (pl.col("slice") == "{}"))
    outcome = estimate(chosen, definition("ablation.sparsity"), resamples=100)
    assert isinstance(outcome, Undefined)
    assert "no latent is active" in outcome.reason


def test_one_failed_ablation_fails_the_metric_of_that_checkpoint_alone():
    several = [reading(checkpoint=name, unit=f"u{i}") for name in "ab" for i in range(1, 12)]
    frame = observed(missing("failed", "ValueError: no", checkpoint="a"), reading(checkpoint="b"), *several)
    outcomes = {
        name: estimate(
            frame.filter(
                (pl.col("metric") == "ablation.sparsity")
                & (pl.col("slice") == "{}")
                & (pl.col("checkpoint") == name)
            ),
            definition("ablation.sparsity"),
            resamples=100,
        )
        for name in ("a", "b")
    }
    assert isinstance(outcomes["a"], Failed)
    assert isinstance(outcomes["b"], Measured)


def test_checkpoints_are_compared_at_the_same_tokens():
    draws = np.random.default_rng(0).random((2, 12))
    rows = [
        reading(checkpoint=name, unit=f"u{i}", kl=[float(x), 0.0, 0.0])
        for name, values in zip("ab", draws, strict=True)
        for i, x in enumerate(values)
    ]
    found = compare_paired(observed(*rows), definition("ablation.effect_kl_nats"), "a", "b", resamples=100)
    assert found.outcome.estimate.value == pytest.approx(draws[0].mean() - draws[1].mean())
    assert found.outcome.estimate.method.startswith("paired")


def test_no_ablations_give_no_observations():
    assert ablation_observations(pl.DataFrame(schema=READINGS)).height == 0
