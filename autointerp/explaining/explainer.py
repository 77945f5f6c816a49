"""What every explainer does."""

from typing import Protocol, runtime_checkable

from autointerp.explanation_records import Explanation, LatentEvidence, Refusal
from autointerp.llm.language_model import Capability

__all__ = ["Explainer"]


@runtime_checkable
class Explainer(Protocol):
    """Says what a latent means. An LLM, if it needs one, is handed to its constructor."""

    name: str
    prompt_version: str
    """Changes with every change of its prompts; empty without an LLM."""
    needs: frozenset[Capability]
    """Of its LLM; empty without one."""

    async def explain(self, evidence: LatentEvidence) -> Explanation | Refusal:
        """An explanation of one latent."""
        ...
