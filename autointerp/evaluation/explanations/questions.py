"""Which passages test a latent: active, random silent and hard silent ones; and how they are marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autointerp.explanation_records import Example, Passage
from autointerp.sampling.latents.evidence import TestExamples
from autointerp.sampling.samplers.catalogue import SAMPLER_NAMES
from autointerp.sampling.samplers.hashing import hashed, uniform

__all__ = [
    "HARD_SAMPLERS",
    "Question",
    "detection_questions",
    "fuzzing_questions",
    "silent_tokens",
    "simulation_questions",
]

HARD_SAMPLERS = tuple(name for name, entry in SAMPLER_NAMES.items() if entry.is_silent and name != "silent")
"""Silent text that a good explanation must still tell apart."""


@dataclass(frozen=True, eq=False)
class Question:
    """A passage that is asked about, and what only the score may know of it."""

    passage: Passage
    example: Example
    fires: bool
    """In detection: the latent fires in the passage; in fuzzing: the marked tokens are where it fires."""


def detection_questions(tested: TestExamples, *, count: int) -> list[Question]:
    """Does the latent fire here: `count` active passages over all strata, as many silent, as many hard.

    A passage is asked once: what several samplers drew counts for the first of them.
    """
    hard = _dealt([tested.of(name) for name in HARD_SAMPLERS], count)
    strata: dict[int, list[Example]] = {}
    for example in tested.of("quantiles"):
        strata.setdefault(example.stratum, []).append(example)
    active = _dealt([strata[stratum] for stratum in sorted(strata)], count)
    chosen = [*active, *tested.of("silent")[:count], *hard]
    return [Question(e.passage(), e, e.fires) for e in _once(chosen)]


def fuzzing_questions(tested: TestExamples, *, count: int, seed: int) -> list[Question]:
    """Are these the tokens where it fires: active passages marked rightly, other active ones wrongly.

    Rightly marked are those of sampler `quantiles`; wrongly marked those of `uniform` that are not among
    them, as many tokens as the rightly marked ones have in the mean, drawn by hash among those on which the
    latent does not fire.
    """
    right = [question.example for question in detection_questions(tested, count=count) if question.fires]
    taken = {example.id for example in right}
    wrong = [example for example in tested.of("uniform") if example.id not in taken][:count]
    marks = [_fired(example) for example in right]
    size = max(1, round(sum(map(len, marks)) / len(marks))) if marks else 1
    found = [Question(e.passage(marked=m), e, fires=True) for e, m in zip(right, marks, strict=True)]
    for example in wrong:
        marked = silent_tokens(example, size, seed=seed)
        if marked:
            found.append(Question(example.passage(marked=marked), example, fires=False))
    return found


def simulation_questions(tested: TestExamples, *, count: int) -> list[Question]:
    """What is the activation on each token: the strongest passages, and as many random silent ones."""
    chosen = [*tested.of("top")[:count], *tested.of("uniform")[:count], *tested.of("silent")[:count]]
    return [Question(e.passage(), e, e.fires) for e in _once(chosen)]


def _dealt(piles: Sequence[Sequence[Example]], count: int) -> list[Example]:
    """One of each pile in turn, until there are `count` or none is left."""
    longest = max(map(len, piles), default=0)
    rounds = [pile[place] for place in range(longest) for pile in piles if place < len(pile)]
    return rounds[:count]


def _once(examples: Sequence[Example]) -> list[Example]:
    """Without those whose passage came before."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.id, example)
    return list(first.values())


def _fired(example: Example) -> tuple[int, ...]:
    return tuple(place for place, activation in enumerate(example.activations) if activation != 0)


def silent_tokens(example: Example, size: int, *, seed: int) -> tuple[int, ...]:
    """Positions on which the latent does not fire, drawn by hash; as many as asked for, if there are."""
    places = np.flatnonzero(np.array(example.activations) == 0)
    keys = np.full(len(places), int(example.id.partition(":")[0], 16), dtype=np.uint64)
    order = np.argsort(uniform(hashed(seed, "marks", keys, places.astype(np.uint64))))
    return tuple(sorted(places[order[:size]].tolist()))
