"""Prompts of judges and simulators -> what the oracle answers, read off the words of the prompt alone."""

import json
import re
from collections.abc import Mapping

from autointerp.testing.tiny_chat_server.exchange import Call
from autointerp.testing.tiny_chat_server.oracle_habits import Habits
from autointerp.testing.tiny_chat_server.oracle_meaning import Meaning, read_meaning
from autointerp.testing.tiny_chat_server.oracle_pieces import Piece, yes_or_no

__all__ = [
    "Glossary",
    "judge",
    "last_message",
    "simulate_in_prompt",
    "simulate_in_reply",
    "simulate_last_token",
]

Glossary = Mapping[str, frozenset[str]]

_EXPLANATION = re.compile(r"^Explanation: (.*)$", re.MULTILINE)
_NUMBERED = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
_MARKED = re.compile(r"«(.*?)»")
_TOKEN_LINE = re.compile(r'^(\d+):(".*")$', re.MULTILINE)
_BARE_LINE = re.compile(r'".*"')
_UNKNOWN_LINE = re.compile(r'^(".*")\t\?$')


def judge(call: Call, habits: Habits, glossary: Glossary) -> list[Piece] | None:
    """A line `number: 0` or `number: 1` for each numbered excerpt; None where none is asked about.

    About a single excerpt without a number the answer is 0 or 1 alone.

    Where tokens are marked the question is about these: yes if most of the marked places hold a word that is
    meant. Else it is about the whole excerpt.
    """
    question = last_message(call)
    said = _EXPLANATION.search(question)
    head, _, excerpts = question.partition("\nExcerpts:\n")
    alone, _, excerpt = question.partition("\nExcerpt: ")
    if said is None or not (excerpts or excerpt):
        return None
    meaning = read_meaning(said[1], glossary)
    if excerpt:
        return [yes_or_no(habits.belief(_implied(meaning, excerpt), alone.strip(), excerpt))]
    pieces: list[Piece] = []
    for number, text in _NUMBERED.findall(excerpts):
        belief = habits.belief(_implied(meaning, text), head.strip(), text)
        pieces += [Piece(f"\n{number}:" if pieces else f"{number}:"), yes_or_no(belief)]
    return pieces


def _implied(meaning: Meaning, text: str) -> bool:
    marked = _MARKED.findall(text)
    if not marked:
        return meaning.occurs_in(text)
    return sum(meaning.occurs_in(run) for run in marked) > len(marked) / 2


def simulate_in_reply(call: Call, habits: Habits, glossary: Glossary) -> list[Piece] | None:
    """A line `number:"token":strength` for each numbered token; None where none is asked about."""
    question = last_message(call)
    said = _EXPLANATION.search(question)
    _, _, listed = question.partition("\nText:\n")
    lines = _TOKEN_LINE.findall(listed)
    if said is None or not lines:
        return None
    meaning = read_meaning(said[1], glossary)
    text = [
        f"{number}:{token}:{round(10 * _token_belief(said[1], listed, number, token, meaning, habits))}"
        for number, token in lines
    ]
    return [Piece("\n".join(text))]


def simulate_last_token(call: Call, habits: Habits, glossary: Glossary) -> list[Piece] | None:
    """A strength from 0 to 9 of the last of some tokens that are not numbered; None if not asked."""
    question = last_message(call)
    said = _EXPLANATION.search(question)
    _, _, listed = question.partition("\nText:\n")
    if said is None or _BARE_LINE.fullmatch(listed.rpartition("\n")[2]) is None:
        return None
    lines = listed.split("\n")
    meaning = read_meaning(said[1], glossary)
    belief = _token_belief(said[1], listed, str(len(lines)), lines[-1], meaning, habits)
    return [Piece("9" if belief > 0.5 else "0", _strengths(belief))]


def simulate_in_prompt(call: Call, habits: Habits, glossary: Glossary) -> list[Piece] | None:
    """The prompt itself, with what may stand where a strength is unknown; None where none is.

    A strength is 9 with the probability that the oracle gives to firing, else 0.
    """
    pieces: list[Piece] = []
    said, meaning = "", Meaning(frozenset())
    lines = call.prompt.split("\n")
    for place, line in enumerate(lines):
        end = "\n" if place + 1 < len(lines) else ""
        if line.startswith("Explanation: "):
            said, meaning = line.removeprefix("Explanation: "), read_meaning(line, glossary)
        unknown = _UNKNOWN_LINE.match(line)
        if unknown is None:
            pieces.append(Piece(line + end))
            continue
        belief = _token_belief(said, call.prompt, str(place), unknown[1], meaning, habits)
        pieces += [Piece(f"{unknown[1]}\t"), Piece("?", _strengths(belief)), *([Piece(end)] if end else [])]
    return pieces if any(piece.chances is not None for piece in pieces) else None


def _strengths(belief: float) -> dict[str, float]:
    rest = {str(value): 0.001 for value in range(1, 9)}
    return {"9": 0.992 * belief, "0": 0.992 * (1 - belief)} | rest


def _token_belief(said: str, text: str, place: str, token: str, meaning: Meaning, habits: Habits) -> float:
    is_implied = meaning.is_of(str(json.loads(token, strict=False)))
    return habits.belief(is_implied, said, text, place)


def last_message(call: Call) -> str:
    """The text of the last turn, which is the question; what stands before it is the same for all."""
    messages = call.body.get("messages") or ({"content": ""},)
    return str(messages[-1].get("content", ""))
