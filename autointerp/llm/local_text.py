"""Questions -> token ids, and token ids -> text, for a model in this process.

What stands in a question is text: special tokens that are spelled out in it do not become special, so that a
passage cannot end its own turn.
"""

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from autointerp.explanation_records import Refusal
from autointerp.llm.requests import Message, Request
from autointerp.sampling.document_tokens import bos_id
from autointerp.subject.token_texts import token_texts

__all__ = ["EncodedPrompt", "LocalText"]

_PLAIN = {"system": "System", "user": "User", "assistant": "Assistant"}
_PLAIN_STOPS = ("\nUser:", "\nSystem:")


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """A question as the model sees it."""

    ids: Int64[np.ndarray, " token"]
    texts: tuple[str, ...] = ()
    """Of a completion, the characters of each token of the prompt; joined they are the prompt. Where tokens
    share a character the first of them has it, the others are empty. The tokens put in front of the prompt
    (BOS) have no entry."""
    offsets: tuple[int, ...] = ()
    """Where each of these tokens begins in the prompt, in characters; a part of a character, where that
    begins."""
    stops: tuple[str, ...] = ()
    """What ends the reply beside what was asked for."""


class LocalText:
    """A tokenizer with what its chat template needs.

    A model without a chat template is asked in plain words: `System: ...`, `User: ...`, `Assistant: ...`, a
    blank line between the turns, and the reply ends where the next turn would begin.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Find out what the tokenizer puts around a text."""
        self._tokenizer = tokenizer
        # Questions are encoded in the event loop's thread while replies are decoded in the one that computes;
        # a fast tokenizer fails if its settings are changed while it is at work.
        self._lock = threading.RLock()
        self._anchor: list[int] = self._ids("a")[-1:]
        self._before = self._decoded(self._anchor)
        self._leading = _leading_ids(tokenizer)
        self._special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._texts: dict[int, str] = {}
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.end_ids = self._found_end_ids()
        """Tokens that end a reply."""

    # ---- questions ----------------------------------------------------------------------------------

    def encode(self, request: Request) -> EncodedPrompt | Refusal:
        """The question's tokens; a refusal where there are none or the template cannot take the messages."""
        with self._lock:
            if request.prompt is None:
                sound = [Message(message.role, _sound(message.text)) for message in request.messages]
                return self._chat(sound)
            return self._completion(_sound(request.prompt))

    def _completion(self, prompt: str) -> EncodedPrompt | Refusal:
        coded = self._tokenizer(
            prompt,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=True,
            verbose=False,
        )
        spans = np.asarray(coded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        texts, offsets = _pieces(prompt, spans)
        leading = self._leading
        if not leading and not texts:
            begin = bos_id(self._tokenizer)
            leading = [] if begin is None else [begin]
        ids = np.array([*leading, *coded["input_ids"]], dtype=np.int64)
        if not len(ids):
            return Refusal("failed_request", "the prompt is empty")
        return EncodedPrompt(ids, texts, offsets)

    def _chat(self, messages: Sequence[Message]) -> EncodedPrompt | Refusal:
        rendered = self._rendered(messages)
        if rendered is None:
            return Refusal("failed_request", "the model's chat template cannot take these messages")
        stops = () if self.has_template else _PLAIN_STOPS
        if not any(token in message.text for message in messages for token in self._special):
            ids = self._ids(rendered, as_text=False)
        else:
            parts = self._ids_in_parts(messages)
            if parts is None:
                return Refusal("failed_request", "the model's chat template changes what messages say")
            ids = parts
        if not self.has_template:
            ids = [*self._leading, *ids]
        return EncodedPrompt(np.array(ids, dtype=np.int64), stops=stops)

    def _ids_in_parts(self, messages: Sequence[Message]) -> list[int] | None:
        """The template's tokens and the messages' tokens apart, so that these hold no special ones."""
        marks = [f"stand{secrets.token_hex(8)}in" for _ in messages]
        framed = [Message(message.role, mark) for message, mark in zip(messages, marks, strict=True)]
        rest = self._rendered(framed)
        if rest is None:
            return None
        ids: list[int] = []
        for message, mark in zip(messages, marks, strict=True):
            before, found, rest = rest.partition(mark)
            if not found or mark in rest:
                return None
            ids += [*self._ids(before, as_text=False), *self._ids(message.text)]
        return [*ids, *self._ids(rest, as_text=False)]

    def _rendered(self, messages: Sequence[Message]) -> str | None:
        if not self.has_template:
            turns = "\n\n".join(f"{_PLAIN[message.role]}: {message.text}" for message in messages)
            return turns if messages[-1].role == "assistant" else f"{turns}\n\nAssistant:"
        import jinja2

        for turns in (messages, _without_system(messages)):
            goes_on = turns[-1].role == "assistant"
            try:
                return str(
                    self._tokenizer.apply_chat_template(
                        [{"role": turn.role, "content": turn.text} for turn in turns],
                        tokenize=False,
                        add_generation_prompt=not goes_on,
                        continue_final_message=goes_on,
                    )
                )
            except (ValueError, TypeError, KeyError, jinja2.TemplateError):
                continue
        return None

    def _found_end_ids(self) -> frozenset[int]:
        """EOS, and the special token that the template puts behind what the assistant said."""
        found = {self._tokenizer.eos_token_id} - {None}
        if self.has_template:
            mark = f"stand{secrets.token_hex(8)}in"
            shown = self._rendered([Message("user", "a"), Message("assistant", mark), Message("user", "a")])
            after = (shown or "").partition(mark)[2].lstrip()
            found |= {
                self._tokenizer.convert_tokens_to_ids(token)
                for token in self._special
                if after.startswith(token)
            }
        return frozenset(int(index) for index in found)

    # ---- tokens -------------------------------------------------------------------------------------

    def texts(self, ids: Sequence[int]) -> list[str]:
        """What each token reads as in the midst of a text; a part of a character as U+FFFD."""
        missing = sorted({index for index in ids if index not in self._texts})
        with self._lock:
            self._texts |= zip(missing, token_texts(self._tokenizer, missing), strict=True)
        return [self._texts[index] for index in ids]

    def joined(self, ids: Sequence[int]) -> str:
        """What the tokens of a reply read as together; special ones are left out."""
        return self._decoded([*self._anchor, *ids])[len(self._before) :]

    def _decoded(self, ids: Sequence[int]) -> str:
        settings = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        with self._lock:
            return str(self._tokenizer.decode(list(ids), **settings))

    def _ids(self, text: str, *, as_text: bool = True) -> list[int]:
        coded = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=as_text, return_attention_mask=False
        )
        return list(coded["input_ids"])


