"""A language model in this process that answers by a function, for all tests of simulators and judges."""

import asyncio
import math
import re

import pytest

from autointerp.explanation_records import Explanation, Passage, Refusal
from autointerp.llm.language_model import ModelIdentity
from autointerp.llm.requests import Reply, TokenLogprob, Usage


class FakeModel:
    """Answers with what `respond(request)` returns; keeps the requests."""

    def __init__(self, respond, capabilities=("chat",)):
        self.respond, self.capabilities, self.requests = respond, frozenset(capabilities), []
        self.identity = ModelIdentity("judge", "fake", "local")

    async def ask(self, request):
        self.requests.append(request)
        await asyncio.sleep(0)
        answer = self.respond(request)
        return answer if isinstance(answer, Reply | Refusal) else reply_of(answer)


def reply_of(text, logprobs=None):
    return Reply(text, "fake", "", Usage(1, 1), None if logprobs is None else tuple(logprobs))


def pieces(text):
    """The text as tokens: words with their blank, single digits, single other characters."""
    return re.findall(r" ?[A-Za-z]+|[0-9]|\n|[^A-Za-z0-9\n]", text)


def numbered_excerpts(request):
    """What a reader of the prompt finds: (explanation, [(number, line)])."""
    user = request.messages[-1].text
    explanation = re.search(r"^Explanation: (.*)$", user, re.MULTILINE)[1]
    lines = user.split("\n\nExcerpts:\n")[1].split("\n")
    return explanation, [(int(line.split(". ", 1)[0]), line.split(". ", 1)[1]) for line in lines]


def alternatives(masses):
    """TokenLogprob.top of probabilities by text."""
    found = [(text, math.log(mass)) for text, mass in masses.items()]
    return tuple(sorted(found, key=lambda pair: -pair[1]))


def entry(text, masses=None):
    top = alternatives(masses or {})
    return TokenLogprob(text, dict(top).get(text, -0.1), top)


def explanation_of(text, **more):
    return Explanation("checkpoint", 3, "highlighted", text, **more)


def passages_of(*texts, marked=()):
    return [Passage(f"id{place}", tuple(pieces(text)), marked) for place, text in enumerate(texts)]


class Kit:
    """What tests of this folder share (test modules cannot import one another)."""

    model = FakeModel
    reply = staticmethod(reply_of)
    pieces = staticmethod(pieces)
    excerpts = staticmethod(numbered_excerpts)
    alternatives = staticmethod(alternatives)
    entry = staticmethod(entry)
    explanation = staticmethod(explanation_of)
    passages = staticmethod(passages_of)
    run = staticmethod(asyncio.run)


@pytest.fixture
def kit():
    return Kit


@pytest.fixture
def word_judge():
    """Respond function: excerpt n is a yes if it holds the explanation's word (marked, where marks are)."""

    def respond(request):
        word, lines = numbered_excerpts(request)
        is_marked = "«" in request.messages[-1].text
        found = []
        for number, line in lines:
            text = " ".join(re.findall("«(.*?)»", line)) if is_marked else line
            found.append(f"{number}: {int(word in text)}")
        return "\n".join(found)

    return respond
