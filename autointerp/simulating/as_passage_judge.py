"""Any simulator of tokens as a judge of passages: what it expects of the tokens, as one number."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from autointerp.explanation_records import Explanation, Judgement, Passage, Refusal, TokenPrediction
from autointerp.simulating.simulator import TokenSimulator

__all__ = ["SimulatorJudge"]


class SimulatorJudge:
    """Answers the questions of detection and fuzzing from a simulator's expectations v on the tokens.

    detection (does it fire anywhere?): max(v), since one token is enough. If v are probabilities:
    1 - prod(1 - v), the probability that any token fires if they are independent; they are not, so it is too
    sure of long passages, but a maximum would be no probability at all.

    fuzzing (does it fire on the marked tokens?): the mean of v over the marked tokens; of probabilities the
    expected share of them that fire. Unmarked tokens are not asked about and do not count.

    Tokens of which the simulator says nothing (NaN) are left out; a passage without any other is refused.
    """

    def __init__(
        self,
        simulator: TokenSimulator,
        asks: Literal["detection", "fuzzing"],
        *,
        is_probability: bool = False,
    ) -> None:
        """A judge by the simulator's name.

        Args:
            simulator: what predicts.
            asks: which question is answered.
            is_probability: whether its values are probabilities.
        """
        self.name = simulator.name
        self.prompt_version = simulator.prompt_version
        self.needs = simulator.needs
        self.is_probability = is_probability
        self._simulator, self._asks = simulator, asks

    async def judge(self, explanation: Explanation, passages: Sequence[Passage]) -> list[Judgement | Refusal]:
        """One answer for each passage, in their order.

        Raises:
            ValueError: of fuzzing, a passage has no marked tokens.
        """
        if self._asks == "fuzzing" and not all(passage.marked for passage in passages):
            raise ValueError("a passage has no marked tokens")
        predictions = await self._simulator.simulate(explanation, passages)
        return [
            found if isinstance(found, Refusal) else self._judgement(passage, found)
            for passage, found in zip(passages, predictions, strict=True)
        ]

    def _judgement(self, passage: Passage, prediction: TokenPrediction) -> Judgement | Refusal:
        values = prediction.values
        if self._asks == "fuzzing":
            values = values[list(passage.marked)]
        values = values[~np.isnan(values)]
        if not values.size:
            return Refusal("unparsable", "nothing is said of any token that is asked about")
        if self._asks == "fuzzing":
            value = values.mean()
        elif self.is_probability:
            value = 1 - np.prod(1 - values)
        else:
            value = values.max()
        return Judgement(passage.id, float(value))
