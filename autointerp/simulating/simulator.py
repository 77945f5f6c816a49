"""What every simulator and judge does; neither ever sees an activation of what it predicts."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from autointerp.explanation_records import Explanation, Judgement, Passage, Refusal, TokenPrediction
from autointerp.llm.language_model import Capability

__all__ = ["PassageJudge", "TokenSimulator"]


@runtime_checkable
class TokenSimulator(Protocol):
    """Predicts from an explanation how strongly the latent fires on each token."""

    name: str
    prompt_version: str
    needs: frozenset[Capability]

    async def simulate(
        self, explanation: Explanation, passages: Sequence[Passage]
    ) -> list[TokenPrediction | Refusal]:
        """One answer for each passage, in their order."""
        ...


@runtime_checkable
class PassageJudge(Protocol):
    """Predicts from an explanation whether the latent fires in a passage (or: on its marked tokens)."""

    name: str
    prompt_version: str
    needs: frozenset[Capability]
    is_probability: bool
    """Whether `Judgement.value` is the probability of firing, so that 0.5 is where it turns to yes."""

    async def judge(self, explanation: Explanation, passages: Sequence[Passage]) -> list[Judgement | Refusal]:
        """One answer for each passage, in their order."""
        ...
