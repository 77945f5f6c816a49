"""A tiny transformers model behind the server: replies that mean nothing, with true log-probabilities."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_chat_server.exchange import Answer, Call, Choice, ScoredToken, error_answer
from autointerp.testing.tiny_chat_server.reply_bodies import reply_answer
from autointerp.testing.tiny_subject import tiny_subject

__all__ = ["ModelBackend"]

_POSITIONS = 8192


@dataclass(frozen=True)
class _Settings:
    """What a call asks of the sampling."""

    most_tokens: int
    temperature: float
    top_p: float
    stops: tuple[str, ...]
    top_count: int


class ModelBackend:
    """Continues the prompt with a tiny random Llama, or with any other subject.

    Log-probabilities are those of the model's own distribution, at whatever temperature was sampled. Replies
    are determined by body and seed, and without a seed by the body. `response_format` is ignored.
    """

    def __init__(
        self, subject: SubjectModel | None = None, *, model: str = "tiny-llama", reply_tokens: int = 8
    ) -> None:
        """Load nothing: the default subject is made on the spot.

        Args:
            subject: who answers; None: a tiny Llama with room for long prompts.
            model: what replies say has answered.
            reply_tokens: after so many tokens a reply ends by itself, for a random model seldom does.
        """
        self.model = model
        self._subject = subject or tiny_subject("llama", max_position_embeddings=_POSITIONS)
        self._reply_tokens = reply_tokens
        self._worker = ThreadPoolExecutor(max_workers=1)  # a subject makes one pass at a time

    async def answer(self, call: Call) -> Answer:
        """The continuation of the call's text."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._answer, call)

    def _answer(self, call: Call) -> Answer:
        ids = self._encode(_as_prompt(call))
        most = call.most_tokens
        limit = self._subject.context_limit or _POSITIONS
        if len(ids) + (most or 0) > limit:
            return error_answer(
                400,
                f"This model's maximum context length is {limit} tokens. You requested "
                f"{len(ids) + (most or 0)} tokens.",
                code="context_length_exceeded",
            )
        settings = _settings(call, limit - len(ids))
        prompt = self._score_prompt(ids, settings.top_count) if call.body.get("echo") else []
        choices, written = [], 0
        for index in range(int(call.body.get("n") or 1)):
            text, tokens, reason = self._write(ids, settings, _generator(call, index))
            written += len(tokens)
            start = len(call.prompt)
            moved = [ScoredToken(t.text, t.logprob, t.top, start + (t.offset or 0), t.data) for t in tokens]
            echoed = call.prompt if call.body.get("echo") else ""
            choices.append(Choice(echoed + text, [*prompt, *moved], reason))
        return reply_answer(
            call, choices, model=self.model, prompt_tokens=len(ids), completion_tokens=written
        )

    def _encode(self, text: str) -> list[int]:
        tokenizer = self._subject.tokenizer
        return tokenizer.encode(text, add_special_tokens=False) or [tokenizer.bos_token_id]

    @torch.no_grad()
    def _score_prompt(self, ids: list[int], top_count: int) -> list[ScoredToken]:
        logprobs = self._subject.model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        offsets = self._offsets(ids)
        first = ScoredToken(self._text(ids[0]), None, (), offsets[0], self._bytes(ids[0]))
        rest = zip(ids[1:], logprobs, offsets[1:], strict=True)
        return [first, *(self._scored(index, row, top_count, offset) for index, row, offset in rest)]

    @torch.no_grad()
    def _write(
        self, ids: list[int], settings: _Settings, generator: torch.Generator
    ) -> tuple[str, list[ScoredToken], str]:
        """Text, tokens and reason of ending of one reply."""
        written: list[int] = []
        rows: list[torch.Tensor] = []
        cache, fresh, reason = None, ids, "length"
        eos = self._subject.tokenizer.eos_token_id
        while len(written) < settings.most_tokens:
            out = self._subject.model(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
            row, cache = out.logits[0, -1].double().log_softmax(-1), out.past_key_values
            chosen = _choose(row, settings, generator)
            if chosen == eos:
                reason = "stop"
                break
            written, rows, fresh = [*written, chosen], [*rows, row], [chosen]
            text = self._decode(written)
            if any(stop in text for stop in settings.stops) or len(written) == self._reply_tokens:
                reason = "stop"
                break
        text, offsets = self._decode(written), self._offsets(written)
        places = [text.find(stop) for stop in settings.stops if stop in text]
        text = text[: min(places)] if places else text
        scored = [
            self._scored(index, row, settings.top_count, offset)
            for index, row, offset in zip(written, rows, offsets, strict=True)
            if offset < len(text)
        ]
        return text, scored, reason

    def _scored(self, index: int, row: torch.Tensor, top_count: int, offset: int) -> ScoredToken:
        best = row.topk(top_count) if top_count else None
        top = (
            [(self._text(int(i)), float(v)) for v, i in zip(best.values, best.indices, strict=True)]
            if best is not None
            else []
        )
        return ScoredToken(self._text(index), float(row[index]), top, offset, self._bytes(index))

    def _decode(self, ids: Sequence[int]) -> str:
        return self._subject.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    def _text(self, index: int) -> str:
        return self._decode([index])

    def _bytes(self, index: int) -> bytes | None:
        """Bytes of a token that is a part of a character; None where its text says them."""
        if "\ufffd" not in self._text(index):
            return None
        symbols = self._subject.tokenizer.convert_ids_to_tokens(index)
        return bytes(_byte_of(symbol) for symbol in symbols)

    def _offsets(self, ids: Sequence[int]) -> list[int]:
        """How many whole characters stand before each token."""
        return [len(self._decode(ids[:place]).rstrip("\ufffd")) for place in range(len(ids))]


def _as_prompt(call: Call) -> str:
    if not call.is_chat:
        return call.prompt
    turns = [f"{message['role']}: {message['content']}\n" for message in call.body.get("messages", ())]
    return "".join(turns) + "assistant: "


def _settings(call: Call, room: int) -> _Settings:
    stop = call.body.get("stop") or ()
    return _Settings(
        most_tokens=min(16 if call.most_tokens is None else call.most_tokens, room),
        temperature=float(call.body.get("temperature", 1.0)),
        top_p=float(call.body.get("top_p") or 1.0),
        stops=(stop,) if isinstance(stop, str) else tuple(stop),
        top_count=call.top_count if call.wants_logprobs else 0,
    )


def _generator(call: Call, index: int) -> torch.Generator:
    seed = call.body.get("seed")
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(call.key.encode()).digest()[:4], "big")
    return torch.Generator().manual_seed(int(seed) + 1_000_003 * index)


def _choose(row: torch.Tensor, settings: _Settings, generator: torch.Generator) -> int:
    if settings.temperature == 0:
        return int(row.argmax())
    chances, order = (row / settings.temperature).softmax(-1).sort(descending=True)
    outside = chances.cumsum(0) - chances >= settings.top_p
    return int(order[int(torch.multinomial(chances.masked_fill(outside, 0.0), 1, generator=generator))])


def _byte_of(symbol: str) -> int:
    """The byte that a symbol of byte-level BPE stands for: printable ones for themselves, others shifted."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if ord(symbol) < 256:
        return ord(symbol)
    return [byte for byte in range(256) if byte not in plain][ord(symbol) - 256]
