"""Yes and no at a probability of one half: sensitivity, specificity, their mean, and precision."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from autointerp.records import Undefined
from autointerp.scoring.score import Interval, Score, share_score

__all__ = ["YesNoScores", "yes_no_scores"]


@dataclass(frozen=True)
class YesNoScores:
    """What a judge's yes and no are worth."""

    balanced_accuracy: Score | Undefined
    """(sensitivity + specificity) / 2: 0.5 for a judge that always says the same, 1 is best."""
    sensitivity: Score | Undefined
    """Share of passages in which the latent fires that get a yes; also called recall."""
    specificity: Score | Undefined
    """Share of passages in which it does not fire that get a no."""
    precision: Score | Undefined
    """sensitivity / (sensitivity + 1 - specificity): the share of yeses that are right if it fires in half of
    the passages asked about. Undefined where the judge never says yes."""


def yes_no_scores(
    probability: Float[np.ndarray, " example"],
    fires: Bool[np.ndarray, " example"],
    *,
    weight: Float[np.ndarray, " example"] | None = None,
    cluster: np.ndarray | None = None,
    level: float = 0.95,
) -> YesNoScores:
    """All four from probabilities of firing; a probability of exactly 0.5 is a yes.

    How many passages of either class were asked about does not matter: shares are taken within each class,
    by weight. Intervals: Wilson's for a share, with effective sizes for weights and documents; MOVER for the
    mean (Newcombe 1998, Statistics in Medicine 17:873; Zou and Donner 2008, ibid. 27:1693) and for the ratio
    in precision (Donner and Zou 2012, Statistical Methods in Medical Research 21:347).

    Args:
        probability: in [0, 1]; -inf and inf count as no and yes.
        fires: the truth.
        weight: of each example, at least 0; None: all alike.
        cluster: what makes examples dependent (documents), one id each.
        level: coverage of the intervals.

    Each is Undefined where a class that it needs has no example.

    Raises:
        ValueError: a probability is NaN, or a weight is negative or not finite.
    """
    weight = np.ones(len(probability)) if weight is None else weight
    if np.isnan(probability).any() or not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("probabilities must be numbers, weights finite and at least 0")
    says_yes = probability >= 0.5
    classes = (("sensitivity", says_yes, fires, "fires"), ("specificity", ~says_yes, ~fires, "is silent"))
    sensitivity, specificity = (
        share_score(
            name,
            is_right[asked],
            weight=weight[asked],
            cluster=None if cluster is None else np.asarray(cluster)[asked],
            level=level,
            lacking=f"no passage in which the latent {what}",
        )
        for name, is_right, asked, what in classes
    )
    if isinstance(sensitivity, Score):
        sensitivity = replace(sensitivity, n_positive=sensitivity.n, n_negative=0)
    if isinstance(specificity, Score):
        specificity = replace(specificity, n_positive=0, n_negative=specificity.n)
    return YesNoScores(
        _mean(sensitivity, specificity), sensitivity, specificity, _precision(sensitivity, specificity)
    )


def _mean(sensitivity: Score | Undefined, specificity: Score | Undefined) -> Score | Undefined:
    for one in (sensitivity, specificity):
        if isinstance(one, Undefined):
            return one
    value = (sensitivity.value + specificity.value) / 2
    below = math.hypot(sensitivity.value - sensitivity.low, specificity.value - specificity.low) / 2
    above = math.hypot(sensitivity.high - sensitivity.value, specificity.high - specificity.value) / 2
    interval = Interval(max(0.0, value - below), min(1.0, value + above))
    return _of_both("balanced_accuracy", value, interval, (sensitivity, specificity))


def _precision(sensitivity: Score | Undefined, specificity: Score | Undefined) -> Score | Undefined:
    """Precisions p for which MOVER's interval of (1 - p) hits - p alarms holds 0."""
    for one in (sensitivity, specificity):
        if isinstance(one, Undefined):
            return one
    hits, alarms = sensitivity.value, 1 - specificity.value
    if hits + alarms == 0:
        return Undefined("the judge never says yes")
    value = hits / (hits + alarms)
    low, high = 0.0, 1.0
    if sensitivity.low > 0:
        more_alarms = specificity.value - specificity.low
        low = _balance(hits, alarms, fewer=hits - sensitivity.low, more=more_alarms)
    if specificity.high < 1:
        fewer_alarms = specificity.high - specificity.value
        high = 1 - _balance(alarms, hits, fewer=fewer_alarms, more=sensitivity.high - hits)
    interval = Interval(min(low, value), max(high, value))
    return _of_both("precision", value, interval, (sensitivity, specificity))


def _balance(own: float, other: float, *, fewer: float, more: float) -> float:
    """The share q < own / (own + other) with (1 - q) own - q other = hypot((1 - q) fewer, q more).

    Squared, a quadratic equation of the odds q / (1 - q); fewer < own, or there is no such share.
    """
    rest = own**2 - fewer**2
    root = math.sqrt((own * more) ** 2 + (other * fewer) ** 2 - (fewer * more) ** 2)
    return rest / (rest + own * other + root)


def _of_both(name: str, value: float, interval: Interval, sides: tuple[Score, Score]) -> Score:
    sizes = f"{sides[0].method.partition(', ')[2]} and {sides[1].method.rpartition(' ')[2]}"
    return Score(
        name=name,
        value=value,
        low=interval.low,
        high=interval.high,
        level=sides[0].level,
        method=f"MOVER of Wilson, {sizes}",
        n=sides[0].n + sides[1].n,
        n_positive=sides[0].n,
        n_negative=sides[1].n,
    )
