"""Latents of planted words, drawn as samplers draw them, and language models in this process."""

import asyncio
import random

from autointerp.config import Suite
from autointerp.explanation_records import Example, Explanation, LatentEvidence, Refusal
from autointerp.llm.language_model import ModelIdentity
from autointerp.llm.requests import Reply, Usage
from autointerp.sampling.latents.evidence import LatentCase, TestExamples
from autointerp.testing.planted_words import PLANTED, explain_words, planted_documents
from autointerp.testing.tiny_chat_server.exchange import Call
from autointerp.testing.tiny_chat_server.oracle_backend import OracleBackend

WIDTH = 12
SPLITS = ("explain", "validate", "score")


def suite_of(explanations=None, llm=None, **given):
    content = {"name": "x", "subject": {"model": "m"}, "explanations": explanations or {}, "llm": llm or {}}
    return Suite.model_validate(content | given)


def planted_cases(latents=range(4), *, each=6, seed=0, checkpoint="sae"):
    """Cases by latent; no text is of two latents or on two splits, and `each` are of every sampler."""
    return {latent: planted_case(latent, each, seed, checkpoint) for latent in latents}


def planted_case(latent, each, seed, checkpoint):
    count = 150 * each
    texts = planted_documents(count, lengths=(WIDTH, WIDTH), seed=1000 * seed + latent)
    numbered = [(latent * count + place, text.split()) for place, text in enumerate(texts)]
    sides = {
        split: side(latent, numbered[place :: len(SPLITS)], split, each) for place, split in enumerate(SPLITS)
    }
    evidence = LatentEvidence(checkpoint, latent, f"hash:{latent}", 0.02, 1.0, sides["explain"])
    return LatentCase(evidence, TestExamples(sides["validate"]), TestExamples(sides["score"]), 1.0 + latent)


def side(latent, numbered, split, each):
    found = {True: [], False: []}
    for number, text in numbered:
        values = tuple(float(word in PLANTED[latent]) for word in text)
        found[any(values)].append((number, text, values))
    firing, silent = found[True], found[False]
    draws = {
        "quantiles": firing[:each],
        "uniform": firing[each : 2 * each],
        "top": firing[2 * each : 3 * each],
        "silent": silent[:each],
        "same_token": silent[each : 2 * each],
    }
    return {
        name: tuple(
            example(
                number, text, values, split=split, sampler=name, stratum=place % 2 * (name == "quantiles")
            )
            for place, (number, text, values) in enumerate(rows)
        )
        for name, rows in draws.items()
    }


def example(number, words, values, *, split="score", sampler="quantiles", stratum=0):
    tokens = tuple(f" {word}" if place else word for place, word in enumerate(words))
    focus = max(range(len(values)), key=values.__getitem__)
    return Example(
        f"{number:016x}:0-{len(tokens)}", f"d{number}", split, sampler, stratum, tokens,
        tuple(range(len(tokens))), values, focus,
    )  # fmt: skip


def right(latent, *, explainer="highlighted"):
    return Explanation("sae", latent, explainer, explain_words(PLANTED[latent]))


class OracleModel:
    """The oracle in this process; it gives no log-probabilities, and keeps what it was asked."""

    def __init__(self, role="judge", *, answer=None):
        self.identity = ModelIdentity(role, "oracle", "local")
        self.capabilities = frozenset({"chat"})
        self.requests, self.answered = [], 0
        self._backend, self._answer = OracleBackend(), answer

    async def ask(self, request):
        self.requests.append(request)
        await asyncio.sleep(0)
        found = self._answer(request) if self._answer else None
        if found is None:
            found = await self._oracle(request)
        self.answered += 1
        return found if isinstance(found, Refusal) else Reply(found, "oracle", "print", Usage(1, 1))

    async def _oracle(self, request):
        messages = [{"role": message.role, "content": message.text} for message in request.messages]
        body = {"messages": messages, "max_tokens": request.max_tokens, "replicate": request.replicate}
        answer = await self._backend.answer(Call("/v1/chat/completions", body))
        return answer.body["choices"][0]["message"]["content"]


def models(**answers):
    """A model for each role; `answers` by role are functions of the request, None: as the oracle says."""
    return {role: OracleModel(role, answer=answers.get(role)) for role in ("explainer", "simulator", "judge")}


def asked_texts(model):
    """All that a model was sent."""
    return "\n".join(message.text for request in model.requests for message in request.messages)


def word_texts(seed, count, length=WIDTH):
    chance = random.Random(seed)
    return [" ".join(chance.choice(chance.choice(PLANTED)) for _ in range(length)) for _ in range(count)]
