"""A language model in this process: answers requests without a server, with exact log-probabilities."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.language_model import Capability
from autointerp.llm.local_batches import next_batch
from autointerp.llm.local_drafts import Job
from autointerp.llm.local_engine import Engine
from autointerp.llm.local_loading import LocalParts, load_local, parts_in_memory
from autointerp.llm.local_text import LocalText
from autointerp.llm.requests import Reply, Request

__all__ = ["LocalModel"]

_CAPABILITIES: frozenset[Capability] = frozenset(
    ("chat", "completions", "logprobs", "top_logprobs", "echo", "seed")
)
_GATHERING_SECONDS = 0.002
"""For how long nobody may ask anything more before what waits is put together."""
_MAX_BATCH_TOKENS, _PREFIX_CACHE_BYTES = 16384, 2**29


class _Waiting(NamedTuple):
    job: Job
    future: "asyncio.Future[Reply | Refusal]"


class LocalModel:
    """A causal language model of transformers, loaded from safetensors; no code that comes with it is run.

    Questions that wait are put together by what they begin with and by length. The model computes in a thread
    of its own, so that the event loop stays alive. How prompts begin is kept, with its keys and values, for
    later ones that begin alike.

    A chat is put into the model's template; without one it is `System: ...`, `User: ...`, `Assistant:`. With
    `echo` the tokens that the tokenizer puts in front (BOS) are not shown, but count: then the first token of
    the prompt has a log-probability too. Log-probabilities are the model's own, whatever the temperature.
    `json_schema` is not obeyed. The same request has the same answer in every run, up to rounding: see
    `local_engine`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch_tokens: int = _MAX_BATCH_TOKENS,
        prefix_cache_bytes: int = _PREFIX_CACHE_BYTES,
    ) -> None:
        """Load it.

        Args:
            model: a folder, or a name on the hub.
            device: where to compute; `auto`: an accelerator if there is one.
            dtype: what to compute in, e.g. `bfloat16`; `auto`: float32 on a CPU, else as stored.
            max_batch_tokens: keys and values of so many tokens are held at once; halved when memory runs out.
            prefix_cache_bytes: bound of what is kept for prompts that begin like earlier ones.

        Raises:
            EndpointError: there is no such model, or it is damaged or of no use.
        """
        parts = load_local(model, device=device, dtype=dtype)
        self._set_up(parts, max_batch_tokens, prefix_cache_bytes)

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        max_batch_tokens: int = _MAX_BATCH_TOKENS,
        prefix_cache_bytes: int = _PREFIX_CACHE_BYTES,
    ) -> "LocalModel":
        """The same for a model that is in memory already.

        Raises:
            EndpointError: the tokenizer cannot say which characters a token covers.
        """
        made = cls.__new__(cls)
        made._set_up(parts_in_memory(model, tokenizer, name=name), max_batch_tokens, prefix_cache_bytes)
        return made

    def _set_up(self, parts: LocalParts, max_batch_tokens: int, prefix_cache_bytes: int) -> None:
        self._parts = parts
        self._text = LocalText(parts.tokenizer)
        self._engine = Engine(parts, self._text, prefix_cache_bytes=prefix_cache_bytes)
        self._max_batch_tokens = max_batch_tokens
        self._waiting: list[_Waiting] = []
        self._serving: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-model")

    @property
    def name(self) -> str:
        """The model's name on the hub, or its folder's."""
        return self._parts.name

    @property
    def fingerprint(self) -> str:
        """Of configuration, weights and tokenizer, and of the precision it computes in."""
        return self._parts.fingerprint

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Chat, completions, log-probabilities with alternatives, echo and seed."""
        return _CAPABILITIES

    @property
    def context_limit(self) -> int | None:
        """How many tokens question and reply may have together, where the model's configuration says so."""
        return self._parts.context_limit

    async def answer(self, request: Request) -> Reply | Refusal:
        """The answer, or why there is none.

        Raises:
            EndpointError: the model fails on it.
        """
        prompt = self._text.encode(request)
        if isinstance(prompt, Refusal):
            return prompt
        size, limit = len(prompt.ids), self.context_limit
        room = request.max_tokens if limit is None else min(request.max_tokens, limit - size)
        if room < min(1, request.max_tokens):
            return Refusal("too_long", f"{size} tokens do not fit into a context of {limit}")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply | Refusal] = loop.create_future()
        job = Job(request, prompt, room, is_wanted=lambda: not future.cancelled())
        self._waiting.append(_Waiting(job, future))
        if self._serving is None or self._serving.done() or self._serving.get_loop() is not loop:
            self._serving = loop.create_task(self._serve(loop))
        return await future

    def close(self) -> None:
        """Let go of the thread that computes; what is computed at the time is finished first."""
        self._thread.shutdown(cancel_futures=True)

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer until nobody waits; whatever goes wrong is told to those who wait for it."""
        while True:
            await self._gather()
            self._waiting = [
                one for one in self._waiting if not one.future.done() and one.future.get_loop() is loop
            ]
            if not self._waiting:
                return
            batch = self._waiting
            try:
                places = set(self._next_places([one.job for one in self._waiting]))
                batch = [one for place, one in enumerate(self._waiting) if place in places]
                self._waiting = [one for place, one in enumerate(self._waiting) if place not in places]
                jobs = [one.job for one in batch]
                answers = await loop.run_in_executor(self._thread, self._engine.answer, jobs)
                for one, answer in zip(batch, answers, strict=True):
                    if not one.future.done():
                        one.future.set_result(answer)
            except torch.OutOfMemoryError as error:
                self._make_room(batch, error)
            except Exception as error:
                _fail(batch, error, self.name)

    async def _gather(self) -> None:
        """Wait until nobody adds a question any more."""
        size = -1
        while size != len(self._waiting):
            size = len(self._waiting)
            await asyncio.sleep(_GATHERING_SECONDS)

    def _next_places(self, jobs: Sequence[Job]) -> list[int]:
        network, rows = self._engine.network, None
        if network.mode == "single":
            rows = 1
        elif network.mode == "padded" and jobs[0].request.echo:
            # All logits of a batch are held at once there.
            rows = max(1, 2**26 // (network.vocabulary_size * max(job.length for job in jobs)))
        return next_batch(jobs, max_tokens=self._max_batch_tokens, most_rows=rows)

    def _make_room(self, batch: Sequence[_Waiting], error: BaseException) -> None:
        """Smaller batches from now on; a question that is alone and too large fails."""
        if len(batch) == 1:
            _fail(batch, error, self.name)
            return
        longest = max(one.job.length for one in batch)
        self._max_batch_tokens = max(1, len(batch) // 2) * longest
        self._waiting = [*batch, *self._waiting]


def _fail(batch: Sequence[_Waiting], error: BaseException, name: str) -> None:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    for one in batch:
        if not one.future.done():
            one.future.set_exception(EndpointError(f"the model fails ({reason})", where=name))
