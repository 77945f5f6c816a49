"""From the pass's rows to a share of compute, against a known power law and a search on a grid."""

import numpy as np
import polars as pl
import pytest

from autointerp.estimates import estimate
from autointerp.metrics.catalogue import definition
from autointerp.metrics.compute_equivalent import clean_loss, with_curve
from autointerp.metrics.downstream_loss import COMPUTE_EQUIVALENT
from autointerp.records import Measured, Undefined, observation_frame
from autointerp.sampling.activation_pass import CLEAN_LOSS, SUBJECT

E, A, B, FULL = 1.7, 0.9, 0.21, 3e18


def law(flops: np.ndarray) -> np.ndarray:
    return E + A * (flops / FULL) ** -B


FLOPS = FULL * np.array([0.01, 0.03, 0.1, 0.25, 0.5, 1.0])
POINTS = [(float(c), float(loss)) for c, loss in zip(FLOPS, law(FLOPS), strict=True)]


def rows(delta: float) -> pl.DataFrame:
    units = [f"doc-{index}" for index in range(12)]
    return observation_frame(
        checkpoint="it",
        metric=COMPUTE_EQUIVALENT,
        unit=units,
        cluster=units,
        numerator=[delta * 10.0] * 12,
        denominator=[10.0] * 12,
    )


@pytest.mark.parametrize("delta", [0.0, 0.02, 0.1, 0.4, 1.0])
def test_the_share_is_where_the_known_law_has_that_loss(delta: float) -> None:
    curve = with_curve(definition(COMPUTE_EQUIVALENT), POINTS, clean_ce_nats=E + A)
    outcome = estimate(rows(delta), curve)
    assert isinstance(outcome, Measured)
    grid = np.geomspace(FLOPS[0], FULL, 400_001)
    nearest = grid[np.argmin(np.abs(law(grid) - (law(np.array(FULL)) + delta)))] / FULL
    assert outcome.estimate.value == pytest.approx(nearest, rel=1e-3)
    assert outcome.estimate.low <= outcome.estimate.value <= outcome.estimate.high


@pytest.mark.parametrize("delta", [-0.05, 5.0])
def test_outside_of_the_curve_there_is_no_share(delta: float) -> None:
    outcome = estimate(rows(delta), with_curve(definition(COMPUTE_EQUIVALENT), POINTS, clean_ce_nats=E + A))
    assert isinstance(outcome, Undefined)
    assert "range" in outcome.reason


def test_a_curve_from_another_kind_of_text_is_refused() -> None:
    metric = definition(COMPUTE_EQUIVALENT)
    far = with_curve(metric, POINTS, clean_ce_nats=E + A + 0.2)
    outcome = estimate(rows(0.1), far)
    assert isinstance(outcome, Undefined)
    assert "0.15 nats apart" in outcome.reason
    near = with_curve(metric, POINTS, clean_ce_nats=E + A + 0.2, tolerance_nats=0.3)
    assert isinstance(estimate(rows(0.1), near), Measured)


def test_without_a_curve_the_metric_is_undefined() -> None:
    outcome = estimate(rows(0.1), with_curve(definition(COMPUTE_EQUIVALENT), (), clean_ce_nats=2.0))
    assert isinstance(outcome, Undefined)


def test_the_parameters_can_be_written_as_json() -> None:
    import json

    metric = with_curve(definition(COMPUTE_EQUIVALENT), POINTS, clean_ce_nats=E + A)
    assert json.loads(json.dumps(metric.parameters, allow_nan=False)) == metric.parameters
    assert metric.parameters["full_flops"] == FULL


def test_the_subjects_loss_is_the_mean_over_predictions_of_the_headline() -> None:
    frame = observation_frame(
        checkpoint=SUBJECT, metric=CLEAN_LOSS, unit=["a", "b"], numerator=[20.0, 3.0], denominator=[5.0, 1.0]
    )
    sliced = observation_frame(
        checkpoint=SUBJECT, metric=CLEAN_LOSS, unit=["a"], numerator=[99.0], slice={"position": "0"}
    )
    assert clean_loss(pl.concat([frame, sliced])) == pytest.approx(23 / 6)
    assert clean_loss(frame.clear()) is None
