"""A scripted language model, examples made by hand, and evidence sampled from a planted latent."""

import random

from autointerp.explanation_records import Example, LatentEvidence, Refusal
from autointerp.llm.language_model import ModelIdentity
from autointerp.llm.requests import Reply, Usage


class ScriptedModel:
    """Answers by a function of the request, and keeps the requests."""

    def __init__(self, respond):
        self.respond, self.requests = respond, []
        self.identity = ModelIdentity("explainer", "scripted", "local")
        self.capabilities = frozenset({"chat"})

    async def ask(self, request):
        self.requests.append(request)
        answer = self.respond(request)
        if isinstance(answer, Refusal | Reply):
            return answer
        return Reply(answer, "scripted-1", "print", Usage(1, 1))


def example(tokens, activations, *, sampler="quantiles", focus=None, stratum=0, name=None, weight=1.0):
    tokens, activations = tuple(tokens), tuple(float(value) for value in activations)
    if focus is None:
        focus = max(range(len(tokens)), key=lambda place: abs(activations[place]))
    name = name or f"{sampler}:{''.join(tokens)}:{focus}"
    return Example(
        name, f"doc of {name}", "explain", sampler, stratum, tokens, tuple(range(len(tokens))), activations,
        focus, weight,
    )  # fmt: skip


def evidence_of(*examples, density=0.01, **effects):
    by_sampler = {}
    for each in examples:
        by_sampler.setdefault(each.sampler, []).append(each)
    strongest = [abs(value) for each in examples for value in each.activations]
    return LatentEvidence(
        checkpoint="sae", latent=7, id="abc:7", density=density, maximum=max(strongest, default=0.0),
        examples={name: tuple(rows) for name, rows in by_sampler.items()}, **effects,
    )  # fmt: skip


def shuffled(evidence, seed=0):
    """The same evidence, its examples in another order and its samplers too."""
    mixer = random.Random(seed)
    names = list(evidence.examples)
    mixer.shuffle(names)
    examples = {}
    for name in names:
        rows = list(evidence.examples[name])
        mixer.shuffle(rows)
        examples[name] = tuple(rows)
    fields = {key: getattr(evidence, key) for key in ("promoted", "demoted", "ablated", "maximum", "id")}
    return LatentEvidence("sae", 7, density=evidence.density, examples=examples, **fields)


class PlantedText:
    """Random text and a latent that fires by a rule; drawn from as the samplers draw."""

    def __init__(self, words, rule, *, contexts=2000, length=16, seed=0, weights=None):
        draw = random.Random(seed)
        self.contexts = [tuple(draw.choices(words, weights, k=length)) for _ in range(contexts)]
        self.activations = [
            tuple(float(rule(tokens, place)) for place in range(length)) for tokens in self.contexts
        ]

    def probability(self, condition):
        """Brute force: share of the places that meet the condition on which the latent fires."""
        hits = [
            activations[place] != 0
            for tokens, activations in zip(self.contexts, self.activations, strict=True)
            for place in range(len(tokens))
            if condition(tokens, place)
        ]
        return sum(hits) / len(hits)

    @property
    def density(self):
        return self.probability(lambda tokens, place: True)

    def evidence(self, *, each=30, seed=1, same_token=0):
        draw = random.Random(seed)
        rows = list(zip(self.contexts, self.activations, strict=True))
        firing = [row for row in rows if any(row[1])]
        silent = [row for row in rows if not any(row[1])]
        firings = [(row, place) for row in firing for place, value in enumerate(row[1]) if value]
        found = []
        for name, population in (("quantiles", firing), ("silent", silent)):
            drawn = draw.sample(population, min(each, len(population)))
            for number, (tokens, values) in enumerate(drawn):
                weight = len(population) / len(drawn)
                found.append(example(tokens, values, sampler=name, name=f"{name} {number}", weight=weight))
        drawn = draw.sample(firings, min(each, len(firings)))
        for number, ((tokens, values), place) in enumerate(drawn):
            weight = len(firings) / len(drawn)
            found.append(
                example(tokens, values, sampler="uniform", name=f"u {number}", focus=place, weight=weight)
            )
        typical = {row[0][place] for row, place in firings}
        places = [(row, place) for row in silent for place, token in enumerate(row[0]) if token in typical]
        for number, ((tokens, values), place) in enumerate(draw.sample(places, min(same_token, len(places)))):
            found.append(example(tokens, values, sampler="same_token", name=f"s {number}", focus=place))
        return evidence_of(*found, density=self.density)
