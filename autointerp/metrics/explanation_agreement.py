"""Scores of latents -> a table of how far the methods agree on which latents are well explained."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autointerp.records import Undefined
from autointerp.scoring.agreement import spearman
from autointerp.scoring.latent_scores import LatentScore
from autointerp.scoring.score import Score

__all__ = ["AGREEING_METRICS", "Agreement", "agreements"]

AGREEING_METRICS = (
    "explanation.simulation_correlation",
    "explanation.detection_auroc",
    "explanation.fuzzing_auroc",
    "explanation.intruder_accuracy",
    "explanation.embedding_auroc",
    "explanation.surprisal_auroc",
    "explanation.generation_auroc",
    "explanation.steering_auroc",
)
"""One of each method, in reading order."""


@dataclass(frozen=True)
class Agreement:
    """Rank correlation, over a checkpoint's latents, of two metrics' headline scores."""

    checkpoint: str
    one: str
    other: str
    outcome: Score | Undefined


def agreements(
    scores: Iterable[LatentScore], *, metrics: Sequence[str] = AGREEING_METRICS, level: float = 0.95
) -> list[Agreement]:
    """Every two metrics that were both observed, within each checkpoint, on the latents that have both."""
    values: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        if score.metric in metrics and not score.slice:
            of_metric = values[score.checkpoint][score.metric]
            if isinstance(score.outcome, Score):
                of_metric[score.latent_id] = score.outcome.value
    found = []
    for checkpoint in sorted(values):
        observed = [metric for metric in metrics if metric in values[checkpoint]]
        for one, other in combinations(observed, 2):
            both = sorted(values[checkpoint][one].keys() & values[checkpoint][other].keys())
            columns = [
                np.array([values[checkpoint][metric][latent] for latent in both]) for metric in (one, other)
            ]
            found.append(Agreement(checkpoint, one, other, spearman(*columns, level=level)))
    return found
