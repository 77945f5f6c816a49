"""Texts of tokens, names -> what a terminal can show of them: one line, every character seen for what it is."""

from rich.cells import cell_len, chop_cells

__all__ = ["cut", "quoted", "visible"]

_SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_UNKNOWN = "\ufffd"
_SPACE = "␣"


def visible(text: str) -> str:
    """`a\\n b` -> `a⏎ b`: line breaks and tabs as signs, other spaces as `␣`, escapes and the like as U+FFFD."""
    return "".join(_shown(character) for character in text)


def quoted(text: str) -> str:
    """As `visible`, and spaces as `␣` too: for a token that stands alone in a table."""
    return visible(text).replace(" ", _SPACE) or "(empty)"


def cut(text: str, width: int) -> str:
    """The text, or what of it fits into so many columns with `…` behind it."""
    if cell_len(text) <= width:
        return text
    return f"{chop_cells(text, width - 1)[0]}…" if width > 1 else "…"


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return _SIGNS.get(character) or (_SPACE if character.isspace() and character > "\x7f" else _UNKNOWN)
