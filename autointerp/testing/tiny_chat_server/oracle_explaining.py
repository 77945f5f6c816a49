"""Prompts of explainers -> what the oracle says: the words that are highlighted wherever they stand."""

import json
import random
import re
from collections import Counter

from autointerp.testing.tiny_chat_server.exchange import Call
from autointerp.testing.tiny_chat_server.oracle_meaning import read_meaning

__all__ = ["explain", "propose"]

_EXCERPT = re.compile(r"^[+-]?\d+\. (.*?)(?: \|[\d+ ]*)?$", re.MULTILINE)
_MARKED = re.compile(r"«(.*?)»")
_PAIR = re.compile(r"^(.*)\t(\d+)$", re.MULTILINE)
_RAISED = re.compile(r"^(?:Raised|Lost): (.*)$", re.MULTILINE)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORD = re.compile(r"\w[\w'-]*")
_PROPOSAL = re.compile(r"Write (\d+) lines (?:with|that begin with) \+")
_MOST_WORDS = 8
_FILLERS = tuple("some people went there and saw many old things in another town on that sunny day".split())  # noqa: SIM905


def explain(call: Call) -> str | None:
    """A line `Explanation: ...` on the last message, or None where no excerpts, pairs or lists are shown."""
    if "Explanation: <one sentence>" not in call.prompt:
        return None
    shown = str(call.body["messages"][-1]["content"])
    words = _always_marked(shown) or _always_positive(shown) or _raised(shown)
    if not words:
        said = "Nothing that these texts have in common"
    elif len(words) == 1:
        said = f'The word "{words[0]}"'
    else:
        said = "One of the words " + ", ".join(f'"{word}"' for word in words)
    thought = f"I see {len(words)} words.\n" if "think aloud" in call.prompt else ""
    return f"{thought}Explanation: {said}"


def propose(call: Call) -> str | None:
    """Texts with the words that are meant, on lines with +, and without, on lines with -; else None."""
    asked = _PROPOSAL.search(call.prompt)
    if asked is None:
        return None
    chance = random.Random(call.key)
    words = sorted(read_meaning(str(call.body["messages"][-1]["content"])).words) or ["nothing"]
    lines = []
    for sign in "+-":
        for _ in range(int(asked[1])):
            text = chance.sample(_FILLERS, 8)
            if sign == "+":
                text.insert(chance.randint(1, 7), chance.choice(words))
            lines.append(f"{sign} {' '.join(text)}")
    return "\n".join(lines)


def _always_marked(shown: str) -> list[str]:
    """Words that are highlighted and never stand there otherwise, the most frequent first."""
    marked, plain = Counter[str](), set[str]()
    for line in _EXCERPT.findall(shown):
        runs = _MARKED.findall(line)
        marked.update(word for run in runs for word in _WORD.findall(run))
        plain.update(_WORD.findall(_MARKED.sub(" ", line)))
    return _most(marked, plain)


def _always_positive(shown: str) -> list[str]:
    """The same of a list of tokens and strengths."""
    marked, plain = Counter[str](), set[str]()
    for token, value in _PAIR.findall(shown):
        if int(value) > 0:
            marked.update(_WORD.findall(token))
        else:
            plain.update(_WORD.findall(token))
    return _most(marked, plain)


def _raised(shown: str) -> list[str]:
    tokens = [
        json.loads(text, strict=False).strip()
        for line in _RAISED.findall(shown)
        for text in _STRING.findall(line)
    ]
    return list(dict.fromkeys(token for token in tokens if token and '"' not in token))[:3]


def _most(marked: Counter[str], plain: set[str]) -> list[str]:
    return [word for word, _ in marked.most_common() if word not in plain][:_MOST_WORDS]
