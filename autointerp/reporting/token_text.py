"""Texts of tokens, names -> what a terminal can show: one line, every character seen for what it is."""

import re
import unicodedata

from rich.cells import cell_len, chop_cells

__all__ = ["cut", "harmless", "quoted", "visible"]

_SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_UNKNOWN = "\ufffd"
_SPACE = "␣"


def visible(text: str) -> str:
    """Line breaks and tabs as signs, odd spaces as `␣`, escapes and whatever else has no look as U+FFFD."""
    return "".join(_shown(character) for character in text)


def harmless(text: str) -> str:
    """Only what turns or hides other characters is shown, as U+FFFD; spaces and line breaks stay."""
    return text if text.isprintable() else "".join(map(_harmless, text))


def quoted(text: str) -> str:
    """As `visible`, and spaces as `␣` too, many as `␣×8`: for a token that stands alone in a table."""
    shown = re.sub(" {4,}", lambda run: f"{_SPACE}×{len(run[0])}", visible(text))
    return shown.replace(" ", _SPACE) or "(empty)"


def cut(text: str, width: int) -> str:
    """The text, or what of it fits into so many columns with `…` behind it."""
    if cell_len(text) <= width:
        return text
    return f"{chop_cells(text, width - 1)[0]}…" if width > 1 else "…"


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return _SIGNS.get(character) or (_SPACE if character.isspace() and character > "\x7f" else _UNKNOWN)


def _harmless(character: str) -> str:
    is_kept = character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"
    return character if is_kept else _UNKNOWN
