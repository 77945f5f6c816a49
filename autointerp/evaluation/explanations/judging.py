"""Explanations + passages -> predictions beside the truth, whoever predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autointerp.evaluation.explanations.questions import Question
from autointerp.explanation_records import Explanation, Judgement, Refusal, TokenPrediction
from autointerp.sampling.latents.evidence import LatentCase
from autointerp.scoring.predictions import ScoredPassage
from autointerp.simulating.simulator import PassageJudge, TokenSimulator

__all__ = ["Tested", "judged", "refused", "simulated"]


@dataclass(frozen=True, eq=False)
class Tested:
    """What is tested: an explanation (or the lack of one) of a latent, and in which part of the run."""

    case: LatentCase
    explainer: str
    kind: str
    """own, or the null: borrowed, empty."""
    explanation: Explanation | Refusal

    def row(self, method: str, judge: str, question: Question | None, **given: Any) -> ScoredPassage:
        """A row about one question, or about the lack of any."""
        evidence = self.case.evidence
        about: dict[str, Any] = {"passage": ""}
        if question is not None:
            example = question.example
            about = {
                "passage": question.passage.id,
                "document": example.document,
                "sampler": example.sampler,
                "stratum": example.stratum,
                "fires": question.fires,
                "weight": example.weight,
            }
        return ScoredPassage(
            checkpoint=evidence.checkpoint,
            latent=evidence.latent,
            latent_id=evidence.id,
            sampling_weight=self.case.sampling_weight,
            explainer=self.explainer,
            explanation=self.kind,  # type: ignore[arg-type]
            method=method,
            judge=judge,
            **about | given,
        )


async def judged(
    tested: Tested, judge: PassageJudge, method: str, questions: Sequence[Question]
) -> list[ScoredPassage]:
    """What a judge says of each question; without an explanation every question is refused."""
    explanation = tested.explanation
    if isinstance(explanation, Refusal) or not questions:
        return _unasked(tested, method, judge.name, questions)
    answers = await judge.judge(explanation, [question.passage for question in questions])
    rows = []
    for question, answer in zip(questions, answers, strict=True):
        given: dict[str, Any] = {"is_probability": judge.is_probability}
        if isinstance(answer, Judgement):
            given["value"] = answer.value
        else:
            given |= {"status": "refused", "cause": answer.cause}
        rows.append(tested.row(method, judge.name, question, **given))
    return rows


async def simulated(
    tested: Tested, simulator: TokenSimulator, method: str, questions: Sequence[Question]
) -> list[ScoredPassage]:
    """What a simulator expects of each token."""
    explanation = tested.explanation
    if isinstance(explanation, Refusal) or not questions:
        return _unasked(tested, method, simulator.name, questions)
    answers = await simulator.simulate(explanation, [question.passage for question in questions])
    return [
        tested.row(method, simulator.name, question, **_simulation(question, answer))
        for question, answer in zip(questions, answers, strict=True)
    ]


def _simulation(question: Question, answer: TokenPrediction | Refusal) -> dict[str, Any]:
    given: dict[str, Any] = {"truth": _strengths(question)}
    if isinstance(answer, Refusal):
        return given | {"status": "refused", "cause": answer.cause}
    return given | {"predicted": tuple(np.asarray(answer.values, dtype=np.float64).tolist())}


def _unasked(tested: Tested, method: str, judge: str, questions: Sequence[Question]) -> list[ScoredPassage]:
    """What is said where there is no explanation to test, or nothing to test it on."""
    if isinstance(tested.explanation, Refusal):
        return refused(tested, method, judge, questions)
    return [tested.row(method, judge, None, status="undefined", cause="no passages to ask about")]


def refused(tested: Tested, method: str, judge: str, questions: Sequence[Question]) -> list[ScoredPassage]:
    """Every question that would have been asked, had there been an explanation."""
    why = {"status": "refused", "cause": "no_explanation"}
    if not questions:
        return [tested.row(method, judge, None, **why)]
    return [tested.row(method, judge, question, truth=_strengths(question), **why) for question in questions]


def _strengths(question: Question) -> tuple[float, ...]:
    """|activation| of each token: simulators and tables expect strengths, which have no sign.

    Else the right explanation of a latent that fires with negative activations would have correlation -1.
    """
    return tuple(map(abs, question.example.activations))
