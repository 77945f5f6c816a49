"""Prompts with one answer in all -> the oracle's: an intruder, a continuation, words it expects."""

import re
from collections import Counter

from autointerp.testing.tiny_chat_server.exchange import Call
from autointerp.testing.tiny_chat_server.oracle_habits import Habits
from autointerp.testing.tiny_chat_server.oracle_judging import Glossary, last_message
from autointerp.testing.tiny_chat_server.oracle_meaning import read_meaning
from autointerp.testing.tiny_chat_server.oracle_pieces import Piece

__all__ = ["choose_continuation", "expect_words", "find_intruder"]

_EXPLANATION = re.compile(r"^Explanation: (.*)$", re.MULTILINE)
_NUMBERED = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
_CONTINUATION = re.compile(r"^([AB]): (.*)$", re.MULTILINE)
_MARKED = re.compile(r"«(.*?)»")
_WORD = re.compile(r"\w[\w'-]*|[^\w\s]")
_PART = re.compile(r"\s*\w[\w'-]*|\s*[^\w\s]|\s+")
_EXPECTED, _UNEXPECTED = 0.5, 0.05


def find_intruder(call: Call, habits: Habits, glossary: Glossary) -> list[Piece] | None:
    """The number of the excerpt whose marked words are least in common with the others'; None if not asked.

    Words of one phrase of the glossary count as the same word.
    """
    question = last_message(call)
    if not question.startswith("Excerpts:\n") or "intruder" not in call.prompt:
        return None
    family = {word: phrase for phrase, words in glossary.items() for word in words}
    marked = {
        number: {family.get(word, word) for run in _MARKED.findall(text) for word in _WORD.findall(run)}
        for number, text in _NUMBERED.findall(question)
    }
    often = Counter(word for words in marked.values() for word in words)
    shared = {number: max((often[word] for word in words), default=0) for number, words in marked.items()}
    picked = min(shared, key=lambda number: (shared[number], number))
    beliefs = {number: habits.belief(number == picked, question, number) for number in marked}
    return [_chosen(beliefs)]


def choose_continuation(call: Call, habits: Habits, glossary: Glossary) -> list[Piece] | None:
    """A or B, whichever holds more of the words that are meant; None where there are no two."""
    question = last_message(call)
    said = _EXPLANATION.search(question)
    texts = dict(_CONTINUATION.findall(question))
    if said is None or set(texts) != {"A", "B"}:
        return None
    meaning = read_meaning(said[1], glossary)
    counts = {letter: sum(map(meaning.is_of, _WORD.findall(text))) for letter, text in texts.items()}
    if counts["A"] == counts["B"]:
        return [_chosen({"A": 0.5, "B": 0.5})]
    belief = habits.belief(counts["A"] > counts["B"], question)
    return [_chosen({"A": belief, "B": 1 - belief})]


def expect_words(call: Call, habits: Habits, glossary: Glossary) -> list[Piece] | None:
    """The prompt itself, as one who expects the words that an explanation in it means; None without one.

    A word of the text behind it that is meant has a probability of 0.5, any other one of 0.05.
    """
    head, mark, text = call.prompt.partition("\n\nText:\n")
    said = _EXPLANATION.search(head)
    if said is None or not mark:
        return None
    meaning = read_meaning(said[1], glossary)
    pieces = [Piece(head + mark)]
    for place, part in enumerate(_PART.findall(text)):
        belief = habits.belief(meaning.is_of(part), said[1], text, str(place))
        chance = _EXPECTED if belief > 0.5 else _UNEXPECTED
        pieces.append(Piece(part, {part: chance, " something": 1 - chance}))
    return pieces


def _chosen(beliefs: dict[str, float]) -> Piece:
    total = sum(beliefs.values())
    return Piece(max(beliefs, key=lambda answer: beliefs[answer]), {a: b / total for a, b in beliefs.items()})
