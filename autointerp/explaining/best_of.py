"""Several candidates of an explanation; the one that scores best where it is validated is kept."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import isfinite
from typing import Any

from autointerp.explaining.prompted import PromptedExplainer
from autointerp.explanation_records import Explanation, LatentEvidence, Refusal

__all__ = ["BestOf", "ScoreFunction"]

ScoreFunction = Callable[[Explanation], Awaitable[float | None]]
"""How well an explanation does on its latent's validate split, more is better; None where it is not defined.

Never of the score split: what was chosen on it could not be scored on it."""


class BestOf:
    """Asks an explainer `count` times with some temperature, and keeps the candidate of highest score.

    Ties go to the first; candidates without a score lose to those with one. Equal texts are scored once.
    Details hold all candidates with their scores, or why there was none.
    """

    def __init__(
        self,
        explainer: PromptedExplainer,
        score: ScoreFunction,
        *,
        count: int,
        temperature: float = 1.0,
    ) -> None:
        """A wrapper of that explainer, under its name.

        Args:
            explainer: who is asked.
            score: of a candidate, on the validate split.
            count: how many candidates.
            temperature: of all of them; at 0 most models would say the same each time.
        """
        if count < 1 or temperature <= 0:
            raise ValueError("best-of needs at least one candidate and a temperature above 0")
        self.name = explainer.name
        self.prompt_version = f"{explainer.prompt_version}+best_of-{count}"
        self.needs = explainer.needs
        self._explainer = explainer
        self._score = score
        self._count = count
        self._temperature = temperature

    async def explain(self, evidence: LatentEvidence) -> Explanation | Refusal:
        """The best candidate; a refusal, the first one's, only where all refused."""
        scores: dict[str, float | None] = {}
        rows: list[dict[str, Any]] = []
        best: Explanation | None = None
        refusal: Refusal | None = None
        for replicate in range(self._count):
            found = await self._explainer.candidate(
                evidence, replicate=replicate, temperature=self._temperature
            )
            if isinstance(found, Refusal):
                refusal = refusal or found
                rows.append({"refusal": found.cause, "detail": found.detail})
                if found.cause == "no_explanation":
                    break
                continue
            if found.text not in scores:
                scores[found.text] = defined(await self._score(found))
            score = scores[found.text]
            rows.append({"text": found.text} | ({} if score is None else {"score": score}))
            if best is None or is_better(score, scores[best.text]):
                best = found
        if best is None:
            return refusal or Refusal("no_explanation", "no candidate")
        details = {**best.details, "candidates": rows}
        return replace(best, prompt_version=self.prompt_version, details=details)


def defined(score: float | None) -> float | None:
    """The score, or None where it is no number."""
    return score if score is not None and isfinite(score) else None


def is_better(score: float | None, other: float | None) -> bool:
    """Whether the first beats the second; a score beats none."""
    return score is not None and (other is None or score > other)
