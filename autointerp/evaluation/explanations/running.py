"""Tests that run the subject: a latent on texts that an LLM wrote, and what it makes the subject write."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autointerp.evaluation.explanations.judging import Tested, refused
from autointerp.explaining.catalogue import EXPLAINER_NAMES
from autointerp.explanation_records import Example, Explanation, LatentEvidence, Refusal
from autointerp.sampling.latent_meter import LatentMeter, SteeringOptions
from autointerp.sampling.latents.evidence import LatentCase, TestExamples
from autointerp.scoring.predictions import ScoredPassage
from autointerp.simulating.generation import TextGenerator
from autointerp.simulating.steering import SteeringAnswer, SteeringJudge, SteeringTrial

__all__ = ["RunningLatents", "generated", "needs_effects", "steered", "with_effects"]

_ABLATED_EXAMPLES = 10
"""Contexts of a latent over which the effect of taking it away is averaged."""
_PROMPT_TOKENS = 12


class RunningLatents:
    """A dictionary's latents, run on demand in a thread, one call at a time, while other answers come in."""

    def __init__(self, meter: LatentMeter) -> None:
        """Nothing is run yet."""
        self._meter = meter
        self._lock = asyncio.Lock()

    async def examples(self, evidence: LatentEvidence, texts: Sequence[str]) -> Sequence[Example]:
        """The latent's activations on some texts."""
        async with self._lock:
            (found,) = await asyncio.to_thread(self._meter.activations, [evidence.latent], list(texts))
        return found

    async def strengths(self, explanation: Explanation, texts: Sequence[str]) -> list[float]:
        """The explained latent's largest |activation| in each text; 0 where it fires nowhere."""
        async with self._lock:
            (found,) = await asyncio.to_thread(self._meter.activations, [explanation.latent], list(texts))
        return [max(map(abs, example.activations), default=0.0) for example in found]

    async def trials(
        self, latent: int, prompts: Sequence[str], *, strength: float, maximum: float
    ) -> list[SteeringTrial]:
        """Continuations of prompts with the latent raised, and without."""
        async with self._lock:
            found = await asyncio.to_thread(
                self._meter.steered,
                latent,
                list(prompts),
                strength=strength,
                maximum=maximum,
                options=SteeringOptions(),
            )
        return [SteeringTrial(each.prompt, each.plain, each.steered) for each in found]

    def effects(self, cases: Sequence[LatentCase]) -> dict[int, tuple[tuple[str, float], ...]]:
        """By latent, the tokens that become less likely when it is taken away, on its explain split."""
        contexts = {
            case.evidence.latent: case.evidence.examples.get("quantiles", ())[:_ABLATED_EXAMPLES]
            for case in cases
        }
        found = self._meter.ablation_effects(contexts)
        return {latent: effects.lowered for latent, effects in found.items()}


def needs_effects(explainers: Sequence[str]) -> bool:
    """Whether any explainer reads what a latent does to the next token."""
    return any(EXPLAINER_NAMES[name].needs_effects for name in explainers)


def with_effects(cases: Mapping[int, LatentCase], running: RunningLatents) -> dict[int, LatentCase]:
    """The cases with `LatentEvidence.ablated` measured."""
    effects = running.effects(list(cases.values()))
    return {
        latent: replace(case, evidence=replace(case.evidence, ablated=effects.get(latent, ())))
        for latent, case in cases.items()
    }


async def generated(tested: Tested, generator: TextGenerator) -> list[ScoredPassage]:
    """Texts written from the explanation, and how strongly the latent fires in each."""
    if isinstance(tested.explanation, Refusal):
        return refused(tested, "generation", generator.name, ())
    (rows,) = await generator.rows([tested.explanation])
    found = []
    for place, row in enumerate(rows):
        about: dict[str, Any] = {
            "passage": _hash(f"{place} {row.text}"),
            "sampler": "generated",
            "fires": row.should_fire,
        }
        if row.refusal is not None:
            about |= {"status": "refused", "cause": row.refusal.cause}
        else:
            about["value"] = row.max_activation
        found.append(tested.row("generation", generator.name, None, **about))
    return found


async def steered(
    tested: Tested,
    judge: SteeringJudge,
    running: RunningLatents,
    examples: TestExamples,
    *,
    prompts: int,
    strength: float,
) -> list[ScoredPassage]:
    """Whether a judge tells, by the explanation, what was written with the latent raised."""
    if isinstance(tested.explanation, Refusal):
        return refused(tested, "steering", judge.name, ())
    silent = examples.of("silent")[:prompts]
    if not silent:
        return [tested.row("steering", judge.name, None, status="undefined", cause="no text to continue")]
    evidence = tested.case.evidence
    texts = ["".join(example.tokens[:_PROMPT_TOKENS]) for example in silent]
    trials = await running.trials(evidence.latent, texts, strength=strength, maximum=evidence.maximum)
    answers = await judge.judge(tested.explanation, trials)
    found = []
    for trial, example, answer in zip(trials, silent, answers, strict=True):
        about: dict[str, Any] = {
            "passage": trial.id,
            "document": example.document,
            "sampler": "steered",
            "is_probability": True,
        }
        if isinstance(answer, SteeringAnswer):
            about |= {"fires": answer.truth, "value": answer.probability}
        else:
            about |= {"fires": trial.is_steered_first, "status": "refused", "cause": answer.cause}
        found.append(tested.row("steering", judge.name, None, **about))
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
