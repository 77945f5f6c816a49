"""How much better a latent's own explanation does than one borrowed from another latent."""

import math

import numpy as np

from autointerp.estimates.bootstrap import unseen_share
from autointerp.records import Undefined
from autointerp.scoring.answers import Answers
from autointerp.scoring.method_scores import MethodFamily, scores
from autointerp.scoring.score import Score

__all__ = ["over_borrowed"]


def over_borrowed(
    family: MethodFamily, metric: str, own: Answers, borrowed: Answers, *, level: float, seed: int
) -> Score | Undefined:
    """Own minus borrowed score of one metric, on the passages that were answered with both; 0 is chance.

    A prediction that is the same on every token has no correlation; in this difference it counts as 0, for
    it tells nothing apart. The interval is MOVER's of the two scores' (Zou and Donner 2008, Statistics in
    Medicine 27:1693) as if they were independent: rather too wide where both find the same passages hard.
    """
    own, borrowed = (side.only(side.is_measured) for side in (own, borrowed))
    both = set(_questions(own)) & set(_questions(borrowed))
    own, borrowed = (
        side.only(np.array([question in both for question in _questions(side)], dtype=bool))
        for side in (own, borrowed)
    )
    if not both:
        return Undefined("no passage was answered with both explanations")
    ends = []
    for side in (own, borrowed):
        score = scores(family, side, level=level, seed=seed)[metric]
        if isinstance(score, Score):
            ends.append((score.value, score.low, score.high))
        elif family.is_simulation and _tells_nothing(side):
            ends.append((0.0, 0.0, 0.0))
        else:
            return score
    (mine, low, high), (other, other_low, other_high) = ends
    below, above = math.hypot(mine - low, other_high - other), math.hypot(high - mine, other - other_low)
    method = "MOVER of the two scores' intervals"
    if below + above == 0:
        below = above = unseen_share(len(np.unique(own.document.astype(str))), level=level)
        method = "both predict nothing: what the documents cannot exclude"
    value = mine - other
    lowest = -2.0 if family.is_simulation else -1.0
    return Score(
        name=f"{family.name}_over_borrowed",
        value=value,
        low=max(lowest, value - below),
        high=min(-lowest, value + above),
        level=level,
        method=method,
        n=len(own),
        n_positive=None if family.is_simulation else int(own.fires.sum()),
        n_negative=None if family.is_simulation else int((~own.fires).sum()),
    )


def _questions(answers: Answers) -> list[tuple[str, bool]]:
    """What identifies a row on both sides."""
    return list(zip(answers.passage.tolist(), answers.fires.tolist(), strict=True))


def _tells_nothing(answers: Answers) -> bool:
    """Predictions are constant while the truth is not."""
    truth, predicted = (
        np.concatenate([np.zeros(0), *(np.asarray(each, dtype=np.float64) for each in column)])
        for column in (answers.truth, answers.predicted)
    )
    known = ~np.isnan(predicted)
    return bool(known.any() and np.ptp(predicted[known]) == 0 and np.ptp(truth[known]) > 0)
