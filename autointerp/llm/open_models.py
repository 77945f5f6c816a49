"""A suite's `[llm]` section -> the models of its roles, sharing limits, budget and the kept answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2

from autointerp.errors import EndpointError, SuiteError
from autointerp.explanation_sections import LlmSection, PriceSection
from autointerp.llm.batch_api import BatchApi
from autointerp.llm.batch_sender import BatchSender
from autointerp.llm.capabilities import Measured
from autointerp.llm.client import OpenAIClient
from autointerp.llm.clock import REAL_CLOCK, Clock
from autointerp.llm.cost_report import cost_report
from autointerp.llm.endpoint_model import EndpointModel, InProcessModel, RoleDefaults
from autointerp.llm.kept_answers import KeptAnswers, Standing
from autointerp.llm.language_model import LanguageModel, ModelIdentity
from autointerp.llm.limits import ConcurrencyLimit, RateLimit
from autointerp.llm.measuring import MOST_TOKENS_OF_MEASURING, measure
from autointerp.llm.prices import usd
from autointerp.llm.response_cache import ResponseCache
from autointerp.llm.retrying import Retries, Sender
from autointerp.llm.secrecy import endpoint_name
from autointerp.llm.spending import Ledger

__all__ = ["ROLES", "OpenModels", "Role", "check_endpoint", "open_models"]

Role = Literal["explainer", "simulator", "judge"]

ROLES: tuple[Role, ...] = ("explainer", "simulator", "judge")

_GRACE_SECONDS = 10.0
"""How long answers that are under way are waited for after the user stopped the run."""
_VERSION = 3
"""Of what is measured; endpoints are measured anew when it changes."""


@dataclass(frozen=True, eq=False)
class OpenModels(Mapping[Role, LanguageModel]):
    """Models by role: `models["judge"].ask(request)`. They share one budget and one file of answers."""

    models: Mapping[Role, LanguageModel]
    kept: KeptAnswers
    settings: Mapping[Role, Mapping[str, Any]] = field(default_factory=dict)
    """Temperature and seed of each role."""

    def __getitem__(self, role: Role) -> LanguageModel:
        """The model that plays a role."""
        return self.models[role]

    def __iter__(self) -> Iterator[Role]:
        """Roles, in order."""
        return iter(self.models)

    def __len__(self) -> int:
        """How many roles are played."""
        return len(self.models)

    @property
    def standing(self) -> Standing:
        """How far the sitting is."""
        return self.kept.standing

    def cost_report(self) -> dict[str, Any]:
        """What was asked and paid so far, earlier sittings included: see `cost_report.cost_report`."""
        return cost_report(self.kept.cache, self.kept.ledger, self.kept.from_cache, self.kept.tally)

    def judges(self) -> list[dict[str, Any]]:
        """Who answered, JSON-able: a row per role, model, and name and fingerprint that it answered with.

        Of what was asked since the models were opened, kept answers included; not of other answers that the
        file holds. Scores of an LLM are comparable only between runs that agree in these rows, `calls` aside.
        """
        rows = self.kept.tally.answerers()
        return [row | dict(self.settings.get(row["role"], {})) for row in rows]


_ROUNDS_AT_ONCE = 4
"""Times what may be under way: enough that nobody waits for a question to be looked up."""


@contextlib.asynccontextmanager
async def open_models(
    section: LlmSection,
    cache_path: Path,
    *,
    roles: Sequence[Role] = ROLES,
    device: str = "auto",
    listen: Callable[[Standing], None] | None = None,
    clock: Clock = REAL_CLOCK,
    http_client: httpx2.AsyncClient | None = None,
) -> AsyncIterator[OpenModels]:
    """Open the models of a run; leaving waits for the answers that are under way, and keeps them.

    An endpoint is measured when it is opened for the first time; the findings are kept with the answers.

    Args:
        section: whom to ask; its `model` or every role's must be given.
        cache_path: the run's `llm_replies.sqlite`; made if it is not there.
        roles: those that will be asked; only theirs are measured.
        device: for `base_url = "local"`.
        listen: called after each answer with how far the run is (calls, spend, time).
        clock: time, for tests.
        http_client: how to send, for tests.

    Raises:
        SuiteError: no model is named, or a budget in dollars without a price.
        EndpointError: it cannot be used, or, offline, was never measured.
        RunStoreError: `cache_path` is no file of answers, or is damaged.
    """
    players = {role: _Player.of(section, role) for role in roles}
    if section.offline and not cache_path.exists():
        remedy = "run once without --offline"
        raise EndpointError("offline, and there are no kept answers", where=cache_path, remedy=remedy)
    async with contextlib.AsyncExitStack() as stack:
        cache = stack.enter_context(ResponseCache(cache_path, read_only=section.offline))
        opening = _Opening(section, cache, listen=listen, clock=clock, http_client=http_client)
        for player in players.values():
            opening.ledger.require_price(player.model)
        stack.push_async_callback(opening.close)
        models = {role: await opening.model(role, player, device=device) for role, player in players.items()}
        settings = {
            role: {"temperature": player.defaults.temperature, "seed": player.defaults.seed}
            for role, player in players.items()
        }
        opened = OpenModels(models, opening.kept, settings)
        try:
            yield opened
        except asyncio.CancelledError:
            await opening.drain(_GRACE_SECONDS)
            raise
        finally:
            await opening.drain(section.timeout_seconds)


async def check_endpoint(
    section: LlmSection, *, roles: Sequence[Role] = ROLES, http_client: httpx2.AsyncClient | None = None
) -> list[dict[str, str]]:
    """What the endpoints and models of a section really do: rows as of `Measured.rows`.

    Nothing is kept. A row that says no is no failure: methods that need it will say so.

    Raises:
        SuiteError: no model is named.
        EndpointError: an endpoint cannot be used at all (exit code 2).
    """
    players = {_Player.of(section, role) for role in roles}
    rows: list[dict[str, str]] = []
    asked: set[tuple[str, str]] = set()
    for player in sorted(players, key=lambda player: (player.base_url, player.model)):
        if player.base_url == "local":
            raise EndpointError("a local model is no endpoint to check", where="llm.base_url")
        client = player.client(section, http_client=http_client)
        try:
            if (client.endpoint, player.model) not in asked:
                asked.add((client.endpoint, player.model))
                measured, _ = await measure(client, player.model)
                rows.extend(measured.rows())
        finally:
            await client.close()
    return rows


@dataclass(frozen=True)
class _Player:
    """What plays a role."""

    base_url: str
    model: str
    api_key_env: str
    defaults: RoleDefaults

    @classmethod
    def of(cls, section: LlmSection, role: Role) -> "_Player":
        settings = section.role(role)
        if not settings["model"]:
            remedy = "name one, e.g. --set llm.model=gpt-4o-mini"
            raise SuiteError(f"no model is named for the {role}", where="llm.model", remedy=remedy)
        if not settings["model"].isprintable():
            raise SuiteError(f"the name of the {role}'s model holds what is no text", where="llm.model")
        defaults = RoleDefaults(settings["temperature"], settings["seed"])
        return cls(settings["base_url"], settings["model"], settings["api_key_env"], defaults)

    def client(
        self, section: LlmSection, *, clock: Clock = REAL_CLOCK, http_client: httpx2.AsyncClient | None = None
    ) -> OpenAIClient:
        return OpenAIClient(
            self.base_url,
            api_key_env=self.api_key_env,
            timeout_seconds=section.timeout_seconds,
            clock=clock,
            http_client=http_client,
        )


class _Opening:
    """What is shared while models are opened, and closed after them."""

    def __init__(
        self,
        section: LlmSection,
        cache: ResponseCache,
        *,
        listen: Callable[[Standing], None] | None,
        clock: Clock,
        http_client: httpx2.AsyncClient | None,
    ) -> None:
        self._section = section
        self._cache = cache
        self._clock = clock
        self._http_client = http_client
        self.ledger = _ledger(section, cache)
        self.kept = KeptAnswers(cache, self.ledger, offline=section.offline, listen=listen)
        self._senders: dict[tuple[str, str], Sender | BatchSender] = {}
        self._local: dict[str, Any] = {}
        self._measured: dict[tuple[str, str], Measured] = {}

    async def model(self, role: Role, player: _Player, *, device: str) -> LanguageModel:
        if player.base_url == "local":
            local = self._local_model(player.model, device)
            identity = ModelIdentity(role, local.name, "local")
            return InProcessModel(identity, local, self.kept, defaults=player.defaults)
        endpoint = endpoint_name(player.base_url)
        sender = None if self._section.offline else self._sender(player)
        measured = self._measured.get((endpoint, player.model))
        if measured is None:
            measured = await self._find_out(endpoint, player.model, role, sender)
            self._measured[endpoint, player.model] = measured
        identity = ModelIdentity(role, player.model, endpoint)
        # A batch needs all that is asked; one at a time, the endpoint's own limit is what holds them back.
        is_single = isinstance(sender, Sender)
        most = _ROUNDS_AT_ONCE * self._section.concurrency if is_single else None
        return EndpointModel(
            identity, measured, self.kept, sender, defaults=player.defaults, most_at_once=most
        )

    async def drain(self, seconds: float) -> None:
        """Keep what is on the wire; what is not is let go."""
        for sender in self._senders.values():
            sender.stop_sending()
        await self.kept.drain(self._is_on_the_wire, seconds=seconds)

    async def close(self) -> None:
        for sender in self._senders.values():
            await sender.close()
        for model in self._local.values():
            model.close()

    def _is_on_the_wire(self, task: object) -> bool:
        return any(task in sender.on_the_wire for sender in self._senders.values())

    def _sender(self, player: _Player) -> Sender | BatchSender:
        name = (endpoint_name(player.base_url), player.api_key_env)
        if name not in self._senders:
            client = player.client(self._section, clock=self._clock, http_client=self._http_client)
            self._senders[name] = self._batches(client) if self._section.batch else self._singly(client)
        return self._senders[name]

    def _batches(self, client: OpenAIClient) -> BatchSender:
        api = BatchApi(client, retries=Retries(self._section.attempts), clock=self._clock)
        return BatchSender(api, self.ledger, self._cache, clock=self._clock)

    def _singly(self, client: OpenAIClient) -> Sender:
        section, clock = self._section, self._clock
        requests, tokens = section.requests_per_minute, section.tokens_per_minute
        return Sender(
            client,
            self.ledger,
            self._cache,
            concurrency=ConcurrencyLimit(section.concurrency, clock=clock),
            requests_per_minute=None if requests is None else RateLimit(requests, clock=clock),
            tokens_per_minute=None if tokens is None else RateLimit(tokens, clock=clock),
            retries=Retries(section.attempts),
            clock=clock,
        )

    def _local_model(self, model: str, device: str) -> Any:
        if model not in self._local:
            from autointerp.llm.local_model import LocalModel

            self._local[model] = LocalModel(model, device=device)
        return self._local[model]

    async def _find_out(
        self, endpoint: str, model: str, role: Role, sender: Sender | BatchSender | None
    ) -> Measured:
        """What was found when the run was begun, else now."""
        name = f"measured {_VERSION} {endpoint} {model}"
        found = self._cache.fact(name)
        if found is not None:
            return Measured.from_json(found)
        if sender is None:
            remedy = "run once without --offline"
            raise EndpointError(f"offline, and {model} was never measured", where=endpoint, remedy=remedy)
        held = await self.ledger.hold_usage(model, MOST_TOKENS_OF_MEASURING)
        measured, usage = await measure(sender.client, model, clock=self._clock)
        dollars = usd(self.ledger.price(model), usage)
        self.ledger.settle(held, usage, dollars)
        await self._cache.add_loss((model, role, "capabilities"), "measuring", usage, usd=dollars)
        await self._cache.set_fact(name, measured.to_json())
        return measured


def _ledger(section: LlmSection, cache: ResponseCache) -> Ledger:
    """What is left to spend; a model in this process costs nothing."""
    prices = dict(section.prices)
    for role in ROLES:
        settings = section.role(role)
        if settings["base_url"] == "local" and settings["model"]:
            free, folder = PriceSection(input=0, output=0), Path(settings["model"]).expanduser()
            prices[settings["model"]] = free
            if folder.is_dir():  # results name its last part
                prices.setdefault(folder.name, free)
    return Ledger(
        prices,
        budget_usd=section.budget_usd,
        budget_tokens=section.budget_tokens,
        earlier=[*cache.totals(), *cache.losses()],
    )
