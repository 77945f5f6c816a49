"""What explainers, simulators and judges ask: one protocol, whatever stands behind it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar, runtime_checkable

from autointerp.explanation_records import Refusal
from autointerp.llm.requests import Reply, Request

__all__ = ["SECOND_TEMPERATURE", "Capability", "LanguageModel", "ModelIdentity", "ask_parsed", "lacking"]

T = TypeVar("T")

SECOND_TEMPERATURE = 0.5
"""At least so warm is asked again what could not be read: at 0 many servers would say the same once more."""

Capability = Literal[
    "chat",  # /chat/completions
    "completions",  # /completions
    "logprobs",  # log-probabilities of the tokens of a chat reply
    "top_logprobs",  # and of their alternatives
    "echo",  # log-probabilities of a prompt's tokens, with alternatives (completions)
    "json_schema",  # replies obey a given schema
    "json_object",  # replies are some JSON object
    "seed",
    "n",
]


@dataclass(frozen=True)
class ModelIdentity:
    """Who judges: two scores are comparable only if these agree."""

    role: Literal["explainer", "simulator", "judge"]
    model: str
    """As configured."""
    endpoint: str
    """Address without credentials; `local` for a model in this process."""


@runtime_checkable
class LanguageModel(Protocol):
    """Answers requests. Many may be asked at once; it keeps to its own limits and budget."""

    @property
    def identity(self) -> ModelIdentity:
        """Who it is."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it was measured to do."""
        ...

    async def ask(self, request: Request) -> Reply | Refusal:
        """The answer, or why there is none.

        Raises:
            BudgetReachedError: the next request could cost more than is left.
            EndpointError: nothing that is asked there can succeed (no such host, wrong key, no such model).
        """
        ...


def lacking(model: LanguageModel, needed: frozenset[Capability]) -> list[Capability]:
    """What a method needs and the model was measured not to do, in alphabetical order."""
    return sorted(needed - model.capabilities)


async def ask_parsed(
    model: LanguageModel, request: Request, parse: Callable[[Reply], T | Refusal], *, attempts: int = 2
) -> T | Refusal:
    """The first answer that can be read; asked again, as another replicate and warmer, where it cannot.

    Warmer: at `SECOND_TEMPERATURE`, unless the temperature is higher already.

    A content filter's or a failed request's refusal is final: asking again costs and changes nothing.

    Args:
        model: who is asked.
        request: what.
        parse: reads a reply, or says why it cannot be read.
        attempts: how often at most.
    """
    refusal = Refusal("empty", "not asked")
    for attempt in range(attempts):
        least = max(request.least_temperature, SECOND_TEMPERATURE if attempt else 0.0)
        replicate = request.replicate * attempts + attempt
        answer = await model.ask(replace(request, replicate=replicate, least_temperature=least))
        found = answer if isinstance(answer, Refusal) else parse(answer)
        if not isinstance(found, Refusal):
            return found
        refusal = found
        if refusal.cause in ("content_filter", "failed_request", "too_long"):
            break
    return refusal