def _sound(text: str) -> str:
    """The text with half surrogate pairs, which no tokenizer takes, as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """The same for templates that know no system: its words begin the first turn of the user."""
    said = "\n\n".join(message.text for message in messages if message.role == "system")
    turns = [message for message in messages if message.role != "system"]
    if not said:
        return messages
    if not turns or turns[0].role != "user":
        return [Message("user", said), *turns]
    return [Message("user", f"{said}\n\n{turns[0].text}"), *turns[1:]]


def _leading_ids(tokenizer: Any) -> list[int]:
    """What the tokenizer puts in front of every text: BOS, or nothing."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return list(full[:start])
    return []


def _pieces(text: str, spans: Int64[np.ndarray, "token 2"]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The characters of each token, and where it begins.

    Characters that no token covers, as the blanks that some tokenizers leave out, belong to the next one,
    those at the end to the last.
    """
    if not len(spans):
        return (), ()
    ends = np.maximum.accumulate(spans[:, 1])
    ends[-1] = len(text)
    begins = np.concatenate([[0], ends[:-1]])
    texts = tuple(text[begin:end] for begin, end in zip(begins, ends, strict=True))
    offsets = np.where(begins < ends, begins, np.minimum(spans[:, 0], begins))
    return texts, tuple(int(offset) for offset in np.maximum.accumulate(offsets))
