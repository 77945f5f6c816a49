"""A score with its interval, and what the scores share: effective sample sizes, Wilson's interval."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from autointerp.records import Undefined

__all__ = [
    "Interval",
    "Score",
    "effective_size",
    "normal_quantile",
    "share_score",
    "wilson",
]


@dataclass(frozen=True)
class Interval:
    """Ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """How well one explanation did, with how sure that is. All floats are finite and low < high."""

    name: str
    value: float
    low: float
    high: float
    level: float
    """Coverage of [low, high], e.g. 0.95."""
    method: str
    """How the interval was made, and what was left out."""
    n: int
    """Passages (of simulations: passages with a scored token) that it rests on."""
    n_positive: int | None = None
    """Of these, in how many the latent fires; None where the score does not ask."""
    n_negative: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a number, and an interval that claims certainty."""
        if not all(math.isfinite(x) for x in (self.value, self.low, self.high, self.level)):
            raise ValueError(f"a score must be finite, got {self}")
        if not self.low <= self.value <= self.high or self.low == self.high:
            raise ValueError(f"an interval must hold its score and have a width, got {self}")


def normal_quantile(level: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 at level 0.95.

    Raises:
        ValueError: the level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return float(ndtri((1 + level) / 2))


def effective_size(
    weight: Float[np.ndarray, " example"], cluster: np.ndarray | None, keep: Bool[np.ndarray, " example"]
) -> float:
    """How many independent, equally weighted examples the kept ones are worth: (sum W)^2 / sum W^2.

    W is the summed weight of a cluster (Kish 1965, section 8.2, with clusters in the place of examples):
    examples of one document count as a single one, as if they all said the same. That is the worst case, so
    intervals made with it are rather too wide where documents have several examples. Without clusters W is an
    example's weight. Range 1 to the number of clusters; 0 where the kept weights sum to zero.

    Clusters are ids of any kind; whole numbers must count from 0, or nearly so.
    """
    kept = weight[keep]
    if cluster is not None:
        place = np.asarray(cluster)[keep]
        if place.dtype.kind not in "iu":
            place = np.unique(place, return_inverse=True)[1]
        kept = np.bincount(place, weights=kept)
    total = float(kept.sum())
    return 0.0 if total == 0 else total**2 / float((kept**2).sum())


def wilson(share: float, size: float, *, level: float) -> Interval:
    """Wilson's score interval of a share seen on `size` examples, which need not be a whole number.

    Never of zero width: at share 1 it goes down to size / (size + z^2). Source: Wilson 1927, JASA 22:209.

    Raises:
        ValueError: the size is not positive, or the share is not in [0, 1].
    """
    if not (size > 0 and 0 <= share <= 1):
        raise ValueError(f"size must be positive and the share lie in [0, 1], got {share} of {size}")
    z2 = normal_quantile(level) ** 2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    reach = math.sqrt(z2 * (share * (1 - share) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    low = 0.0 if share == 0 else max(0.0, centre - reach)
    high = 1.0 if share == 1 else min(1.0, centre + reach)
    return Interval(min(low, share), max(high, share))


def share_score(
    name: str,
    is_right: Bool[np.ndarray, " example"],
    *,
    weight: Float[np.ndarray, " example"] | None = None,
    cluster: np.ndarray | None = None,
    level: float,
    lacking: str,
) -> Score | Undefined:
    """Weighted share of examples that are right, with Wilson's interval on their effective size.

    Undefined, with `lacking` as the reason, where no example has weight.
    """
    weight = np.ones(len(is_right)) if weight is None else weight
    size = effective_size(weight, cluster, np.ones(len(is_right), dtype=bool))
    if size == 0:
        return Undefined(lacking)
    right, wrong = float(weight[is_right].sum()), float(weight[~is_right].sum())
    value = right / (right + wrong)
    interval = wilson(value, size, level=level)
    method = f"Wilson, effective size {size:.3g}"
    return Score(name, value, interval.low, interval.high, level, method, len(is_right))
