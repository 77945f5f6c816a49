"""A reply of lines `number: answer` -> the answer to each numbered question, and where it stands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autointerp.explanation_records import Refusal
from autointerp.llm.requests import Reply, TokenLogprob
from autointerp.simulating.answer_masses import token_at

__all__ = ["Answered", "answer_token", "read_answers"]

_ENTRY = re.compile(
    r"""^[\s*_`\[("'{]*(?:(?:excerpt|passage|text|example|number|no\.?)\s+)?[#*_`\[("']*
    (?P<number>\d{1,4})[\s*_`\])"']*(?:[:=.)\]]|\s[-–]\s)[\s*_`\[("']*(?P<answer>\d{1,4})[\s*_`\])"'}.]*$""",
    re.IGNORECASE | re.VERBOSE,
)
_PARTS = re.compile(r"[^\n,;]+")
_LONGEST = 60
"""Characters of an entry; a longer part of the reply is no answer, and not worth matching."""


@dataclass(frozen=True)
class Answered:
    """The answer to one question."""

    answer: str
    place: int
    """Where it begins in the text that was read, in characters."""


def read_answers(text: str, count: int, answers: Sequence[str]) -> list[Answered | Refusal]:
    """The answers to questions 1 to `count`, in their order.

    A question without a line, with two lines (equal or not) or with an answer that is not allowed is refused,
    and its siblings are not. Lines that are no answers at all are passed over. A number that is nobody's
    means that the reply counts otherwise (from 0, say): then all are refused. So are they where half the
    lines give what is not allowed, as `1: 0`, `2: 3`, `4: 5` of a model that counts on: its 0 is no answer.

    Args:
        text: the reply.
        count: how many questions were asked.
        answers: what may be answered, as decimal digits.
    """
    found = _entries(text)
    foreign = [number for number in found if not 1 <= number <= count]
    if foreign:
        refusal = Refusal("unparsable", f"an answer is numbered {foreign[0]}, asked were 1 to {count}")
        return [refusal] * count
    given = [said.answer for entries in found.values() for said in entries]
    others = [answer for answer in given if answer not in answers]
    if others and 2 * len(others) >= len(given):
        return [Refusal("unparsable", f"{len(others)} of {len(given)} lines answer otherwise")] * count
    return [_single(found.get(number, []), number, answers) for number in range(1, count + 1)]


def answer_token(reply: Reply, question: int, answer: str) -> tuple[TokenLogprob, str] | None:
    """The token of a reply that answers a question, and what it covers before the answer (mostly nothing).

    The tokens' own text is read, since it need not be the reply's to the character; it must give the same
    answer.

    Args:
        reply: with log-probabilities.
        question: from 1.
        answer: what `read_answers` found in the reply's text.
    """
    entries = reply.logprobs or ()
    text = "".join(entry.token for entry in entries)
    found = _single(_entries(text).get(question, []), question, (answer,))
    if isinstance(found, Refusal):
        return None
    return token_at(entries, found.place)


def _entries(text: str) -> dict[int, list[Answered]]:
    """By number, what lines say."""
    found: dict[int, list[Answered]] = {}
    for part in _PARTS.finditer(text):
        entry = _ENTRY.match(part.group()) if len(part.group()) <= _LONGEST else None
        if entry is not None:
            said = Answered(entry["answer"], part.start() + entry.start("answer"))
            found.setdefault(int(entry["number"]), []).append(said)
    return found


def _single(said: Sequence[Answered], number: int, answers: Sequence[str]) -> Answered | Refusal:
    if not said:
        return Refusal("unparsable", f"no line answers number {number}")
    if len(said) > 1:
        return Refusal("unparsable", f"{len(said)} lines answer number {number}")
    if said[0].answer not in answers:
        return Refusal("unparsable", f"number {number} is answered {said[0].answer}")
    return said[0]
