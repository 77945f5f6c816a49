"""Turns one document into token ids, telling its text from what was put around it, and counting its bytes."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from autointerp.errors import CorpusError
from autointerp.sampling.corpus import Document

__all__ = ["DocumentEncoder", "EncodedDocument", "bos_id", "eos_id", "utf8_byte_counts"]

_STAND_IN = "AutointerpDocumentStandIn"


@dataclass(frozen=True, eq=False)
class EncodedDocument:
    """A document's tokens, before they are cut into contexts; all arrays have one entry per token."""

    document_id: str
    ids: np.ndarray
    is_text: np.ndarray
    """False on tokens of the chat template."""
    byte_count: np.ndarray
    """UTF-8 bytes of the text that the token stands for; they sum up to the document's size."""


class DocumentEncoder:
    """Tokenizes documents. A special token spelled out in a text does not become one, unless asked for."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        special_tokens: Literal["text", "parse"] = "text",
        chat_template: bool = False,
    ) -> None:
        """Prepare the text that goes around every document.

        Raises:
            CorpusError: the tokenizer is a slow one, or has no usable chat template when one is asked for.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise CorpusError(
                "the tokenizer cannot tell which characters a token covers",
                where=type(tokenizer).__name__,
                remedy="use a subject with a fast tokenizer (tokenizer.json)",
            )
        self._tokenizer = tokenizer
        self._as_text = special_tokens == "text"
        self._around = _template_ids(tokenizer) if chat_template else (_NO_IDS, _NO_IDS)

    def encode(self, document: Document) -> EncodedDocument:
        """The document's tokens, without BOS; with the chat template's around them if there is one.

        The text is tokenized on its own, so no token reaches across the seam to the template.
        """
        coded = self._tokenizer(
            document.text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=self._as_text,
            verbose=False,
        )
        ids = np.asarray(coded["input_ids"], dtype=np.int64)
        ends = np.asarray(coded["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 1]
        before, after = self._around
        return EncodedDocument(
            document.id,
            np.concatenate([before, ids, after]),
            np.repeat([False, True, False], [len(before), len(ids), len(after)]),
            np.concatenate([0 * before, utf8_byte_counts(document.text, ends), 0 * after]),
        )


_NO_IDS = np.zeros(0, dtype=np.int64)


def bos_id(tokenizer: Any) -> int | None:
    """Id of the token that contexts begin with: BOS, else EOS (as GPT-2 was trained), else None."""
    own = tokenizer.bos_token_id
    return eos_id(tokenizer) if own is None else int(own)


def eos_id(tokenizer: Any) -> int | None:
    """Id of the token that documents are joined by, if the tokenizer has one."""
    own = tokenizer.eos_token_id
    return None if own is None else int(own)


def utf8_byte_counts(text: str, ends: np.ndarray) -> np.ndarray:
    """UTF-8 bytes per token, from the index of the character where each token ends.

    Characters between two tokens belong to the later one, those after the last token to the last one, and a
    character that several tokens share to the first of them, so that the counts sum up to the text's size.

    Args:
        text: the whole text.
        ends: [token] character offsets, in order of the tokens.
    """
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(sizes)])
    reached = np.maximum.accumulate(ends)
    reached[-1] = len(text)
    return np.diff(bytes_before[reached], prepend=0)


def _template_ids(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the chat template around a user's turn, less a BOS, which contexts bring themselves."""
    import jinja2

    try:
        turn = [{"role": "user", "content": _STAND_IN}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=False)
    except (ValueError, TypeError, KeyError, jinja2.TemplateError) as error:
        raise CorpusError(
            "the tokenizer has no chat template for a single user turn",
            where="corpus",
            remedy="set chat_template = false",
        ) from error
    before, found, after = text.partition(_STAND_IN)
    if not found or _STAND_IN in after:
        raise CorpusError(
            "the chat template does not hold the document once",
            where="corpus",
            remedy="set chat_template = false",
        )
    first = _ids(tokenizer, before)
    if len(first) and first[0] == bos_id(tokenizer):
        first = first[1:]
    return first, _ids(tokenizer, after)


def _ids(tokenizer: Any, text: str) -> np.ndarray:
    return np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
