"""Which passages test a latent: active, random silent and hard silent ones; and how they are marked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

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
    "simulation_questions",
    "wrong_marks",
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

    A passage is asked once: what several samplers drew counts for the first of them. Of a stratum of which
    only a part is asked about, that part stands for all of it: its weights grow.
    """
    hard = _dealt([tested.of(name) for name in HARD_SAMPLERS], count)
    strata: dict[int, list[Example]] = {}
    for example in tested.of("quantiles"):
        strata.setdefault(example.stratum, []).append(example)
    active = _reweighted(_dealt([strata[stratum] for stratum in sorted(strata)], count), strata)
    chosen = [*active, *tested.of("silent")[:count], *hard]
    return [Question(e.passage(), e, e.fires) for e in _once(chosen)]


def fuzzing_questions(tested: TestExamples, *, count: int, seed: int) -> list[Question]:
    """Are these the tokens where it fires: active passages marked rightly, other active ones wrongly.

    Rightly marked are those of sampler `quantiles`; wrongly marked (`wrong_marks`) those of `uniform` from
    contexts that are not among them. Only where there is none, the same contexts serve again, so that rare
    latents have wrongly marked passages too.
    """
    right = [question.example for question in detection_questions(tested, count=count) if question.fires]
    marks = [_fired(example) for example in right]
    found = [Question(e.passage(marked=m), e, fires=True) for e, m in zip(right, marks, strict=True)]
    taken = {_context(example) for example in right}
    others = tested.of("uniform")
    fresh = [example for example in others if _context(example) not in taken]
    for example in (fresh or others)[:count]:
        marked = wrong_marks(example, marks, seed=seed)
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


def wrong_marks(example: Example, right: Sequence[tuple[int, ...]], *, seed: int) -> tuple[int, ...]:
    """Positions on which the latent does not fire, at the places of one passage's right marks.

    Right marks stand where passages are cut around (the middle, mostly) and often side by side; marks put
    anywhere would be told from them by their place alone. So the marks of a rightly marked passage are taken,
    drawn by hash, so that their number tells nothing either, and each moved to the nearest token on which
    the latent does not fire.

    Args:
        example: the passage.
        right: marks of rightly marked passages; without any, the middle is marked.
        seed: of the draw.
    """
    pattern = _drawn(right, example, seed) if right else (len(example.tokens) // 2,)
    free = [place for place, activation in enumerate(example.activations) if activation == 0]
    before = _drawn((True, False), example, seed)
    chosen = []
    for mark in pattern[: len(free)]:
        nearest = min(free, key=lambda place: (abs(place - mark), (place > mark) == before))
        free.remove(nearest)
        chosen.append(nearest)
    return tuple(sorted(chosen))


_T = TypeVar("_T")


def _drawn(choices: Sequence[_T], example: Example, seed: int) -> _T:
    """One of them, by the seed and the passage alone."""
    key = np.array([int(_context(example), 16)], dtype=np.uint64)
    focus = np.array([example.focus], dtype=np.uint64)
    return choices[int(uniform(hashed(seed, "marks", key, focus))[0] * len(choices))]


def _context(example: Example) -> str:
    return example.id.partition(":")[0]


def _reweighted(chosen: Sequence[Example], strata: Mapping[int, Sequence[Example]]) -> list[Example]:
    """Each with its stratum's weight shared among those that were chosen of it."""
    asked = Counter(example.stratum for example in chosen)
    factors = {stratum: len(strata[stratum]) / number for stratum, number in asked.items()}
    return [
        example
        if factors[example.stratum] == 1
        else replace(example, weight=example.weight * factors[example.stratum])
        for example in chosen
    ]
