"""A model of one role: its kept answers first, then the endpoint or the model in this process."""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.capabilities import Measured
from autointerp.llm.kept_answers import KeptAnswers
from autointerp.llm.language_model import Capability, ModelIdentity
from autointerp.llm.outcomes import Outcome
from autointerp.llm.requests import Reply, Request
from autointerp.llm.retrying import Account
from autointerp.llm.wire_format import Dialect

__all__ = ["Answering", "EndpointModel", "InProcessModel", "RoleDefaults", "Sending"]


@runtime_checkable
class Sending(Protocol):
    """Gets a request answered by an endpoint: one at a time, or in batches."""

    is_batch: bool
    """Whether the batch price holds."""

    async def send(self, request: Request, account: Account, dialect: Dialect) -> Outcome:
        """The answer with its bill, or the refusal `failed_request`."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A model in this process."""

    @property
    def name(self) -> str:
        """As it is called in results; no path of this machine."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of all that its answers hang on."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""
        ...

    async def answer(self, request: Request) -> Reply | Refusal:
        """The answer, or why there is none."""
        ...


@dataclass(frozen=True)
class RoleDefaults:
    """What holds for a role's requests that do not say it themselves."""

    temperature: float = 0.0
    seed: int | None = None

    def applied_to(self, request: Request) -> Request:
        """The request as it is asked and kept; a replicate has a seed of its own, not to repeat the first."""
        seed = request.seed
        if seed is None and self.seed is not None:
            seed = self.seed + request.replicate
        temperature = self.temperature if request.temperature is None else request.temperature
        temperature = max(temperature, request.least_temperature)
        if seed == request.seed and temperature == request.temperature:
            return request
        return replace(request, seed=seed, temperature=temperature)


class EndpointModel:
    """A `LanguageModel` behind an OpenAI-compatible endpoint.

    Requests go out in the order in which they are asked: ask those that begin alike one after another, and a
    provider that caches prompts by their beginning charges less for them.
    """

    def __init__(
        self,
        identity: ModelIdentity,
        measured: Measured,
        kept: KeptAnswers,
        sending: Sending | None,
        *,
        defaults: RoleDefaults | None = None,
        most_at_once: int | None = None,
    ) -> None:
        """`sending` None: only kept answers are given.

        `most_at_once`: how many questions are looked up or under way at a time, the others waiting as they
        came. Of thousands that are asked together the first are sent before the last was looked up.
        """
        self.measured = measured
        self._turns = contextlib.nullcontext() if most_at_once is None else asyncio.Semaphore(most_at_once)
        self._capabilities, self._dialect = measured.capabilities, measured.dialect
        self._identity = identity
        self._kept = kept
        self._sending = sending
        self._defaults = defaults or RoleDefaults()

    @property
    def identity(self) -> ModelIdentity:
        """Who it is."""
        return self._identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it was measured to do."""
        return self._capabilities

    async def ask(self, request: Request) -> Reply | Refusal:
        """The kept answer, else the endpoint's.

        A request for log-probabilities that the endpoint was measured not to give is refused unsent.

        Raises:
            BudgetReachedError: the next request could cost more than is left.
            EndpointError: nothing asked there can succeed; it does no such requests; offline, and not kept.
        """
        asked = self._defaults.applied_to(request)
        refusal = self._unsendable(asked)
        if refusal is not None:
            return refusal
        is_batch = self._sending is not None and self._sending.is_batch
        async with self._turns:
            return await self._kept.answer(
                asked, self._identity, lambda: self._sent(asked), is_batch=is_batch
            )

    async def _sent(self, request: Request) -> Outcome:
        if self._sending is None:
            raise EndpointError("nothing is asked offline", where=self._identity.endpoint)
        account = Account(self._identity.model, self._identity.role, request.metric)
        return await self._sending.send(request, account, self._dialect)

    def _unsendable(self, request: Request) -> Refusal | None:
        able = self._capabilities
        kind: Capability = "chat" if request.messages else "completions"
        if kind not in able:
            remedy = "see `autointerp check-endpoint`"
            raise EndpointError(f"was measured to do no {kind}", where=self._identity.endpoint, remedy=remedy)
        if request.echo and "echo" not in able:
            return Refusal("missing_logprobs", "the endpoint was measured to give none of a prompt")
        if request.messages and request.top_logprobs is not None and "logprobs" not in able:
            return Refusal("missing_logprobs", "the endpoint was measured to give none of a reply")
        return None


class InProcessModel:
    """A `LanguageModel` in this process, with the same file of answers and accounts; it costs nothing."""

    def __init__(
        self,
        identity: ModelIdentity,
        model: Answering,
        kept: KeptAnswers,
        *,
        defaults: RoleDefaults | None = None,
    ) -> None:
        """`model` answers what is not kept."""
        self._identity = identity
        self._model = model
        self._kept = kept
        self._defaults = defaults or RoleDefaults()

    @property
    def identity(self) -> ModelIdentity:
        """Who it is."""
        return self._identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""
        return self._model.capabilities

    async def ask(self, request: Request) -> Reply | Refusal:
        """The kept answer, else the model's."""
        asked = self._defaults.applied_to(request)
        # Other weights under the same name are another model: their answers are not this one's.
        kept_as = replace(self._identity, endpoint=f"{self._identity.endpoint} {self._model.fingerprint}")
        return await self._kept.answer(asked, kept_as, lambda: self._answered(asked))

    async def _answered(self, request: Request) -> Outcome:
        answer = await self._model.answer(request)
        if isinstance(answer, Refusal):
            return Outcome(answer, model=self._model.name, fingerprint=self._model.fingerprint)
        return Outcome(answer, answer.usage, answer.model, answer.fingerprint)
