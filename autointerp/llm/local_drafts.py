"""One reply while it is being written: its tokens, where it stops, and what becomes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from autointerp.explanation_records import Refusal
from autointerp.llm.local_prefixes import EchoTable
from autointerp.llm.local_sampling import Sampler
from autointerp.llm.local_text import EncodedPrompt, LocalText
from autointerp.llm.requests import Reply, Request, TokenLogprob, Usage

__all__ = ["Draft", "Job", "Step"]


@dataclass(frozen=True, eq=False)
class Job:
    """A question with all that answering it takes."""

    request: Request
    prompt: EncodedPrompt
    new_tokens: int
    """Tokens of the reply at most: what was asked, or what the model's context has room for."""
    is_wanted: Callable[[], bool] = lambda: True
    """Whether somebody still waits for the answer."""

    @property
    def length(self) -> int:
        """Tokens of question and reply together, at most."""
        return len(self.prompt.ids) + self.new_tokens

    @property
    def wants_logprobs(self) -> bool:
        """Whether the reply's tokens come with their log-probabilities."""
        return self.request.echo or self.request.top_logprobs is not None


@dataclass(frozen=True, eq=False)
class Step:
    """A token of a reply and what the model thought of it."""

    token: int
    logprob: float | None = None
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


@dataclass(eq=False)
class Draft:
    """A reply that grows."""

    job: Job
    text: LocalText
    sampler: Sampler
    echo: EchoTable | None = None
    """Of the whole question, where it is echoed."""
    cached_tokens: int = 0
    steps: list[Step] = field(default_factory=list)
    _cut: int | None = None
    _has_ended: bool = False

    @property
    def is_done(self) -> bool:
        """Whether no token will be added."""
        full = len(self.steps) >= self.job.new_tokens
        return full or self._has_ended or self._cut is not None or not self.job.is_wanted()

    def add(self, step: Step) -> None:
        """Add a token; the one that ends a reply is none of its text."""
        self.steps.append(step)
        if step.token in self.text.end_ids:
            self._has_ended = True
            return
        stops = (*self.job.request.stop, *self.job.prompt.stops)
        if stops:
            written = self.text.joined([step.token for step in self.steps])
            found = [place for stop in stops if stop and (place := written.find(stop)) >= 0]
            self._cut = min(found, default=None)

    def answer(self, *, model: str, fingerprint: str) -> Reply | Refusal:
        """What is handed back; the same rules as for an endpoint's replies."""
        request = self.job.request
        steps = [step for step in self.steps if step.token not in self.text.end_ids]
        written = self.text.joined([step.token for step in steps])[: self._cut]
        finish = "stop" if self._has_ended or self._cut is not None else "length"
        if finish == "length" and not request.is_cut_usable:
            return Refusal("cut_off", f"ended at its limit of {self.job.new_tokens} tokens")
        logprobs = self._logprobs(steps, written) if self.job.wants_logprobs else None
        if not written.strip() and not logprobs:
            return Refusal("empty", f"no text; finish reason {finish}")
        usage = Usage(len(self.job.prompt.ids), len(self.steps), self.cached_tokens)
        asked = request.prompt or "" if request.echo else ""
        return Reply(asked + written, model, fingerprint, usage, logprobs=logprobs, finish_reason=finish)

    def _logprobs(self, steps: list[Step], written: str) -> tuple[TokenLogprob, ...]:
        begin = None if self.job.request.prompt is None else len(self.job.request.prompt)
        count = len(steps) if self._cut is None else self._count_within(steps, len(written))
        # A reply that ends before it begins: what else could have stood there is all there is to read.
        shown = steps[:count] or ([] if self._cut is not None else self.steps[:1])
        tokens = self._echoed() if self.job.request.echo else []
        for index, step in enumerate(shown):
            offset = None
            if begin is not None:
                before = self.text.joined([earlier.token for earlier in shown[:index]])
                offset = begin + len(before.rstrip("\N{REPLACEMENT CHARACTER}"))
            (token,) = self.text.texts([step.token])
            top = self._alternatives(step.top_ids, step.top_logprobs)
            tokens.append(TokenLogprob(token, step.logprob, top, offset))
        return tuple(tokens)

    def _count_within(self, steps: list[Step], length: int) -> int:
        """How many tokens begin before the text is cut."""
        ids = [step.token for step in steps]
        return next((n for n in range(len(ids) + 1) if len(self.text.joined(ids[:n])) >= length), len(ids))

    def _echoed(self) -> list[TokenLogprob]:
        """The question's own tokens; those put in front of it are not shown."""
        prompt, table = self.job.prompt, self.echo
        first = len(prompt.ids) - len(prompt.texts)
        tokens = []
        for index, (text, offset) in enumerate(zip(prompt.texts, prompt.offsets, strict=True)):
            target = first + index - 1
            if table is None or target < 0:
                tokens.append(TokenLogprob(text, None, (), offset))
                continue
            top = self._alternatives(
                tuple(table.top_ids[target].tolist()), tuple(table.top_logprobs[target].tolist())
            )
            tokens.append(TokenLogprob(text, float(table.logprob[target]), top, offset))
        return tokens

    def _alternatives(
        self, ids: tuple[int, ...], logprobs: tuple[float, ...]
    ) -> tuple[tuple[str, float], ...]:
        count = self.job.request.top_logprobs or 0
        texts = self.text.texts(ids[:count])
        pairs = zip(texts, logprobs[:count], strict=True)
        return tuple((text, logprob) for text, logprob in pairs if np.isfinite(logprob))
