"""Requests go out together as batches, at half the price; a run that was killed picks its batches up."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from autointerp.errors import AutointerpError, EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.batch_api import BatchApi, LineAnswer, read_line
from autointerp.llm.client import OpenAIClient
from autointerp.llm.clock import REAL_CLOCK, Clock
from autointerp.llm.outcomes import NOTHING_USED, Failure, Outcome
from autointerp.llm.prices import most_used, usd
from autointerp.llm.requests import Request, request_key
from autointerp.llm.response_cache import ResponseCache
from autointerp.llm.retrying import Account
from autointerp.llm.spending import Ledger, Reservation
from autointerp.llm.wire_format import Dialect, body_of, path_of

__all__ = ["BatchPace", "BatchSender"]

_NOT_SENT = "not-sent-"
_REMEDY = "set llm.batch = false to ask without it"


@dataclass(frozen=True)
class BatchPace:
    """When a batch is full, and how often it is looked at."""

    idle_seconds: float = 5.0
    """A batch goes out when nothing more was asked for so long."""
    most_lines: int = 20_000
    """OpenAI takes 50,000 and 200 MB."""
    first_look_seconds: float = 5.0
    """Doubles up to `longest_look_seconds`."""
    longest_look_seconds: float = 60.0
    rounds: int = 3
    """How often a line that came back without an answer is sent at most."""


@dataclass(eq=False)
class _Line:
    """One request that waits for its answer."""

    key: str
    request: Request
    account: Account
    dialect: Dialect
    answer: "asyncio.Future[Outcome]"
    rounds: int = 0
    held: Reservation | None = None

    @property
    def group(self) -> tuple[str, str]:
        """A batch is of one path and one model."""
        return path_of(self.request), self.account.model


class BatchSender:
    """Gets requests answered through an endpoint's batch interface.

    Before a batch is started, what it holds is noted in the file of answers; its id is noted after. A run
    that was killed in between finds it by its mark. A batch is forgotten when all its answers are kept.
    """

    is_batch = True

    def __init__(
        self,
        api: BatchApi,
        ledger: Ledger,
        cache: ResponseCache,
        *,
        pace: BatchPace | None = None,
        clock: Clock = REAL_CLOCK,
    ) -> None:
        """Nothing is sent yet."""
        self.api = api
        self._ledger = ledger
        self._cache = cache
        self._pace = pace or BatchPace()
        self._clock = clock
        self._waiting: list[_Line] = []
        self._collector: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._earlier: dict[str, asyncio.Task[dict[str, LineAnswer] | str]] | None = None
        self._opening = asyncio.Lock()

    async def send(self, request: Request, account: Account, dialect: Dialect) -> Outcome:
        """The answer, when the batch that it is in is done.

        Raises:
            BudgetReachedError: it could cost more than is left.
            EndpointError: the batch interface cannot be used.
        """
        key = request_key(self.api.client.endpoint, account.model, request)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        line = _Line(key, request, account, dialect, future)
        earlier = (await self._picked_up()).get(key)
        if earlier is not None:
            answers = await asyncio.shield(earlier)
            if self._settle(line, None if isinstance(answers, str) else answers.get(key)):
                return await future
        self._wait_for_batch(line)
        return await future

    @property
    def client(self) -> OpenAIClient:
        """The endpoint."""
        return self.api.client

    @property
    def on_the_wire(self) -> frozenset[object]:
        """Nothing need be waited for: what a batch brings is fetched by the next sitting."""
        return frozenset()

    def stop_sending(self) -> None:
        """Nothing to do: see `on_the_wire`."""

    async def close(self) -> None:
        """Let go; batches that are under way stay noted, and are picked up by the next sitting."""
        collecting = [] if self._collector is None else [self._collector]
        tasks: set[asyncio.Future[Any]] = {*self._running, *(self._earlier or {}).values(), *collecting}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(AutointerpError):
            await self._forget_kept()
        await self.api.client.close()

    def _wait_for_batch(self, line: _Line) -> None:
        self._waiting.append(line)
        if self._collector is None or self._collector.done():
            self._collector = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        """Send what waits as soon as nothing is added any more."""
        while self._waiting:
            size = -1
            while size != len(self._waiting) < self._pace.most_lines:
                size = len(self._waiting)
                await self._clock.sleep(self._pace.idle_seconds)
            lines = self._affordable()
            if not lines and self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for group in _grouped(lines):
                task = asyncio.create_task(self._run(group))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    def _affordable(self) -> list[_Line]:
        """Take those whose worst cost there is room for; those that will never have room are told."""
        taken, left = [], []
        for line in self._waiting:
            if len(taken) >= self._pace.most_lines:
                left.append(line)
                continue
            try:
                line.held = self._ledger.hold_now(line.account.model, most_used(line.request), is_batch=True)
            except AutointerpError as error:
                _fail([line], error)
                continue
            (left if line.held is None else taken).append(line)
        self._waiting = left
        return taken

    async def _run(self, lines: list[_Line]) -> None:
        """One batch, from its upload to its answers; whoever waits hears of whatever goes wrong."""
        try:
            answers = await self._answers(lines)
            for line in lines:
                line.rounds += 1
                if not self._settle(line, answers.get(line.key)):
                    self._wait_for_batch(line)
        except Exception as error:
            unanswered = [line for line in lines if not line.answer.done() and line not in self._waiting]
            for line in unanswered:
                self._release(line)
            _fail(unanswered, error)

    async def _answers(self, lines: list[_Line]) -> dict[str, LineAnswer]:
        """Upload, start, wait, fetch.

        Raises:
            EndpointError: it cannot be used, or the batch was refused as a whole.
        """
        endpoint = self.api.client.endpoint
        names = {line.key: line.key for line in lines}
        mark = secrets.token_hex(8)
        file = await self.api.upload([_json_line(line) for line in lines])
        await self._cache.set_batch(f"{_NOT_SENT}{mark}", endpoint, names)
        batch = await self.api.start(file, path_of(lines[0].request), mark=mark)
        await self._cache.set_batch(batch, endpoint, names)
        await self._cache.set_batch(f"{_NOT_SENT}{mark}", endpoint, None)
        answers = await self._awaited(batch)
        if isinstance(answers, str):
            raise EndpointError(
                f"refused a batch as a whole ({answers})", where=endpoint, remedy="set llm.batch = false"
            )
        return answers

    async def _awaited(self, batch: str) -> dict[str, LineAnswer] | str:
        """All that a batch brings, once it is over; or why it was refused as a whole, or is lost."""
        pause = self._pace.first_look_seconds
        while not (state := await self.api.state(batch)).is_over:
            await self._clock.sleep(pause)
            pause = min(2 * pause, self._pace.longest_look_seconds)
        if state.status == "failed":
            await self._cache.set_batch(batch, self.api.client.endpoint, None)
            return state.problem or "no reason given"
        answers: dict[str, LineAnswer] = {}
        for file in state.files:
            answers |= await self.api.answers(file)
        return answers

    def _settle(self, line: _Line, found: LineAnswer | None) -> bool:
        """Answer a line; False where it has to be sent again."""
        result = read_line(found, line.request, self.api, today=self._clock.today())
        if isinstance(result, Failure):
            self._release(line)
            if line.rounds < self._pace.rounds:
                return False
            refusal = Refusal("failed_request", f"{line.rounds} batches, the last: {result.detail}")
            result = Outcome(refusal)
        dollars = usd(self._ledger.price(line.account.model), result.usage, is_batch=True)
        self._ledger.settle(line.held or Reservation(0, 0.0), result.usage, dollars)
        line.held = None
        if not line.answer.done():
            line.answer.set_result(replace(result, attempts=max(line.rounds, 1)))
        return True

    def _release(self, line: _Line) -> None:
        if line.held is not None:
            self._ledger.settle(line.held, NOTHING_USED, None)
            line.held = None

    async def _picked_up(self) -> "dict[str, asyncio.Task[dict[str, LineAnswer] | str]]":
        """By the key of an answer: the batch of an earlier sitting that will bring it."""
        async with self._opening:
            if self._earlier is None:
                found: dict[str, asyncio.Task[dict[str, LineAnswer] | str]] = {}
                for batch, keys in (await self._noted()).items():
                    task = asyncio.create_task(self._awaited(batch))
                    found |= dict.fromkeys(keys, task)
                self._earlier = found
        return self._earlier

    async def _noted(self) -> dict[str, list[str]]:
        """Batches under way by their id; those that were noted and perhaps never started are looked for."""
        endpoint = self.api.client.endpoint
        await self._forget_kept()
        batches = {}
        for name, lines in self._cache.batches(endpoint).items():
            batch: str | None = name
            if name.startswith(_NOT_SENT):
                batch = await self.api.find(name.removeprefix(_NOT_SENT))
                if batch is not None:
                    await self._cache.set_batch(batch, endpoint, lines)
                await self._cache.set_batch(name, endpoint, None)
            if batch is not None:
                batches[batch] = list(lines.values())
        return batches

    async def _forget_kept(self) -> None:
        """Batches all of whose answers are in the file are done with."""
        endpoint = self.api.client.endpoint
        for name, lines in self._cache.batches(endpoint).items():
            if all(self._cache.get(key, with_failed=True) is not None for key in lines.values()):
                await self._cache.set_batch(name, endpoint, None)


def _json_line(line: _Line) -> dict[str, object]:
    path, model = line.group
    body = body_of(line.request, model=model, dialect=line.dialect)
    return {"custom_id": line.key, "method": "POST", "url": f"/v1{path}", "body": body}


def _grouped(lines: Iterable[_Line]) -> list[list[_Line]]:
    groups: dict[tuple[str, str], list[_Line]] = {}
    for line in lines:
        groups.setdefault(line.group, []).append(line)
    return list(groups.values())


def _fail(lines: Iterable[_Line], error: Exception) -> None:
    for line in lines:
        if not line.answer.done():
            line.answer.set_exception(error)
