"""What simulators and judges that ask an LLM share: options, how an explanation is shown, waiting for all."""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from autointerp.explaining.highlighting import shown
from autointerp.explanation_records import Explanation, Passage, Refusal, TokenPrediction
from autointerp.llm.language_model import LanguageModel
from autointerp.llm.requests import Reply

__all__ = [
    "NO_EXPLANATION",
    "AskOptions",
    "Asking",
    "AskingSimulator",
    "all_of",
    "explanation_line",
    "shuffled",
    "whole_lines",
]

T = TypeVar("T")

NO_EXPLANATION = "(no explanation)"
"""Shown where the explanation has no text, as that of the null `empty`."""


@dataclass(frozen=True)
class AskOptions:
    """How a simulator or judge asks."""

    passages_per_prompt: int = 10
    """Judged together in one request, by judges that can."""
    temperature: float | None = None
    """None: what the suite says of the role that is asked."""
    seed: int | None = None
    """None: likewise."""
    attempts: int = 2
    """How often a question is asked at most, where the reply cannot be read."""
    metric: str | None = None
    """Whose account the cost is booked on; None: the score that the method is for."""


class Asking:
    """Asks a model, with options."""

    def __init__(self, model: LanguageModel, options: AskOptions | None = None) -> None:
        """Who is asked, and how."""
        self.model = model
        self.options = options or AskOptions()


class AskingSimulator(Asking, ABC):
    """A token simulator that looks at one passage after the other."""

    async def simulate(
        self, explanation: Explanation, passages: Sequence[Passage]
    ) -> list[TokenPrediction | Refusal]:
        """One answer for each passage, in their order."""
        return await all_of(self._simulate(explanation, passage) for passage in passages)

    @abstractmethod
    async def _simulate(self, explanation: Explanation, passage: Passage) -> TokenPrediction | Refusal:
        """The answer for one passage."""


def explanation_line(explanation: Explanation) -> str:
    """The explanation on one line, which it cannot leave: an LLM wrote it, and may have been told to."""
    text = shown(explanation.text.strip())
    return f"Explanation: {text or NO_EXPLANATION}"


def shuffled(seed: str, passages: Sequence[Passage]) -> list[int]:
    """An order at random that hangs on the seed and on what the passages are, not on how they come.

    Callers have firing and silent passages in blocks; those would be told apart by their place in the prompt.
    """

    def key(place: int) -> tuple[bytes, str]:
        passage = passages[place]
        content = "\0".join((seed, passage.id, *map(str, passage.marked), passage.text))
        return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest(), passage.id

    return sorted(range(len(passages)), key=key)


def whole_lines(reply: Reply) -> str:
    """The reply's text; without its last line where it ended at its limit: a 1 may be a 10's beginning."""
    is_cut = reply.finish_reason == "length"
    return reply.text.rpartition("\n")[0] if is_cut else reply.text


async def all_of(questions: Iterable[Awaitable[T]]) -> list[T]:
    """All answers in order. The first exception is raised when none of the others is under way any more."""
    found = await asyncio.gather(*questions, return_exceptions=True)
    for answer in found:
        if isinstance(answer, BaseException):
            raise answer
    return found  # type: ignore[return-value]
