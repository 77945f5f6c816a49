"""Odd one out: how often the judge finds the passage in which the latent does not fire."""

import numpy as np
from jaxtyping import Bool

from autointerp.records import Undefined
from autointerp.scoring.score import Score, share_score

__all__ = ["CHOICES", "intruder_accuracy"]

CHOICES = 5
"""Passages in a question, one of them the intruder: guessing is right in one fifth of them."""


def intruder_accuracy(
    is_found: Bool[np.ndarray, " example"], *, cluster: np.ndarray | None = None, level: float = 0.95
) -> Score | Undefined:
    """Share of questions in which the intruder was found; chance is 1 / CHOICES, 1 is best.

    The judge gets no explanation: the score says whether a latent's contexts have something in common that a
    reader sees, not whether an explanation names it. Wilson's interval over questions (or their clusters).
    Source of the task: Paulo and Belrose 2025 (arXiv 2507.08473).

    Undefined without a question.
    """
    return share_score(
        "intruder_accuracy", is_found, cluster=cluster, level=level, lacking="no question was asked"
    )
