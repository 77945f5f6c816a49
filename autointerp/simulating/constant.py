"""The constant judge, a null: it knows nothing and always says no."""

from collections.abc import Sequence

from autointerp.explanation_records import Explanation, Judgement, Passage, Refusal
from autointerp.llm.language_model import Capability

__all__ = ["ConstantJudge"]


class ConstantJudge:
    """Says the same of every passage; what a score makes of it is what no knowledge is worth (AUROC 0.5)."""

    name = "constant"
    prompt_version = ""
    needs: frozenset[Capability] = frozenset()
    is_probability = True

    def __init__(self, value: float = 0.0) -> None:
        """A judge.

        Args:
            value: the probability that it says, from 0 (always no) to 1 (always yes).
        """
        self._value = value

    async def judge(self, explanation: Explanation, passages: Sequence[Passage]) -> list[Judgement | Refusal]:
        """One answer for each passage, in their order."""
        del explanation
        return [Judgement(passage.id, self._value) for passage in passages]
