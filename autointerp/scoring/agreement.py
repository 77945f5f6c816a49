"""Whether two ways of testing explanations put the latents in the same order."""

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from autointerp.estimates.bootstrap import unseen_share
from autointerp.records import Undefined
from autointerp.scoring.score import Score, normal_quantile

__all__ = ["FEWEST_LATENTS", "spearman"]

FEWEST_LATENTS = 5
"""Below, no interval can be trusted."""


def spearman(
    one: Float[np.ndarray, " latent"], other: Float[np.ndarray, " latent"], *, level: float = 0.95
) -> Score | Undefined:
    """Spearman's rank correlation of two scores of the same latents; ties share their mean rank; -1 to 1.

    Interval on Fisher's scale with variance (1 + rho^2 / 2) / (n - 3) (Bonett and Wright 2000, Psychometrika
    65:23); where the orders agree (or oppose) entirely: see `unseen_share`. Latents count alike, whatever
    their sampling weight. Two noisy scores correlate less than what they measure does.

    Undefined with fewer than five latents, or where either score is the same for all.

    Raises:
        ValueError: the two are not equally long, or not finite.
    """
    if len(one) != len(other) or not (np.isfinite(one) & np.isfinite(other)).all():
        raise ValueError("both scores must be finite and of the same latents")
    count = len(one)
    if count < FEWEST_LATENTS:
        return Undefined(f"only {count} {'latent has' if count == 1 else 'latents have'} both scores")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return Undefined("one of the scores is the same for all latents")
    ranks = [rankdata(side) - (count + 1) / 2 for side in (one, other)]
    rho = float(ranks[0] @ ranks[1]) / math.sqrt(float(ranks[0] @ ranks[0]) * float(ranks[1] @ ranks[1]))
    rho = max(-1.0, min(1.0, rho))
    if 1 - abs(rho) < 1e-12:
        rho = round(rho)
        reach = unseen_share(count, level=level)
        low, high, method = (
            max(-1.0, rho - reach),
            min(1.0, rho + reach),
            "what so many latents cannot exclude",
        )
    else:
        centre = math.atanh(rho)
        reach = normal_quantile(level) * math.sqrt((1 + rho**2 / 2) / (count - 3))
        low, high, method = (
            math.tanh(centre - reach),
            math.tanh(centre + reach),
            "Fisher's z, Bonett and Wright",
        )
    return Score("spearman", float(rho), low, high, level, method, count)
