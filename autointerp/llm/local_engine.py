"""Answers a batch of questions with one model: first what they share, then the rest, then token by token.

The numbers of a question do not depend on what else is in the batch, beyond the rounding of sums in another
order (about 1e-5 of a log-probability in float32). Where two tokens are as likely as each other within that,
which one is chosen may depend on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from autointerp.explanation_records import Refusal
from autointerp.llm.local_drafts import Draft, Job, Step
from autointerp.llm.local_loading import LocalParts
from autointerp.llm.local_network import KeyValues, Network, Session
from autointerp.llm.local_prefixes import EchoTable, Prefix, PrefixCache, shared_length
from autointerp.llm.local_sampling import MOST_ALTERNATIVES, Sampler
from autointerp.llm.local_text import LocalText
from autointerp.llm.requests import Reply

__all__ = ["Engine"]

_WORTH_SHARING = 16
"""Tokens for which a pass of their own, or a place in the cache, pays."""


@dataclass(frozen=True, eq=False)
class _Beginning:
    """What all rows of a batch begin with, as far as it was computed before the rows were."""

    keys_and_values: KeyValues | None = None
    length: int = 0
    echo: EchoTable | None = None
    """Of the targets 1 to `length`."""
    reused: int = 0
    """Tokens of it that an earlier batch had computed."""


class Engine:
    """One model, its tokenizer and its memory of earlier prompts. For one thread."""

    def __init__(self, parts: LocalParts, text: LocalText, *, prefix_cache_bytes: int) -> None:
        """Find out how the model can be run."""
        self.network = Network(parts.model)
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self._text, self._name, self._fingerprint = text, parts.name, parts.fingerprint

    def answer(self, jobs: Sequence[Job]) -> list[Reply | Refusal]:
        """Answers in order; the jobs either all echo their prompts or all do not."""
        rows = [job.prompt.ids for job in jobs]
        echo = jobs[0].request.echo
        beginning = self._beginning(rows, echo=echo)
        session = Session(self.network, rows, past=beginning.keys_and_values)
        reader = _EchoReader(rows, beginning.length) if echo else None
        logits = session.read(reader and reader.visit)
        drafts = [Draft(job, self._text, Sampler.of(job.request)) for job in jobs]
        for index, draft in enumerate(drafts):
            draft.cached_tokens = beginning.reused if index == 0 else beginning.length
            if reader is not None:
                draft.echo = reader.table(index, beginning.echo)
        if len(rows) == 1:
            self._remember(rows[0], session, beginning, drafts[0].echo)
        self._write(drafts, session, logits)
        return [draft.answer(model=self._name, fingerprint=self._fingerprint) for draft in drafts]

    # ---- what prompts share -------------------------------------------------------------------------

    def _beginning(self, rows: Sequence[Int64[np.ndarray, " _"]], *, echo: bool) -> _Beginning:
        """Keys and values of the first tokens, from the cache or computed once for all rows.

        The last token of each row is always run, and with echo also the last one that all share: what comes
        behind it differs by row.
        """
        if self.network.mode != "cached":
            return _Beginning()
        shared = min(shared_length(rows[0], row) for row in rows)
        most = min(shared - echo, min(map(len, rows)) - 1)
        prefix, known = self.prefixes.best(rows[0], echo=echo)
        have = max(0, min(known - echo, most))
        beginning = _Beginning()
        if prefix is not None and have:
            layers = tuple((k[:, :, :have], v[:, :, :have]) for k, v in prefix.keys_and_values)
            table = None if prefix.echo is None else prefix.echo.first(have)
            beginning = _Beginning(layers, have, table if echo else None, have)
        if len(rows) > 1 and most - have >= _WORTH_SHARING:
            return self._extended(beginning, rows[0], most, echo=echo)
        return beginning

    def _extended(
        self, beginning: _Beginning, row: Int64[np.ndarray, " token"], length: int, *, echo: bool
    ) -> _Beginning:
        session = Session(self.network, [row[:length]], past=beginning.keys_and_values)
        reader = _EchoReader([row[: length + 1]], beginning.length) if echo else None
        session.read(reader and reader.visit)
        table = None if reader is None else reader.table(0, beginning.echo)
        layers = session.keys_and_values()
        self.prefixes.add(Prefix(row[:length], layers, None if table is None else table.first(length - 1)))
        return _Beginning(layers, length, table, beginning.reused)

    def _remember(
        self,
        row: Int64[np.ndarray, " token"],
        session: Session,
        beginning: _Beginning,
        echo: EchoTable | None,
    ) -> None:
        """Keep a prompt that came alone: the next one may begin like it."""
        if self.network.mode == "cached" and len(row) - beginning.length >= _WORTH_SHARING:
            self.prefixes.add(Prefix(row, session.keys_and_values(), echo))

    # ---- writing ------------------------------------------------------------------------------------

    def _write(
        self, drafts: Sequence[Draft], session: Session, logits: Float[Tensor, "row vocabulary"]
    ) -> None:
        """Token by token, until every reply is done; rows that are done leave the batch."""
        alive = list(range(len(drafts)))
        while True:
            going = [place for place, index in enumerate(alive) if not drafts[index].is_done]
            if not going:
                return
            if len(going) < len(alive):
                session.select(going)
                logits = logits[going]
                alive = [alive[place] for place in going]
            steps = _steps([drafts[index] for index in alive], logits)
            for index, step in zip(alive, steps, strict=True):
                drafts[index].add(step)
            if all(drafts[index].is_done for index in alive):
                return
            logits = session.step(torch.tensor([step.token for step in steps]))


def _steps(drafts: Sequence[Draft], logits: Float[Tensor, "row vocabulary"]) -> list[Step]:
    """The next token of each reply, with log-probabilities where they are wanted."""
    likeliest = logits.argmax(dim=1).tolist()
    tokens = [
        likeliest[row] if draft.sampler.temperature <= 0 else draft.sampler.choose(logits[row])
        for row, draft in enumerate(drafts)
    ]
    if not any(draft.job.wants_logprobs for draft in drafts):
        return [Step(token) for token in tokens]
    logprobs = logits.log_softmax(dim=1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    top = logprobs.topk(min(MOST_ALTERNATIVES, logits.shape[1]), dim=1)
    ids, values = top.indices.tolist(), top.values.tolist()
    return [Step(token, chosen[row], tuple(ids[row]), tuple(values[row])) for row, token in enumerate(tokens)]


class _EchoReader:
    """Takes from the logits what the model expected of each token of its prompt."""

    def __init__(self, rows: Sequence[Int64[np.ndarray, " _"]], start: int) -> None:
        """`start`: the first position that is run."""
        self._rows, self._start = rows, start
        width = max(map(len, rows))
        self._tokens = np.zeros((len(rows), width + 1), dtype=np.int64)
        for index, row in enumerate(rows):
            self._tokens[index, : len(row)] = row
        self._parts: list[tuple[np.ndarray, ...]] = []

    def visit(self, start: int, logits: Float[Tensor, "row position vocabulary"]) -> None:
        """See the logits of some positions."""
        logprobs = logits.log_softmax(dim=2)
        end = start + logits.shape[1]
        targets = torch.from_numpy(self._tokens[:, start + 1 : end + 1]).to(logits.device)
        found = logprobs.gather(2, targets[:, :, None])[:, :, 0]
        top = logprobs.topk(min(MOST_ALTERNATIVES, logits.shape[2]), dim=2)
        self._parts.append(
            (
                found.double().cpu().numpy(),
                top.indices.cpu().numpy(),
                top.values.double().cpu().numpy(),
            )
        )

    def table(self, row: int, before: EchoTable | None) -> EchoTable:
        """Of all targets of a row, with those of the tokens that were not run."""
        count = len(self._rows[row]) - 1 - self._start
        columns = [
            np.concatenate([part[row] for part in parts])[:count] for parts in zip(*self._parts, strict=True)
        ]
        own = EchoTable(*columns)
        return own if before is None else EchoTable.joined([before, own])
