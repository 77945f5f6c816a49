"""Texts of tokens, contexts and numbers -> the small form in which a report's page carries latents."""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autointerp.reporting.token_text import visible

__all__ = ["TokenCode", "code_text", "deflated", "packed", "shown_text", "three_digits", "unpacked"]

_FIRST = 0x23
"""The character of number 0: behind the quotation mark, which JSON would have to escape."""
_SURROGATES, _SURROGATE_COUNT = 0xD800, 0x800
_LONGEST_TOKEN = 120
_EFFORT = 6


def deflated(text: str) -> str:
    """A text deflated (RFC 1950) and in base64: of letters, digits, `+`, `/`, `=`, so harmless anywhere."""
    return base64.b64encode(zlib.compress(text.encode(), _EFFORT)).decode("ascii")


def packed(value: Any) -> str:
    """As `deflated`, of JSON."""
    return deflated(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def unpacked(text: str) -> Any:
    """What `packed` was given."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


def code_text(numbers: Iterable[int]) -> str:
    """Numbers from 0 on as one character each, surrogates passed over; in UTF-8 one byte below 93."""
    return "".join(map(_character, numbers))


def _character(number: int) -> str:
    code = number + _FIRST
    return chr(code if code < _SURROGATES else code + _SURROGATE_COUNT)


def three_digits(value: float) -> float | int:
    """The value to three significant digits; a whole number without its point."""
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def shown_text(text: str, most: int = _LONGEST_TOKEN) -> str:
    """What has no look as `token_text.visible` shows it, and at most so many characters, `…` behind a cut."""
    if len(text) <= most and text.isprintable():
        return text
    return visible(text) if len(text) <= most else f"{visible(text[: most - 1])}…"


class TokenCode:
    """A page's own numbers of tokens, 0 the most common on it, and their texts."""

    def __init__(self, counts: Mapping[int, int], texts: Mapping[int, str]) -> None:
        """Number the tokens.

        Args:
            counts: how often each token stands on the page; equal counts go by token.
            texts: of tokens; one without is shown as `[7]`.
        """
        order = sorted(counts, key=lambda token: (-counts[token], token))
        self._numbers = {token: number for number, token in enumerate(order)}
        self._characters = {token: _character(number) for number, token in enumerate(order)}
        self.texts: list[str] = [shown_text(texts.get(token, f"[{token}]")) for token in order]
        """By number, ready to be shown."""

    @staticmethod
    def counted(parts: Iterable[Iterable[int]]) -> Counter[int]:
        """How often each token stands in the parts."""
        counts: Counter[int] = Counter()
        for part in parts:
            counts.update(part)
        return counts

    def number(self, token: int) -> int:
        """The page's number of a token that it was given."""
        return self._numbers[token]

    def code(self, tokens: Sequence[int]) -> str:
        """As `code_text` of the tokens' numbers."""
        return "".join(map(self._characters.__getitem__, tokens))
