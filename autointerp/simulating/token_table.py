"""Simulator of token statistics: what the explanation's own table expects of each token; no LLM."""

from collections.abc import Sequence
from typing import Literal

from autointerp.explaining.token_table_data import TokenTable
from autointerp.explaining.token_table_lookup import expected_activations, firing_probabilities
from autointerp.explanation_records import Explanation, Passage, Refusal, TokenPrediction
from autointerp.llm.language_model import Capability
from autointerp.simulating.from_data import predicted_from_data

__all__ = ["TokenTableSimulator"]


class TokenTableSimulator:
    """Predicts from the table in `Explanation.data`.

    An explanation without text and data (the null `empty`) is a table without cells: it expects 0 everywhere.
    One with text and without a table, as an LLM's, is refused.
    """

    name = "token_table"
    prompt_version = ""
    needs: frozenset[Capability] = frozenset()

    def __init__(self, *, predicts: Literal["activation", "probability"] = "activation") -> None:
        """A simulator.

        Args:
            predicts: the expected |activation|, raw, or the probability of firing.
        """
        self.predicts = predicts

    async def simulate(
        self, explanation: Explanation, passages: Sequence[Passage]
    ) -> list[TokenPrediction | Refusal]:
        """One answer for each passage, in their order."""
        look = firing_probabilities if self.predicts == "probability" else expected_activations
        return predicted_from_data(
            explanation, passages, what="token table", read=TokenTable.from_json, expect=look
        )
