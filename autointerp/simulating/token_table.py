"""Simulator of token statistics: what the explanation's own table expects of each token; no LLM."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from autointerp.errors import BadInputError
from autointerp.explaining.token_table_data import TokenTable
from autointerp.explaining.token_table_lookup import expected_activations, firing_probabilities
from autointerp.explanation_records import Explanation, Passage, Refusal, TokenPrediction
from autointerp.llm.language_model import Capability

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
        if not explanation.data:
            if explanation.text.strip():
                return [Refusal("no_explanation", "the explanation has no token table")] * len(passages)
            return [TokenPrediction(each.id, np.zeros(len(each.tokens))) for each in passages]
        try:
            table = TokenTable.from_json(explanation.data)
        except BadInputError as fault:
            return [Refusal("unparsable", str(fault))] * len(passages)
        look = firing_probabilities if self.predicts == "probability" else expected_activations
        values = look(table, [each.tokens for each in passages])
        return [TokenPrediction(each.id, own) for each, own in zip(passages, values, strict=True)]
