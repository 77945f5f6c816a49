"""Texts that an LLM wrote to fire a latent, and not to: whether they do."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from autointerp.records import Undefined
from autointerp.scoring.auroc import auroc
from autointerp.scoring.score import Score, share_score

__all__ = ["GenerationScores", "generation_scores"]


@dataclass(frozen=True)
class GenerationScores:
    """What an explanation is worth as a recipe for texts."""

    success: Score | Undefined
    """Share of the texts written to fire the latent that do."""
    restraint: Score | Undefined
    """Share of the texts written not to fire it that do not."""
    auroc: Score | Undefined
    """How well the strength of firing tells the two kinds apart; 0.5 is chance."""


def generation_scores(
    activation: Float[np.ndarray, " example"],
    should_fire: Bool[np.ndarray, " example"],
    *,
    level: float = 0.95,
) -> GenerationScores:
    """All three, over texts that count as independent.

    Args:
        activation: largest |activation| of the latent in each text, 0 where it fires nowhere.
        should_fire: what the LLM was asked to write.
        level: coverage of the intervals (Wilson's for shares, Newcombe's for the AUROC).

    A score is Undefined where a kind of text that it needs is lacking. Success alone is easy to have: a
    latent that fires everywhere has it for any explanation. Source of the task: Paulo et al. 2024 (arXiv
    2410.13928).

    Raises:
        ValueError: an activation is NaN.
    """
    fires = activation > 0
    return GenerationScores(
        share_score(
            "generation_success_fraction",
            fires[should_fire],
            level=level,
            lacking="no text was written to fire the latent",
        ),
        share_score(
            "generation_restraint_fraction",
            ~fires[~should_fire],
            level=level,
            lacking="no text was written not to fire the latent",
        ),
        auroc(activation, should_fire, level=level, name="generation_auroc"),
    )
