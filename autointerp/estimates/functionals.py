"""One `Series` -> the statistic that its metric's functional names."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from autointerp.compute_curve import ComputeCurve, CurveDraws
from autointerp.estimates.exact_sums import exact_group_sums, fixed_point, sum_by
from autointerp.estimates.series import Series
from autointerp.estimates.statistics import ClusterStatistic, CurveTransform, JackknifeStatistic, Statistic
from autointerp.records import Failed, Outcome, Undefined

__all__ = ["FUNCTIONALS"]

_CURVE_DRAWS = (
    400  # refits of the compute curve, used in turn; enough for the 2.5 % tails of a smooth parameter
)
_UNCLEAR = "the denominator is not clearly above 0"

Functional = Callable[[Series, Mapping[str, Any]], Statistic | Outcome]


def ratio(series: Series, parameters: Mapping[str, Any]) -> ClusterStatistic:  # noqa: ARG001
    """sum(w numerator) / sum(w denominator); undefined where the denominators do not sum to more than zero.

    Where documents have denominators below zero (a difference of losses, for one), the ratio turns over as
    their sum passes zero. So it is undefined, too, if that happens in more resamples than one tail of the
    interval holds. Denominators that are counts or squares never meet this.
    """
    clusters, position = np.unique(series.cluster, return_inverse=True)
    columns = (series.weight * series.numerator, series.weight * series.denominator)
    rows = np.stack(
        [np.bincount(position, weights=fixed_point(column), minlength=len(clusters)) for column in columns]
    )
    totals = np.array([math.fsum(column) for column in columns])
    is_signed = bool((rows[1] < 0).any())
    return ClusterStatistic(
        rows,
        totals,
        _divide,
        clusters,
        f"{_UNCLEAR}: it sums to {totals[1]:.4g}",
        unclear_reason=f"{_UNCLEAR}: it is not" if is_signed else "",
    )


def one_minus_ratio(series: Series, parameters: Mapping[str, Any]) -> ClusterStatistic:
    """1 - sum(w numerator) / sum(w denominator)."""
    return replace(ratio(series, parameters), finish=lambda sums: 1.0 - _divide(sums))


def mean_of_group_ratios(series: Series, parameters: Mapping[str, Any]) -> ClusterStatistic:  # noqa: ARG001
    """Mean over groups, weighted by `group_weight`, of each group's ratio.

    Groups whose denominators sum to zero do not enter the mean; how many they are is said in `method`.
    """
    clusters, cluster_position = np.unique(series.cluster, return_inverse=True)
    groups, group_position = np.unique(series.group, return_inverse=True)
    numerator, denominator = series.weight * series.numerator, series.weight * series.denominator
    shape = (len(groups), len(clusters))
    rows = sparse.vstack(
        [
            sum_by(fixed_point(column), group_position, cluster_position, shape)
            for column in (numerator, denominator)
        ],
        format="csr",
    )
    totals = np.concatenate(
        [exact_group_sums(column, group_position, len(groups)) for column in (numerator, denominator)]
    )
    weights = _weight_of_groups(series, group_position, len(groups))

    def finish(sums: np.ndarray) -> np.ndarray:
        split = sums.reshape(2, len(groups), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _weighted_mean(split[0] / split[1], weights)

    lacking = int(np.count_nonzero(totals[len(groups) :] == 0))
    return ClusterStatistic(
        rows,
        totals,
        finish,
        clusters,
        "no group has a denominator other than zero",
        note=f"{lacking} of {len(groups)} groups undefined" if lacking else "",
    )


def auroc(series: Series, parameters: Mapping[str, Any]) -> ClusterStatistic | Outcome:  # noqa: ARG001
    """P(prediction of a positive > prediction of a negative) + P(equal) / 2, over all weighted pairs.

    The prediction is numerator / denominator, the label is 1 or 0. Range 0 to 1, chance is 0.5. Undefined
    where only one class was seen.
    """
    return _aurocs(series, np.zeros_like(series.group))


def mean_of_group_aurocs(
    series: Series,
    parameters: Mapping[str, Any],  # noqa: ARG001
) -> ClusterStatistic | Outcome:
    """Mean over groups, weighted by `group_weight`, of the AUROC within each group.

    Groups with one class only do not enter the mean; how many they are is said in `method`.
    """
    return _aurocs(series, series.group)


def _aurocs(series: Series, group: Int[np.ndarray, " row"]) -> ClusterStatistic | Outcome:
    """Weighted mean of the AUROC within each of the given groups."""
    if not np.isin(series.label, (0.0, 1.0)).all():
        return Failed("a ranking needs a label of 0 or 1 in every row")
    first, score = _merged_predictions(series)
    if not np.isfinite(score).all():
        return Failed("a prediction has a denominator of zero")
    group, label, weight = group[first], series.label[first], series.weight[first]
    order = np.lexsort((series.unit[first], label, score, group))
    score, group, label, weight, first = (x[order] for x in (score, group, label, weight, first))
    clusters, position = np.unique(series.cluster[first], return_inverse=True)
    # sums here are the examples' own weights: leaving a document out sets those of its examples to zero
    rows = sparse.csr_array(
        (fixed_point(weight), (np.arange(len(first)), position)), shape=(len(first), len(clusters))
    )
    groups, starts, group_position = np.unique(group, return_index=True, return_inverse=True)
    blocks = [
        _AurocBlock.of(score[a:b], label[a:b], slice(a, b))
        for a, b in zip(starts, [*starts[1:], len(first)], strict=True)
    ]
    group_weights = _weight_of_groups(series.only(first), group_position, len(groups))

    def finish(sums: np.ndarray) -> np.ndarray:
        return _weighted_mean(np.stack([block(sums) for block in blocks]), group_weights)

    lacking = int(np.count_nonzero(~np.isfinite([block(weight[:, None])[0] for block in blocks])))
    return ClusterStatistic(
        rows,
        weight,
        finish,
        clusters,
        "the examples are all of one class",
        note=f"{lacking} of {len(groups)} groups undefined" if lacking and len(groups) > 1 else "",
    )


@dataclass(frozen=True, eq=False)
class _AurocBlock:
    """AUROC of the examples in `part`, sorted by prediction, for many weightings at once."""

    part: slice
    is_positive: np.ndarray
    level_starts: Int[np.ndarray, " level"]

    @classmethod
    def of(cls, score: np.ndarray, label: np.ndarray, part: slice) -> "_AurocBlock":
        level_starts = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
        return cls(part, label == 1.0, level_starts)

    def __call__(self, weights: Float[np.ndarray, "example column"]) -> Float[np.ndarray, " column"]:
        mine = weights[self.part]
        positive = np.add.reduceat(np.where(self.is_positive[:, None], mine, 0.0), self.level_starts, axis=0)
        negative = np.add.reduceat(np.where(self.is_positive[:, None], 0.0, mine), self.level_starts, axis=0)
        below = np.cumsum(negative, axis=0) - negative / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return (positive * below).sum(axis=0) / (positive.sum(axis=0) * negative.sum(axis=0))


def unseen_fraction(
    series: Series,
    parameters: Mapping[str, Any],  # noqa: ARG001
) -> JackknifeStatistic | Outcome:
    """Weighted fraction of units (latents) that were seen in none of D documents; range 0 to 1.

    A row holds in how many documents the latent fired (numerator), of how many (denominator), and as cluster
    the document's id where it fired in exactly one: that latent would be unseen without this document, which
    is all that the delete-one-document jackknife needs. A latent unseen in D documents fires, with 95 %
    confidence, in less than 3/D of all documents.

    All latents are counted, so nothing is uncertain about them; the text is. The interval is about the share
    that is unseen in D documents on average, over draws of D documents like these, and has a width even where
    no latent, or every latent, was seen: see `estimation.jackknife_interval`.
    """
    units, position = np.unique(series.unit, return_inverse=True)
    documents_fired = np.bincount(position, weights=series.numerator)
    documents_seen = np.bincount(position, weights=series.denominator)
    weights = np.zeros(len(units))
    weights[position] = series.weight
    document_count = round(documents_seen.max())
    if documents_seen.min() != document_count:
        return Failed("not all latents were watched on the same number of documents")
    if document_count == 0:
        return Undefined("no documents")
    total = math.fsum(weights)
    if total == 0:
        return Undefined("the sampling weights sum to zero")
    single = (documents_fired[position] == 1) & (series.numerator == 1) & series.is_clustered
    documents, document_position = np.unique(series.cluster[single], return_inverse=True)
    order = np.lexsort((series.unit[single], document_position))
    changes = np.zeros(len(documents))
    np.add.at(changes, document_position[order], weights[position][single][order])
    bound = f"unseen in {document_count} documents: fires in < {3 / document_count:.2g} of them (95 %)"
    return JackknifeStatistic(
        number=math.fsum(weights[documents_fired == 0]) / total,
        documents=documents,
        changes=changes / total,
        document_count=document_count,
        unit_count=len(units),
        note=bound,
    )


def compute_equivalent_fraction(series: Series, parameters: Mapping[str, Any]) -> ClusterStatistic | Outcome:
    """Fraction of its training compute that a model as bad as the substituted one would have needed.

    The rise of the loss, sum(w numerator) / sum(w denominator) in nats, is added to the curve's loss at full
    compute, and the curve L(C) = e + a C^-b is inverted. Adding it to the curve rather than to the member's
    own loss gives a perfect reconstruction exactly 1, whatever the curve's residual there.

    Parameters:
        points: [[FLOPs, loss in nats], ...], at least four.
        full_flops: compute of the subject itself; the largest of the points if absent.
        clean_loss_nats, clean_ce_nats, tolerance_nats: the subject's loss in the curve's data and as measured
            in this run; undefined where they differ by more than the tolerance, for then the curve belongs to
            other text. Not checked where one of the two is absent.

    Undefined with fewer than four points, where their losses do not fall with compute, or where the loss
    lies outside the curve's range.

    Source: Gao et al. 2024, section 4.1, which names the idea and gives neither curve nor formula.
    """
    clean, measured = parameters.get("clean_loss_nats"), parameters.get("clean_ce_nats")
    tolerance = float(parameters.get("tolerance_nats", 0.15))
    if clean is not None and measured is not None and abs(clean - measured) > tolerance:
        return Undefined(
            f"the subject's loss here is {measured:.4g} nats, the compute curve's is {clean:.4g}: "
            f"more than {tolerance:g} nats apart, so the curve does not belong to this text"
        )
    points = tuple(tuple(map(float, point)) for point in parameters.get("points", ()))
    try:
        curve, draws = _curve_and_draws(points)
    except ValueError as error:
        return Undefined(str(error))
    full_flops = float(parameters.get("full_flops") or curve.flops[-1])
    if not curve.flops[0] <= full_flops <= curve.flops[-1]:
        return Undefined("the subject's own compute lies outside the compute curve's range")
    return replace(
        ratio(series, parameters),
        note=f"with the compute curve's residuals resampled{_bound_note(curve)}",
        transform=CurveTransform(curve, draws, full_flops),
    )


def _bound_note(curve: ComputeCurve) -> str:
    """A family far from its limit does not show an irreducible loss: then e is at its bound."""
    return "; e of the curve is at its bound 0, a pure power law" if curve.irreducible_nats < 1e-6 else ""


@lru_cache(maxsize=8)  # a pure function, asked for the same points by every checkpoint
def _curve_and_draws(points: tuple[tuple[float, ...], ...]) -> tuple[ComputeCurve, CurveDraws]:
    curve = ComputeCurve.fit(points)
    return curve, curve.draws(_CURVE_DRAWS, np.random.default_rng(0))


FUNCTIONALS: dict[str, Functional] = {
    "ratio": ratio,
    "one_minus_ratio": one_minus_ratio,
    "mean_of_group_ratios": mean_of_group_ratios,
    "auroc": auroc,
    "mean_of_group_aurocs": mean_of_group_aurocs,
    "unseen_fraction": unseen_fraction,
    "compute_equivalent_fraction": compute_equivalent_fraction,
}
"""All functionals that a metric may name."""


def _divide(sums: np.ndarray) -> np.ndarray:
    """Numerator / denominator; NaN where the denominator is not above zero."""
    return np.divide(sums[0], sums[1], out=np.full_like(sums[0], np.nan), where=sums[1] > 0)


def _weighted_mean(values: Float[np.ndarray, "group column"], weights: np.ndarray) -> np.ndarray:
    """Mean over the groups that are defined in each column; NaN where none is."""
    is_defined = np.isfinite(values)
    total = np.where(is_defined, values, 0.0).T @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        return total / (is_defined.T @ weights)


def _weight_of_groups(series: Series, group_position: np.ndarray, group_count: int) -> np.ndarray:
    """A group has one weight; should its rows disagree, the largest counts, whatever their order."""
    weights = np.zeros(group_count)
    np.maximum.at(weights, group_position, series.group_weight)
    return weights


def _merged_predictions(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Index of a row of each (unit, group, label), and numerator sum / denominator sum over its rows."""
    keys, first, position = np.unique(series.row_key, return_index=True, return_inverse=True)
    if len(keys) == len(series.unit):
        sums = [series.numerator[first], series.denominator[first]]
    else:
        sums = [exact_group_sums(x, position, len(keys)) for x in (series.numerator, series.denominator)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return first, sums[0] / sums[1]
