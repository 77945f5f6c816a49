"""How much better a latent's own explanation does than one borrowed from another latent."""

import math
from dataclasses import dataclass

import numpy as np

from autointerp.estimates.bootstrap import unseen_share
from autointerp.records import Failed, Skipped, Undefined
from autointerp.scoring.answers import Answers
from autointerp.scoring.method_scores import MethodFamily, scores
from autointerp.scoring.score import Score

__all__ = ["Tested", "over_borrowed"]


@dataclass(frozen=True, eq=False)
class Tested:
    """What was answered with one explanation."""

    answers: Answers
    outcome: Score | Undefined | Failed | Skipped
    """Of the metric that is compared, on all of these."""


def over_borrowed(
    family: MethodFamily, metric: str, own: Tested, borrowed: Tested, *, level: float, seed: int
) -> Score | Undefined | Failed | Skipped:
    """Own minus borrowed score of one metric, on the passages that were answered with both; 0 is chance.

    A prediction that is the same on every token has no correlation; in this difference it counts as 0, for
    it tells nothing apart. The interval is MOVER's of the two scores' (Zou and Donner 2008, Statistics in
    Medicine 27:1693) as if they were independent: rather too wide where both find the same passages hard.
    """
    both = _questions(own.answers) & _questions(borrowed.answers)
    if not both:
        return Undefined("no passage was answered with both explanations")
    ends = []
    for side in (own, borrowed):
        common = _of_questions(side.answers, both)
        is_all = len(common) == len(side.answers)
        score = side.outcome if is_all else scores(family, common, level=level, seed=seed)[metric]
        if isinstance(score, Score):
            ends.append((score.value, score.low, score.high))
        elif family.is_simulation and _tells_nothing(common):
            ends.append((0.0, 0.0, 0.0))
        else:
            return score
    answered = _of_questions(own.answers, both)
    (mine, low, high), (other, other_low, other_high) = ends
    below, above = math.hypot(mine - low, other_high - other), math.hypot(high - mine, other - other_low)
    method = "MOVER of the two scores' intervals"
    if below + above == 0:
        below = above = unseen_share(len(np.unique(answered.document)), level=level)
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
        n=len(answered),
        n_positive=None if family.is_simulation else int(answered.fires.sum()),
        n_negative=None if family.is_simulation else int((~answered.fires).sum()),
    )


def _questions(answers: Answers) -> set[tuple[str, bool]]:
    """What identifies a row on both sides, of those that were answered."""
    measured = answers.only(answers.is_measured)
    return set(zip(measured.passage.tolist(), measured.fires.tolist(), strict=True))


def _of_questions(answers: Answers, questions: set[tuple[str, bool]]) -> Answers:
    rows = zip(answers.passage.tolist(), answers.fires.tolist(), strict=True)
    is_asked = np.array([row in questions for row in rows], dtype=bool)
    return answers.only(is_asked & answers.is_measured)


def _tells_nothing(answers: Answers) -> bool:
    """Predictions are constant while the truth is not."""
    truth, predicted = (
        np.concatenate([np.zeros(0), *column]) for column in (answers.truth, answers.predicted)
    )
    known = ~np.isnan(predicted)
    return bool(known.any() and np.ptp(predicted[known]) == 0 and np.ptp(truth[known]) > 0)
