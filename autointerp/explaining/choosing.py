"""Which of a latent's examples an explainer shows, in which order: the same however they come in."""

import hashlib
from collections.abc import Iterable, Sequence

from autointerp.explanation_records import Example, LatentEvidence

__all__ = ["FIRING_SAMPLERS", "HARD_SAMPLERS", "dealt", "firing_examples", "mixed", "peak", "silent_examples"]

FIRING_SAMPLERS = ("quantiles", "uniform", "importance", "top")
"""Samplers of contexts in which the latent fires; explainers take the first that has any."""
HARD_SAMPLERS = ("same_token", "near_misses", "neighbours", "similar", "silent")
"""Samplers of contexts in which it does not, those first that tell most."""


def peak(example: Example) -> float:
    """Its largest |activation|."""
    return max((abs(activation) for activation in example.activations), default=0.0)


def mixed(examples: Iterable[Example]) -> list[Example]:
    """In the order of a hash of their ids, which is an order at random and always the same."""
    return sorted(examples, key=lambda example: (_hash(example.id), example.id, example.focus))


def dealt(groups: Sequence[Sequence[Example]], count: int) -> list[Example]:
    """At most `count`, one of each group in turn, as the groups have any."""
    longest = max((len(group) for group in groups), default=0)
    turns = [group[turn] for turn in range(longest) for group in groups if turn < len(group)]
    return turns[:count]


def firing_examples(
    evidence: LatentEvidence, count: int, *, samplers: Sequence[str] = FIRING_SAMPLERS
) -> list[Example]:
    """At most `count` contexts in which it fires, dealt over the strata of strength, strongest first.

    Args:
        evidence: what is known of the latent.
        count: how many at most.
        samplers: the first of these that has any is taken.
    """
    for sampler in samplers:
        found = [example for example in evidence.examples.get(sampler, ()) if example.fires]
        if not found:
            continue
        if sampler == "top":
            chosen = sorted(mixed(found), key=peak, reverse=True)[:count]
        else:
            strata = sorted({example.stratum for example in found}, reverse=True)
            groups = [mixed(example for example in found if example.stratum == each) for each in strata]
            chosen = dealt(groups, count)
        return sorted(chosen, key=peak, reverse=True)
    return []


def silent_examples(
    evidence: LatentEvidence, count: int, *, samplers: Sequence[str] = HARD_SAMPLERS
) -> list[Example]:
    """At most `count` contexts in which it does not fire, of each sampler in turn, no context twice."""
    groups: list[list[Example]] = []
    seen: set[tuple[str, ...]] = set()
    for sampler in samplers:
        group = []
        for example in mixed(evidence.examples.get(sampler, ())):
            if not example.fires and example.tokens not in seen:
                seen.add(example.tokens)
                group.append(example)
        groups.append(group)
    return dealt(groups, count)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
