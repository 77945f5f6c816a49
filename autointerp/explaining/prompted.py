"""What all explainers that ask an LLM share: prompt, question, reading the answer, one latent at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autointerp.explaining.answers import read_explanation
from autointerp.explanation_records import Explanation, LatentEvidence, Refusal
from autointerp.llm.language_model import Capability, LanguageModel, ask_parsed
from autointerp.llm.requests import Message, Reply, Request

__all__ = ["PromptOptions", "PromptedExplainer", "excerpt_lines"]

ANSWER_ONLY = "Answer with one line and nothing else:\nExplanation: <one sentence>"
THINK_FIRST = (
    "First think aloud in at most 120 words: what the tokens share, what stands before them, how strong "
    "and weak ones differ. Then end with one line:\nExplanation: <one sentence>"
)


@dataclass(frozen=True)
class PromptOptions:
    """How much an explainer shows and how it asks."""

    examples: int = 20
    """Excerpts at most."""
    passage_tokens: int = 32
    """Of an excerpt, around its focus."""
    chain_of_thought: bool = False
    temperature: float = 0.0
    seed: int | None = None
    attempts: int = 2
    """How often it is asked at most, where the reply cannot be read."""
    max_tokens: int | None = None
    """Of a reply; None: 120, with thoughts 500."""


class PromptedExplainer(ABC):
    """Asks once for one sentence. What is the same for all latents comes first, the latent's data last."""

    name: str
    prompt_version: str
    needs: frozenset[Capability] = frozenset({"chat"})

    def __init__(self, model: LanguageModel, options: PromptOptions | None = None) -> None:
        """An explainer that asks this model."""
        self.model = model
        self.options = options or PromptOptions()

    @abstractmethod
    def prefix(self) -> tuple[Message, ...]:
        """Instructions and solved examples: the same for every latent."""

    def solved(self, *instructions: str, shown: str, thought: str, said: str) -> tuple[Message, ...]:
        """A prefix of instructions, how to answer, and one solved unit.

        Args:
            instructions: parts of the system message.
            shown: of the solved unit.
            thought: about it; said only where thinking aloud is asked for.
            said: the line of its explanation.
        """
        thinks = self.options.chain_of_thought
        return (
            Message("system", "\n".join((*instructions, THINK_FIRST if thinks else ANSWER_ONLY))),
            Message("user", shown),
            Message("assistant", f"{thought if thinks else ''}{said}"),
        )

    @abstractmethod
    def data(self, evidence: LatentEvidence) -> str | Refusal:
        """What is shown of the latent."""

    async def explain(self, evidence: LatentEvidence) -> Explanation | Refusal:
        """An explanation of one latent."""
        return await self.candidate(evidence)

    async def candidate(
        self, evidence: LatentEvidence, *, replicate: int = 0, temperature: float | None = None
    ) -> Explanation | Refusal:
        """One of several explanations of a latent.

        Args:
            evidence: what is known of it.
            replicate: which one.
            temperature: instead of the options'.
        """
        data = self.data(evidence)
        if isinstance(data, Refusal):
            return data
        messages = (*self.prefix(), Message("user", data))
        return await self.asked(evidence, messages, replicate=replicate, temperature=temperature)

    async def asked(
        self,
        evidence: LatentEvidence,
        messages: tuple[Message, ...],
        *,
        replicate: int = 0,
        temperature: float | None = None,
    ) -> Explanation | Refusal:
        """The explanation that the model answers these messages with."""
        options = self.options
        request = Request(
            messages=messages,
            max_tokens=options.max_tokens or (500 if options.chain_of_thought else 120),
            may_cut=True,  # small models say more behind the line that was asked for
            temperature=options.temperature if temperature is None else temperature,
            seed=options.seed,
            replicate=replicate,
            metric=f"explaining.{self.name}",
        )
        prompt = "\n".join(message.text for message in messages if message.role != "user")

        def parse(reply: Reply) -> Explanation | Refusal:
            text, is_cut = reply.text, reply.finish_reason == "length"
            if is_cut:
                text = text.rpartition("\n")[0]
            if is_cut and not text.strip():
                return Refusal("cut_off", f"ended at its limit of {request.max_tokens} tokens")
            found = read_explanation(text, prompt=prompt, needs_label=options.chain_of_thought)
            return found if isinstance(found, Refusal) else self._explanation(evidence, reply, found)

        return await ask_parsed(self.model, request, parse, attempts=options.attempts)

    def _explanation(self, evidence: LatentEvidence, reply: Reply, found: tuple[str, str]) -> Explanation:
        text, thoughts = found
        details: dict[str, Any] = {"thoughts": thoughts[:2000]} if thoughts else {}
        return Explanation(
            checkpoint=evidence.checkpoint,
            latent=evidence.latent,
            explainer=self.name,
            text=text,
            prompt_version=self.prompt_version,
            model=reply.model,
            fingerprint=reply.fingerprint,
            details=details,
        )


def excerpt_lines(lines: Sequence[str], *, sign: str = "") -> str:
    """The excerpts, one a line, numbered from 1."""
    return "\n".join(f"{sign}{number}. {line}" for number, line in enumerate(lines, 1))
