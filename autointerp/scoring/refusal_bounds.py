"""What a score could be at worst and at best if the questions without an answer had been answered."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["Side", "correlation_bound", "with_refusals"]

Side = Literal["worst", "best"]


def with_refusals(
    value: Float[np.ndarray, " example"],
    fires: Bool[np.ndarray, " example"],
    is_refused: Bool[np.ndarray, " example"],
    side: Side,
) -> Float[np.ndarray, " example"]:
    """Answers with every refused one put at an end of the range: -inf is the surest no, inf the surest yes.

    At worst a passage in which the latent fires gets -inf and a silent one inf; at best the other way round.
    AUROC, balanced accuracy and shares of these are the least and the largest that any answers could give.
    """
    highest = fires if side == "best" else ~fires
    return np.where(is_refused, np.where(highest, np.inf, -np.inf), value)


def correlation_bound(
    truth: Float[np.ndarray, " token"],
    predicted: Float[np.ndarray, " token"],
    refused_truth: Sequence[np.ndarray],
    side: Side,
) -> float:
    """Supremum (or infimum) of Pearson's correlation over all predictions for the refused tokens.

    With free predictions there, the best ones reach the truth exactly, and what remains is the error of the
    line truth ~ a + b predicted over the answered tokens, b not below 0 (at worst: not above 0):
    +- sqrt(1 - error / total sum of squares). Without refused tokens it is the correlation itself, or 0 if
    the predictions are constant. 0 where the truth is constant.

    Args:
        truth: activations of the answered tokens.
        predicted: their predictions.
        refused_truth: activations of each refused passage.
        side: which of the two.
    """
    sign = 1.0 if side == "best" else -1.0
    free = np.concatenate([np.zeros(0), *refused_truth])
    everything = np.concatenate([truth, free])
    if not len(everything) or np.ptp(everything) == 0:
        return 0.0
    total = float(((everything - everything.mean()) ** 2).sum())
    within = product = spread = 0.0
    if len(truth):
        t, p = truth - truth.mean(), predicted - predicted.mean()
        within, product, spread = float(t @ t), float(t @ p), float(p @ p)
    if not len(free):
        # perfect predictions can come out above 1 in the last digit
        return 0.0 if spread == 0 else max(-1.0, min(1.0, product / math.sqrt(within * spread)))
    explained = product**2 / spread if spread > 0 and sign * product > 0 else 0.0
    return sign * min(1.0, math.sqrt(max(0.0, total - within + explained) / total))
