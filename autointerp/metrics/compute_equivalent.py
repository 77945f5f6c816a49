"""The losses of a family of models -> which share of the training compute a dictionary leaves of the subject.

The curve L(C) = e + a C^-b is fitted and inverted by `compute_curve`; the functional
`compute_equivalent_fraction` joins it with the measured rise of the loss. The substituted model's loss is
taken as the curve's loss at the full budget plus that rise, so that a perfect dictionary scores exactly 1
and a small offset between the curve's text and this run's cancels. The curve is used only between its
smallest and its largest member.

Source: Gao et al. 2024 (arXiv 2406.04093), section 4.1, names the number and prints no derivation.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from autointerp.records import MetricDefinition
from autointerp.sampling.activation_pass import CLEAN_LOSS

__all__ = ["clean_loss", "with_curve"]


def clean_loss(observations: pl.DataFrame) -> float | None:
    """The subject's mean loss in nats over positions >= 1; None when nothing was predicted."""
    rows = observations.filter((pl.col("metric") == CLEAN_LOSS) & (pl.col("slice") == "{}"))
    count = float(rows["denominator"].sum())
    return float(rows["numerator"].sum()) / count if count else None


def with_curve(
    definition: MetricDefinition,
    points: Sequence[tuple[float, float]],
    *,
    clean_ce_nats: float | None,
    tolerance_nats: float = 0.15,
) -> MetricDefinition:
    """The metric's definition with the family's losses as parameters, where the functional looks for them.

    Args:
        definition: of `downstream.compute_equivalent_fraction`.
        points: (training FLOPs, loss in nats) of each member; the subject's is the largest. At least four,
            else the metric is undefined.
        clean_ce_nats: the subject's loss in this run, from `clean_loss`.
        tolerance_nats: how far it may lie from the curve's largest member. Beyond, the curve was measured
            on text of another kind, where its slope would be another one too, and the metric is undefined.
    """
    parameters: dict[str, Any] = {
        "points": [list(point) for point in points],
        "tolerance_nats": tolerance_nats,
    }
    if points:
        full_flops, full_loss = max(points)
        parameters |= {"full_flops": full_flops, "clean_loss_nats": full_loss}
    if clean_ce_nats is not None:
        parameters["clean_ce_nats"] = clean_ce_nats
    return replace(definition, parameters=parameters)
