"""A language model in this process: answers requests without a server, with exact log-probabilities."""

from pathlib import Path

from autointerp.explanation_records import Refusal
from autointerp.llm.language_model import Capability
from autointerp.llm.requests import Reply, Request

__all__ = ["LocalModel"]


class LocalModel:
    """A causal language model of transformers, loaded from safetensors; no code that comes with it is run."""

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch_tokens: int = 16384,
        prefix_cache_bytes: int = 2**29,
    ) -> None:
        """Load it.

        Args:
            model: a folder, or a name on the hub.
            device: where to compute; `auto`: an accelerator if there is one.
            dtype: what to compute in, e.g. `bfloat16`; `auto`: float32 on a CPU, else as stored.
            max_batch_tokens: keys and values of so many tokens are held at once.
            prefix_cache_bytes: bound of what is kept for prompts that begin like earlier ones.

        Raises:
            EndpointError: there is no such model, or it is damaged or of no use.
        """
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The model's name on the hub, or its folder's."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Of configuration, weights and tokenizer, and of the precision it computes in."""
        raise NotImplementedError

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Chat, completions, log-probabilities with alternatives, echo and seed."""
        raise NotImplementedError

    async def answer(self, request: Request) -> Reply | Refusal:
        """The answer, or why there is none."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the thread that computes."""
        raise NotImplementedError
