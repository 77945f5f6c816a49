"""Made-up predictions of made-up judges, for the tests of scores."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autointerp.scoring.predictions import ScoredPassage

Answer = Callable[[ScoredPassage, np.random.Generator], float]


def oracle(row: ScoredPassage, generator: np.random.Generator) -> float:
    return 0.9 if row.fires else 0.1


def coin(row: ScoredPassage, generator: np.random.Generator) -> float:
    return float(generator.random())


def deaf(row: ScoredPassage, generator: np.random.Generator) -> float:
    return 0.0


def half_right(row: ScoredPassage, generator: np.random.Generator) -> float:
    knows = generator.random() < 0.5
    return oracle(row, generator) if knows else coin(row, generator)


SAMPLERS = (
    *((("quantiles", stratum, True)) for stratum in range(5) for _ in range(2)),
    *[("top", 0, True)] * 2,
    *[("silent", 0, False)] * 10,
    *[("same_token", 0, False)] * 3,
    *[("near_misses", 0, False)] * 3,
)


def judged(
    answer: Answer = oracle,
    *,
    latents: Sequence[int] = range(3),
    checkpoint: str = "sae",
    seed: int = 0,
    **given: Any,
) -> list[ScoredPassage]:
    """Answers of a judge about each latent's passages: ten active by quantile, ten silent, six hard."""
    rows = []
    for latent in latents:
        generator = np.random.default_rng([seed, latent])
        for place, (sampler, stratum, fires) in enumerate(SAMPLERS):
            row = ScoredPassage(
                checkpoint=checkpoint,
                latent=latent,
                latent_id=f"{checkpoint}:{latent}",
                sampling_weight=1.0 + latent % 2,
                explainer="highlighted",
                method="detection",
                judge="judge",
                passage=f"p{place:02}",
                document=f"d{place // 2:02}",
                sampler=sampler,
                stratum=stratum,
                fires=fires,
                is_probability=True,
                weight=1.0 + stratum,
            )
            row = replace(row, **given)
            rows.append(replace(row, value=answer(row, generator)))
    return rows


def simulated(
    strength: float = 1.0,
    *,
    noise: float = 0.2,
    latents: Sequence[int] = range(3),
    checkpoint: str = "sae",
    seed: int = 0,
    **given: Any,
) -> list[ScoredPassage]:
    """Predictions strength * truth + noise of eight tokens a passage."""
    rows = []
    for row in judged(deaf, latents=latents, checkpoint=checkpoint):
        place = int(row.passage[1:])
        generator = np.random.default_rng([seed, row.latent, place])
        truth = np.where(np.arange(8) == place % 8, 1.0 + row.stratum, 0.0) * bool(row.fires)
        predicted = strength * truth + noise * generator.random(8)
        made = replace(
            row,
            method="simulation",
            judge="simulator",
            value=None,
            is_probability=False,
            truth=tuple(truth.tolist()),
            predicted=tuple(predicted.tolist()),
        )
        rows.append(replace(made, **given))
    return rows


def refused(rows: Sequence[ScoredPassage], every: int, cause: str = "unparsable") -> list[ScoredPassage]:
    """The same with each `every`-th answer refused."""
    return [
        replace(row, status="refused", cause=cause, value=None, predicted=None) if n % every == 0 else row
        for n, row in enumerate(rows)
    ]
