"""Cuts Python source into what probe tasks ask about: tokens of code, words of comments and strings."""

import io
import keyword
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

__all__ = ["UNIT_KINDS", "SourceLines", "SourceUnits", "source_units"]

UNIT_KINDS = ("name", "keyword", "number", "operator", "comment", "string", "docstring", "docstring_end")
"""What a unit can be. `comment`, `string` and `docstring` are words in those, of ASCII letters, digits, _;
`docstring_end` is a whole docstring, of which tasks mark the end. The others are tokens of code."""

_NAME, _KEYWORD, _NUMBER, _OPERATOR, _COMMENT, _STRING, _DOCSTRING, _DOCSTRING_END = range(len(UNIT_KINDS))
# An escape such as \n is no word, nor is its letter part of one.
_WORD = re.compile(r"\\.|([A-Za-z0-9_]+)", re.DOTALL)
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_INSIDE = {"(": "parentheses", "[": "square_brackets", "{": "braces"}
# From Python 3.12 (f-strings) and 3.14 (t-strings) on, such a string is several tokens.
_OPENING = {getattr(tokenize, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
_CLOSING = {getattr(tokenize, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}
_LAYOUT = {tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER}

Span = tuple[int, int]


class SourceLines:
    """Turns places as `tokenize` and `ast` give them into character offsets."""

    def __init__(self, text: str) -> None:
        """Lines end at line feeds alone, as both modules have it."""
        self._lines = text.split("\n")
        lengths = np.fromiter((len(line) + 1 for line in self._lines), dtype=np.int64)
        self._starts = [0, *np.cumsum(lengths).tolist()]

    def of_characters(self, place: tuple[int, int]) -> int:
        """Offset of (line from 1, column in characters)."""
        return self._starts[place[0] - 1] + place[1]

    def of_bytes(self, line: int, column: int) -> int:
        """Offset of (line from 1, column in UTF-8 bytes)."""
        text = self._lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode(errors="replace"))
        return self._starts[line - 1] + column


@dataclass(frozen=True, eq=False)
class SourceUnits:
    """The units of one file in order, and what `tokenize` alone can say of them."""

    start: Int[np.ndarray, " unit"]
    """Character offsets."""
    end: Int[np.ndarray, " unit"]
    kind: Int[np.ndarray, " unit"]
    """Index into `UNIT_KINDS`."""
    spans: dict[str, list[Span]]
    """Feature -> stretches of text; a unit that begins in one has the feature."""


@dataclass
class _Draft:
    """What is gathered while the tokens go by."""

    text: str
    docstrings: dict[int, int]
    units: list[tuple[int, int, int]] = field(default_factory=list)
    spans: dict[str, list[Span]] = field(default_factory=dict)
    depth: int = 0
    is_block_start: bool = False
    last: Span | None = None
    """The last token of code."""
    brackets: list[tuple[str, int]] = field(default_factory=list)
    """Those that are open, and where their inside begins."""

    def add(self, kind: int, start: int, end: int) -> None:
        self.units.append((start, end, kind))

    def mark(self, feature: str, start: int, end: int) -> None:
        self.spans.setdefault(feature, []).append((start, end))

    def words(self, kind: int, start: int, end: int) -> None:
        for match in _WORD.finditer(self.text, start, end):
            if match.group(1):
                self.add(kind, *match.span(1))

    def layout(self, kind: int) -> None:
        """Line ends and indentation."""
        if kind == tokenize.INDENT:
            self.depth, self.is_block_start = self.depth + 1, True
        elif kind == tokenize.DEDENT:
            self.depth -= 1
        elif kind == tokenize.NEWLINE and self.last is not None:
            self.mark("last_in_line", *self.last)

    def comment(self, start: int, end: int) -> None:
        self.words(_COMMENT, start, end)
        if self.text[self.text.rfind("\n", 0, start) + 1 : start].strip():
            self.mark("inline_comment", start, end)

    def code(self, kind: int, string: str, span: Span) -> None:
        if self.is_block_start:
            self.mark("first_in_block", *span)
            self.is_block_start = False
        if self.depth > 1:
            self.mark("deep", *span)
        self.last = span
        if kind == tokenize.NAME:
            self.name(string, span)
        elif kind == tokenize.NUMBER:
            self.add(_NUMBER, *span)
        elif kind == tokenize.OP:
            self.add(_OPERATOR, *span)
            self.bracket(string, span)
        elif kind == tokenize.STRING:
            self.string(*span)

    def name(self, string: str, span: Span) -> None:
        self.add(_KEYWORD if keyword.iskeyword(string) else _NAME, *span)
        if string.startswith("_") and not string.startswith("__") and string.strip("_"):
            self.mark("private_name", *span)
        if string.isupper() and len(string) > 1:
            self.mark("upper_name", *span)

    def bracket(self, string: str, span: Span) -> None:
        if string in _BRACKETS:
            self.brackets.append((string, span[1]))
        elif self.brackets and string == _BRACKETS[self.brackets[-1][0]]:
            opened, inside = self.brackets.pop()
            self.mark(_INSIDE[opened], inside, span[0])

    def string(self, start: int, end: int) -> None:
        """A string literal; strings that `ast` knows to be docstrings are told apart."""
        quote = next(at for at in range(start, end) if self.text[at] in "'\"")
        if start in self.docstrings:
            self.add(_DOCSTRING_END, start, self.docstrings[start])
            self.words(_DOCSTRING, quote, end)
            return
        if {"f", "t"} & set(self.text[start:quote].lower()):
            self.mark("fstring", start, end)
        self.words(_STRING, quote, end)


def source_units(text: str, lines: SourceLines, docstrings: dict[int, int]) -> SourceUnits:
    """The units of a file.

    Code in the braces of an f-string counts as text of the string, in all versions of Python alike.

    Args:
        text: the source, lines ended by line feeds.
        lines: of the same text.
        docstrings: start -> end of the docstrings, as character offsets.

    Raises:
        tokenize.TokenError, SyntaxError: it is no Python.
    """
    draft = _Draft(text, docstrings)
    for kind, string, start, end in _whole_strings(text, lines):
        if kind in _LAYOUT:
            draft.layout(kind)
        elif kind == tokenize.COMMENT:
            draft.comment(start, end)
        else:
            draft.code(kind, string, (start, end))
    return _finished(draft)


def _whole_strings(text: str, lines: SourceLines) -> Iterator[tuple[int, str, int, int]]:
    """Type, text, start and end of the tokens, each string as one token."""
    readline: Callable[[], str] = io.StringIO(text, newline="\n").readline
    nesting, first = 0, 0
    for token in tokenize.generate_tokens(readline):
        kind = token.type
        if kind in _OPENING:
            nesting += 1
            first = lines.of_characters(token.start) if nesting == 1 else first
        elif kind in _CLOSING:
            nesting -= 1
            if not nesting:
                yield tokenize.STRING, "", first, lines.of_characters(token.end)
        elif not nesting:
            yield kind, token.string, lines.of_characters(token.start), lines.of_characters(token.end)


def _finished(draft: _Draft) -> SourceUnits:
    table = np.asarray(draft.units, dtype=np.int64).reshape(-1, 3)
    # Docstrings begin before their words, and a file's units are looked up by where they begin.
    table = table[np.argsort(table[:, 0], kind="stable")]
    return SourceUnits(table[:, 0], table[:, 1], table[:, 2], draft.spans)
