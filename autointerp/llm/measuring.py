"""The tiny calls that find out what an endpoint does, and what is concluded from each."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autointerp.errors import EndpointError
from autointerp.llm.capabilities import Finding, Measured
from autointerp.llm.client import OpenAIClient
from autointerp.llm.clock import REAL_CLOCK, Clock
from autointerp.llm.echo_check import echo_problem
from autointerp.llm.http_errors import HttpError, judged
from autointerp.llm.outcomes import Failure
from autointerp.llm.reply_reading import token_logprobs
from autointerp.llm.requests import TokenLogprob, Usage

__all__ = ["MOST_TOKENS_OF_MEASURING", "measure"]

MOST_TOKENS_OF_MEASURING = Usage(1500, 1300, is_estimated=True)
"""More than all the calls together take."""

_ATTEMPTS = 4
_SCHEMA = {
    "type": "object",
    "properties": {"autointerp_answer": {"type": "string", "enum": ["yes"]}},
    "required": ["autointerp_answer"],
    "additionalProperties": False,
}
_PROSE = "Do not write JSON. Write one English word about the sea."
_COUNTED = "The quick brown fox"
_REPETITIVE = "Write these lines again:\n1: 0\n2: 0\n3: 0\n4: 0\n5: 0\n6: 0"
_PENALTIES = ("repeat_penalty", "repetition_penalty")
"""Names of the same: of llama.cpp, of vLLM and others; 1 is none."""
_TIE = 0.1
"""Nats by which alternatives of half precision may be out of order."""
_LISTED = "One, two, three, four, five, six,"
_WRONG = "wrong numbers"
_UNTOLD = "not known to be right: the model writes nothing, or the same again and again"
_JSON_TOKENS = 200
_THINKING_TOKENS = 500
"""Of models that think unseen within max_completion_tokens."""


@dataclass(frozen=True)
class _Found:
    """What one call brought: a JSON object, or why there is none."""

    content: Mapping[str, Any] | None
    problem: str
    error: HttpError | None = None

    @property
    def choices(self) -> list[Mapping[str, Any]]:
        choices = (self.content or {}).get("choices")
        return (
            [choice for choice in choices if isinstance(choice, Mapping)] if isinstance(choices, list) else []
        )

    @property
    def text(self) -> str | None:
        """Of the first choice."""
        if not self.choices:
            return None
        message = self.choices[0].get("message")
        text = message.get("content") if isinstance(message, Mapping) else self.choices[0].get("text")
        return text if isinstance(text, str) else None

    def logprobs(self, *, is_chat: bool) -> tuple[TokenLogprob, ...] | None:
        return token_logprobs(self.choices[0].get("logprobs"), is_chat=is_chat) if self.choices else None


async def measure(client: OpenAIClient, model: str, *, clock: Clock = REAL_CLOCK) -> tuple[Measured, Usage]:
    """Find out what a model at an endpoint does, and what that took.

    Raises:
        EndpointError: no answer to the simplest question, whichever way it is asked.
    """
    return await _Measuring(client, model, clock).run()


class _Measuring:
    def __init__(self, client: OpenAIClient, model: str, clock: Clock) -> None:
        self._client = client
        self._model = model
        self._clock = clock
        self._usage = Usage(0, 0)
        self._common: dict[str, Any] = {"temperature": 0}
        self._max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
        self._takes_seed = False
        self._answered: Mapping[str, Any] = {}

    async def run(self) -> tuple[Measured, Usage]:
        chat = await self._chat_works()
        echo, alternatives, *others = await asyncio.gather(
            self._echo(),
            self._logprobs(chat),
            self._json(chat, "json_schema"),
            self._json(chat, "json_object"),
            self._seed(chat),
            self._n(chat),
        )
        completions, echoed, echo_max_tokens = echo
        if not (chat.is_given or completions.is_given):
            raise EndpointError(
                f"answers neither chats ({chat.evidence}) nor completions ({completions.evidence})",
                where=self._client.endpoint,
                remedy="check llm.base_url (it usually ends in /v1) and llm.model",
            )
        logprobs, tops, count = alternatives
        likeliest, no_penalty = await self._likeliest(count)
        naming = Finding("max_tokens_name", True, self._max_tokens_name)
        has_temperature = "temperature" in self._common
        temperature = Finding("temperature", has_temperature, "taken" if has_temperature else "refused")
        findings = (chat, completions, logprobs, tops, echoed, *others, naming, temperature, likeliest)
        measured = Measured(
            self._client.endpoint,
            self._model,
            _word(self._answered.get("model")),
            _word(self._answered.get("system_fingerprint")),
            findings,
            top_logprobs=count,
            echo_max_tokens=echo_max_tokens,
            max_tokens_name=self._max_tokens_name,
            takes_seed=self._takes_seed,
            no_penalty=no_penalty,
        )
        return measured, self._usage

    async def _chat_works(self) -> Finding:
        """The simplest chat; what a 400 names is done without."""
        for _ in range(4):
            found = await self._chat("Say ok.", 16, must_work=True)
            if found.content is not None:
                self._answered = found.content
                given = bool(found.choices)
                return Finding("chat", given, "answered" if given else "the reply has no choices")
            words = found.error.words if found.error is not None else ""
            if re.search("max_(completion_)?tokens", words) and self._max_tokens_name == "max_tokens":
                self._max_tokens_name = "max_completion_tokens"
            elif "temperature" in words and "temperature" in self._common:
                del self._common["temperature"]
            else:
                break
        return Finding("chat", False, found.problem)

    async def _echo(self) -> tuple[Finding, Finding, int]:
        """Completions, and the log-probabilities of a prompt in them: with one new token, else with none.

        The prompts end in what the model wrote itself, so that it is known what is likely there.
        """
        plain = await self._completed(_COUNTED)
        given = plain.text is not None
        completions = Finding("completions", given, "answered" if given else plain.problem)
        if not given:
            return completions, Finding("echo", False, "no completions"), 0
        self._answered = self._answered or plain.content or {}
        echo, fewest = Finding("echo", False, ""), 0
        for fewest in (1, 0):  # 0 means no limit to some servers
            echo = await self._echoed(_COUNTED, plain.text or "", fewest)
            if echo.evidence == _UNTOLD:
                again = await self._completed(_LISTED)
                echo = await self._echoed(_LISTED, again.text or "", fewest)
            if echo.is_given or echo.evidence.startswith(_WRONG):
                break
        return completions, echo, fewest if echo.is_given else 0

    async def _completed(self, prompt: str) -> _Found:
        return await self._call("/completions", {"prompt": prompt, "max_tokens": 8, "temperature": 0})

    async def _echoed(self, prompt: str, written: str, fewest: int) -> Finding:
        """Whether the numbers of an echo come, and are those of the tokens at which they stand."""
        asked = f"{prompt}{written}"
        body = {"prompt": asked, "max_tokens": fewest, "echo": True, "logprobs": 5, "temperature": 0}
        found = await self._call("/completions", body)
        tokens = found.logprobs(is_chat=False)
        spoken = "".join(token.token for token in tokens or ())
        if not tokens or prompt[-9:] not in spoken or not any(token.top for token in tokens):
            problem = found.problem or "answered without the prompt's log-probabilities"
            return Finding("echo", False, problem)
        problem = echo_problem(written, tokens)
        if problem:
            return Finding("echo", False, f"{_WRONG}: {problem}")
        if problem is not None:
            return Finding("echo", False, _UNTOLD)
        return Finding("echo", True, f"{len(tokens)} tokens with max_tokens {fewest}, at their places")

    async def _logprobs(self, chat: Finding) -> tuple[Finding, Finding, int]:
        """Asked for 20 alternatives, and for fewer where so many are refused."""
        problem = "no chat"
        for count in (20, 5, 1) if chat.is_given else ():
            found = await self._chat("Say ok.", 16, logprobs=True, top_logprobs=count)
            tokens = found.logprobs(is_chat=True)
            if tokens:
                most = max(len(token.top) for token in tokens)
                logprobs = Finding("logprobs", True, f"of {len(tokens)} tokens")
                tops = Finding("top_logprobs", most > 0, f"{most} alternatives when {count} were asked for")
                return logprobs, tops, min(most, count)
            problem = found.problem or "answered without log-probabilities"
            if found.content is not None:
                break
        return Finding("logprobs", False, problem), Finding("top_logprobs", False, problem), 0

    async def _likeliest(self, count: int) -> tuple[Finding, str]:
        """Whether temperature 0 takes the likeliest token, and what must be said for it to.

        Some servers (llama-cpp-python 0.3.36: `repeat_penalty` 1.1) make what was said before less likely,
        unasked. A judge that has answered 0 then says 3 next, though its log-probabilities are for 0 again.
        """
        name, problem = "likeliest", "not to be seen without log-probabilities and temperature"
        if not count or "temperature" not in self._common:
            return Finding(name, False, problem), ""
        for parameter in ("", *_PENALTIES):
            neutral = {parameter: 1.0} if parameter else {}
            found = await self._chat(_REPETITIVE, 24, logprobs=True, top_logprobs=count, **neutral)
            told = [token for token in found.logprobs(is_chat=True) or () if token.top]
            odd = sum(token.logprob < token.top[0][1] - _TIE for token in told if token.logprob is not None)
            if told and not odd:
                how = f"with {parameter} 1; else what was said before is avoided" if parameter else "taken"
                return Finding(name, True, how), parameter
            if not parameter:
                problem = f"not taken at {odd} of {len(told)} tokens" if told else found.problem or problem
        return Finding(name, False, problem), ""

    async def _json(self, chat: Finding, kind: Literal["json_schema", "json_object"]) -> Finding:
        """Whether a reply is JSON although the words ask for prose."""
        if not chat.is_given:
            return Finding(kind, False, "no chat")
        wanted: dict[str, Any] = {"type": kind}
        if kind == "json_schema":
            wanted["json_schema"] = {"name": "answer", "schema": _SCHEMA, "strict": True}
        room = _JSON_TOKENS if self._max_tokens_name == "max_tokens" else _THINKING_TOKENS
        found = await self._chat(_PROSE, room, response_format=wanted)
        if found.text is None:
            return Finding(kind, False, found.problem or "answered without text")
        try:
            content = json.loads(found.text)
        except (ValueError, RecursionError):
            return Finding(kind, False, "ignored: the reply is no JSON")
        is_obeyed = isinstance(content, dict)
        if kind == "json_schema":
            is_obeyed = content == {"autointerp_answer": "yes"}
        return Finding(kind, is_obeyed, "obeyed" if is_obeyed else "the reply is other JSON than asked for")

    async def _seed(self, chat: Finding) -> Finding:
        """Whether the same seed gives the same words at temperature 1; what another gives is only told."""
        if not chat.is_given:
            return Finding("seed", False, "no chat")
        warm = {"temperature": 1} if "temperature" in self._common else {}
        question = "Write four random words."
        found = await asyncio.gather(
            *(self._chat(question, 16, **warm, seed=seed) for seed in (7, 7, 8)),
        )
        self._takes_seed = found[0].content is not None
        first, again, other = (reply.text for reply in found)
        if not first or not again:
            return Finding("seed", False, found[0].problem or found[1].problem or "answered without text")
        differs = "another seed gives other words" if other != first else "another seed gives the same words"
        if first != again:
            return Finding("seed", False, "the same seed gave other words")
        return Finding("seed", True, f"the same seed gives the same words; {differs}")

    async def _n(self, chat: Finding) -> Finding:
        if not chat.is_given:
            return Finding("n", False, "no chat")
        found = await self._chat("Say ok.", 4, n=2)
        count = len(found.choices)
        return Finding("n", count == 2, found.problem or f"{count} choices when 2 were asked for")

    async def _chat(
        self, question: str, max_tokens: int, *, must_work: bool = False, **parameters: Any
    ) -> _Found:
        body = {
            "messages": [{"role": "user", "content": question}],
            self._max_tokens_name: max_tokens,
            **self._common,
            **parameters,
        }
        return await self._call("/chat/completions", body, must_work=must_work)

    async def _call(self, path: str, body: Mapping[str, Any], *, must_work: bool = False) -> _Found:
        """One call, again after a failure that may heal; a server that fails each time does not do it.

        Raises:
            EndpointError: where it `must_work`: wrong key, no such model, no credit, no answer in time.
        """
        problem = ""
        for attempt in range(_ATTEMPTS):
            found = await self._client.post(path, {"model": self._model, **body})
            if isinstance(found, HttpError):
                problem = f"HTTP {found.status}: {found.message}"
                verdict = self._verdict(found, must_work=must_work)
                if verdict is None:
                    return _Found(None, problem, found)
                await self._pause(attempt, verdict)
            elif isinstance(found, Failure):
                problem = found.detail
                if found.kind == "timeout" and attempt:
                    break  # the next ones would take minutes each
                await self._pause(attempt, found)
            else:
                read = self._read(found)
                if read.content is not None or attempt + 1 == _ATTEMPTS:
                    return read
                await self._clock.sleep(0.5 * 2**attempt)  # cut off on its way, perhaps
        else:
            return _Found(None, problem)
        if must_work:
            raise EndpointError(
                f"takes requests and does not answer them ({problem})",
                where=self._client.endpoint,
                remedy="check that llm.base_url is an LLM's server, or raise llm.timeout_seconds",
            )
        return _Found(None, problem)

    def _verdict(self, error: HttpError, *, must_work: bool) -> Failure | None:
        """A failure that may heal, or None for an answer that says no; a missing path is only a no."""
        if must_work and error.status in (404, 405) and not error.says_no_model():
            return None
        try:
            verdict = judged(error, today=self._clock.today())
        except EndpointError:
            if must_work:
                raise
            return None
        return verdict if isinstance(verdict, Failure) else None

    async def _pause(self, attempt: int, failure: Failure) -> None:
        if attempt + 1 < _ATTEMPTS:
            await self._clock.sleep(min(failure.retry_after_seconds or 0.5 * 2**attempt, 60.0))

    def _read(self, body: bytes) -> _Found:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return _Found(None, "the reply is no JSON")
        if not isinstance(content, dict):
            return _Found(None, "the reply is no JSON object")
        counts = content.get("usage")
        if isinstance(counts, dict):
            prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
            if all(isinstance(count, int) and 0 <= count < 10**6 for count in (prompt, completion)):
                self._usage = Usage(
                    self._usage.prompt_tokens + prompt, self._usage.completion_tokens + completion
                )
        return _Found(content, "")


def _word(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""
