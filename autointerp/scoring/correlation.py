"""Predicted against true activations, token by token: correlation, R^2 and absolute deviation.

Tokens of all passages are concatenated, as Bills et al. do ("Language models can explain neurons in language
models", 2023, and their released code); the interval is over documents, since tokens of one are dependent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from autointerp.estimates.bootstrap import FEWEST_CLUSTERS, bootstrap_interval, resample_all
from autointerp.estimates.exact_sums import fixed_point
from autointerp.estimates.statistics import ClusterStatistic
from autointerp.records import Undefined
from autointerp.scoring.score import Score, unseen_share

__all__ = ["TokenSequences", "absolute_deviation", "ev_correlation", "rsquared"]

_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class TokenSequences:
    """Truth and prediction of the tokens that have both, and which document each is of."""

    truth: Float[np.ndarray, " token"]
    """Raw activations; negative ones stay as they are."""
    predicted: Float[np.ndarray, " token"]
    document: np.ndarray
    """Rank of the token's document among `document_ids`."""
    document_ids: np.ndarray
    passage_count: int
    """Passages with a token that is scored."""
    missing_count: int
    """Tokens without a prediction, which are left out."""

    @classmethod
    def of(
        cls,
        truth: Sequence[Sequence[float] | np.ndarray],
        predicted: Sequence[Sequence[float] | np.ndarray],
        documents: Sequence[str],
    ) -> "TokenSequences":
        """From passages: activations, predictions (NaN where there is none), document ids.

        Raises:
            ValueError: the three, or a passage's two sequences, differ in length, or an activation is not
                finite, or a prediction infinite.
        """
        if any(len(t) != len(p) for t, p in zip(truth, predicted, strict=True)):
            raise ValueError("a passage has other numbers of activations and of predictions")
        lengths = [len(each) for each in truth]
        flat_truth, flat_predicted = _flat(truth), _flat(predicted)
        if not np.isfinite(flat_truth).all() or np.isinf(flat_predicted).any():
            raise ValueError("activations must be finite, predictions finite or NaN")
        has_both = ~np.isnan(flat_predicted)
        passage = np.repeat(np.arange(len(lengths)), lengths)[has_both]
        ids = np.repeat(np.array(list(documents), dtype=object), lengths)[has_both]
        document_ids, document = np.unique(ids.astype(str), return_inverse=True)
        order = np.lexsort((flat_predicted[has_both], flat_truth[has_both], document))
        return cls(
            truth=flat_truth[has_both][order],
            predicted=flat_predicted[has_both][order],
            document=document[order],
            document_ids=document_ids,
            passage_count=len(np.unique(passage)),
            missing_count=int(np.count_nonzero(~has_both)),
        )


def _flat(sequences: Sequence[Sequence[float] | np.ndarray]) -> Float[np.ndarray, " token"]:
    return np.concatenate([np.zeros(0), *(np.asarray(each, dtype=np.float64) for each in sequences)])


def ev_correlation(tokens: TokenSequences, *, level: float = 0.95, seed: int = 0) -> Score | Undefined:
    """Pearson's correlation of activations and predictions over all tokens; -1 to 1, 1 is best, 0 is chance.

    The scale of the predictions does not matter. Undefined where either side is constant: an explanation that
    predicts the same everywhere has none, and its absence from a mean flatters the mean.

    Interval: BCa bootstrap over documents, which is the same on Fisher's scale. Where resampling shows no
    spread, or there are fewer than five documents: see `unseen_share`.
    """
    if not len(tokens.truth):
        return Undefined("no token has a prediction")
    for side, what in ((tokens.truth, "activation is"), (tokens.predicted, "prediction is")):
        if np.ptp(side) == 0:
            return Undefined(f"the {what} the same on every scored token")
    t, p = (_standardised(side) for side in (tokens.truth, tokens.predicted))
    return _scored(
        "simulation_correlation",
        tokens,
        [np.ones_like(t), t, p, t * t, p * p, t * p],
        _correlation,
        bounds=(-1.0, 1.0),
        options=(level, seed),
    )


