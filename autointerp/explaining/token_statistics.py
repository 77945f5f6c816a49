"""Explains a latent without an LLM, by the tokens on which it fires and those before them."""

from dataclasses import asdict

from autointerp.explaining.token_counts import counted
from autointerp.explaining.token_patterns import best_patterns
from autointerp.explaining.token_table_fit import fitted_table
from autointerp.explaining.token_wording import worded
from autointerp.explanation_records import Explanation, LatentEvidence, Refusal
from autointerp.llm.language_model import Capability

__all__ = ["TokenStatistics"]


class TokenStatistics:
    """A sentence for people and, as `data`, the table that predicts activations (`TokenTable.to_json`).

    Both are made from the explain split's examples, weighted so that probabilities hold of text as it comes.
    What a token and the two before it do not tell, it cannot find: that a text is about music, or that a line
    began with `#`. Cost: about 10 ms a latent and 5 kB of table.
    """

    name = "token_statistics"
    prompt_version = ""
    needs: frozenset[Capability] = frozenset()

    async def explain(self, evidence: LatentEvidence) -> Explanation | Refusal:
        """The sentence and the table; a refusal where the latent fires in no example."""
        counts = counted(evidence)
        if counts.firing_places == 0:
            return Refusal(
                "no_explanation", "no context to explain it from: it fires in none of the explain split"
            )
        patterns = best_patterns(counts)
        return Explanation(
            checkpoint=evidence.checkpoint,
            latent=evidence.latent,
            explainer=self.name,
            text=worded(patterns, counts),
            data=fitted_table(counts, scale=evidence.maximum).to_json(),
            details={
                "firing_places": counts.firing_places,
                "patterns": [asdict(pattern) for pattern in patterns],
            },
        )
