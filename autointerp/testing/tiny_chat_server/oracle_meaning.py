"""What an explanation with quoted words says of a token or of a text; all that the oracle understands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Meaning", "read_meaning"]

_QUOTED = re.compile(r'"([^"\n]{1,60})"|“([^”\n]{1,60})”|`([^`\n]{1,60})`')


@dataclass(frozen=True)
class Meaning:
    """Words on which something is said to fire; none: on nothing."""

    words: frozenset[str]

    def is_of(self, token: str) -> bool:
        """Whether a token is one of the words; blanks around it do not count."""
        return token.strip() in self.words

    def occurs_in(self, text: str) -> bool:
        """Whether one of the words stands in a text, as a whole word."""
        return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in self.words)


def read_meaning(explanation: str, glossary: Mapping[str, frozenset[str]] | None = None) -> Meaning:
    """The meaning of an explanation: the words that it quotes, and those of the phrases in it that are known.

    Args:
        explanation: its text.
        glossary: phrase -> the words that it stands for, such as `days of the week`.
    """
    quoted = {next(filter(None, found.groups())).strip() for found in _QUOTED.finditer(explanation)}
    known = [words for phrase, words in (glossary or {}).items() if phrase in explanation]
    return Meaning(frozenset(quoted - {""}).union(*known))