def rsquared(tokens: TokenSequences, *, level: float = 0.95, seed: int = 0) -> Score | Undefined:
    """1 - mean((t - p)^2) / mean(t^2): not about the mean; at most 1, 0 for predicting 0 everywhere.

    The predictions must be in units of activation. Undefined where the latent fires on no scored token.
    Interval as in `ev_correlation`.
    """
    t, p = tokens.truth, tokens.predicted
    return _one_minus("simulation_rsquared", tokens, (t - p) ** 2, t**2, (level, seed))


def absolute_deviation(tokens: TokenSequences, *, level: float = 0.95, seed: int = 0) -> Score | Undefined:
    """1 - mean|t - p| / mean|t|: at most 1, 0 for predicting 0 everywhere.

    The predictions must be in units of activation. Undefined where the latent fires on no scored token.
    Interval as in `ev_correlation`.
    """
    t, p = tokens.truth, tokens.predicted
    return _one_minus("simulation_absolute_deviation", tokens, np.abs(t - p), np.abs(t), (level, seed))


def _one_minus(
    name: str, tokens: TokenSequences, error: np.ndarray, size: np.ndarray, options: tuple[float, int]
) -> Score | Undefined:
    if not len(size):
        return Undefined("no token has a prediction")
    if float(size.sum()) == 0:
        return Undefined("the latent fires on no scored token")
    scale = float(size.sum()) / len(size)
    columns = [error / scale, size / scale]
    return _scored(name, tokens, columns, _one_minus_ratio, bounds=(-np.inf, 1.0), options=options)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Centred and scaled, so that sums of squares keep their digits."""
    centred = values / np.abs(values).max()
    centred = centred - centred.mean()
    largest = float(np.abs(centred).max())
    return centred / largest if largest else centred


def _correlation(sums: np.ndarray) -> np.ndarray:
    n, t, p, tt, pp, tp = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        spreads = (tt - t * t / n) * (pp - p * p / n)
        value = (tp - t * p / n) / np.sqrt(np.where(spreads > 0, spreads, np.nan))
    return np.clip(value, -1.0, 1.0)


def _one_minus_ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[1] > 0, 1 - sums[0] / sums[1], np.nan)


def _scored(
    name: str,
    tokens: TokenSequences,
    columns: Sequence[np.ndarray],
    finish: Callable[[np.ndarray], np.ndarray],
    *,
    bounds: tuple[float, float],
    options: tuple[float, int],
) -> Score | Undefined:
    """A function of sums over tokens, with its interval over documents."""
    level, seed = options
    count = len(tokens.document_ids)
    rows = np.stack([np.bincount(tokens.document, weights=fixed_point(c), minlength=count) for c in columns])
    totals = np.array([math.fsum(column) for column in columns])
    clusters = np.arange(count)
    statistic = ClusterStatistic(rows, totals, finish, clusters, "the sums have no spread left")
    value = statistic.value()
    if not isinstance(value, float):
        return Undefined("either side is constant to the last digits")
    low, high, method = _ends(statistic, value, tokens.document_ids, level=level, seed=seed)
    left_out = (
        f"; {tokens.missing_count} tokens without a prediction left out" if tokens.missing_count else ""
    )
    return Score(
        name=name,
        value=value,
        low=max(bounds[0], min(low, value)),
        high=min(bounds[1], max(high, value)),
        level=level,
        method=f"{method}{left_out}",
        n=tokens.passage_count,
    )


def _ends(
    statistic: ClusterStatistic, value: float, ids: np.ndarray, *, level: float, seed: int
) -> tuple[float, float, str]:
    """Ends of the interval, and how they were found."""
    reach = unseen_share(len(ids), level=level)
    widest = (value - reach, value + reach)
    if len(ids) < FEWEST_CLUSTERS:
        return *widest, f"what {len(ids)} documents cannot exclude: too few to resample"
    replicates = resample_all([statistic], ids, resamples=_RESAMPLES, seed=seed)[0]
    interval = bootstrap_interval(replicates, level=level)
    if interval is None:
        return *widest, f"what {len(ids)} documents cannot exclude: most resamples have no value"
    if interval.high - interval.low <= 1e-9:
        return *widest, f"what {len(ids)} documents cannot exclude: resampling shows no spread"
    return interval.low, interval.high, interval.method
