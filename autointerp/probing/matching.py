"""Draws balanced examples: as many of either label on each token, on each side of the split."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped

from autointerp.probing.drawing import TEST_FRACTION, ranks_within

__all__ = ["PER_TEXT", "Candidates", "Drawn", "draw_examples"]

PER_TEXT = 4
"""Candidates of either label that one text gives to a task, at most."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What could be an example of one task."""

    text: Int[np.ndarray, " candidate"]
    position: Int[np.ndarray, " candidate"]
    """Of the marked token; -1 where a whole text is the example."""
    token: Int[np.ndarray, " candidate"]
    """What examples are matched on; one and the same where there is nothing to match."""
    label: Bool[np.ndarray, " candidate"]
    is_test: Bool[np.ndarray, " candidate"]
    order: Shaped[np.ndarray, " candidate"]
    """The draw: lower comes first."""

    def take(self, chosen: Bool[np.ndarray, " candidate"] | Int[np.ndarray, " chosen"]) -> "Candidates":
        """Some of them."""
        return Candidates(
            self.text[chosen],
            self.position[chosen],
            self.token[chosen],
            self.label[chosen],
            self.is_test[chosen],
            self.order[chosen],
        )


@dataclass(frozen=True, eq=False)
class Drawn:
    """Examples, and what they were drawn from."""

    examples: Candidates
    positive_count: int
    """Positives there were."""
    matched_count: int
    """Those of them that have a negative of their own with the same token on their side of the split."""


def draw_examples(candidates: Candidates, *, examples: int) -> Drawn:
    """At most `examples`, half of them positive, about 40 % to test.

    Every positive has a negative with the same token on the same side, so that the token's identity tells
    nothing. Pairs are dealt in rounds, one pair of every token a round: no token is most of a task because it
    is common. A text gives at most `PER_TEXT` examples of either label.
    """
    _, group = np.unique(candidates.token * 2 + candidates.is_test, return_inverse=True)
    size = int(group.max()) + 1 if len(group) else 0
    label = candidates.label
    pairs = np.minimum(np.bincount(group[label], minlength=size), np.bincount(group[~label], minlength=size))
    rank = ranks_within((label, group), candidates.order)
    matched = np.flatnonzero(rank < pairs[group]) if size else np.zeros(0, dtype=np.int64)
    # Sorted by group and rank, the n-th positive and the n-th negative are a pair.
    in_pairs = [
        side[np.lexsort((rank[side], group[side]))]
        for side in (matched[label[matched]], matched[~label[matched]])
    ]
    both = np.stack(in_pairs, axis=1)
    both = both[np.lexsort((candidates.order[both[:, 0]], rank[both[:, 0]]))]
    chosen = _within_limits(candidates, both, examples=examples)
    return Drawn(candidates.take(np.sort(chosen)), int(label.sum()), len(both))


def _within_limits(
    candidates: Candidates, both: Int[np.ndarray, "pair 2"], *, examples: int
) -> Int[np.ndarray, " chosen"]:
    """The first pairs, as many as a side wants and a text may give."""
    test = round(examples / 2 * TEST_FRACTION)
    wanted = {True: test, False: examples // 2 - test}
    given: Counter[tuple[int, int]] = Counter()
    chosen: list[int] = []
    sides = candidates.is_test[both[:, 0]].tolist()
    texts = candidates.text[both].tolist()
    for side, pair, owners in zip(sides, both.tolist(), texts, strict=True):
        keys = list(enumerate(owners))
        if wanted[side] and all(given[key] < PER_TEXT for key in keys):
            wanted[side] -= 1
            given.update(keys)
            chosen.extend(pair)
    return np.asarray(chosen, dtype=np.int64)
