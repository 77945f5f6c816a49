"""Draws balanced examples from candidates: as many of either label on each token, on each side of the split."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped

from autointerp.probing.drawing import TEST_FRACTION, ranks_within

__all__ = ["Candidates", "Drawn", "draw_examples"]

PER_TEXT = 3
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
    """Positives there were, at most `PER_TEXT` of a text."""
    matched_count: int
    """Those of them that have a negative with the same token on their side of the split."""


def draw_examples(candidates: Candidates, *, examples: int) -> Drawn:
    """At most `examples`, half of them positive, about 40 % to test.

    Every positive has a negative with the same token on the same side, so that the token's identity tells
    nothing. Where there are more pairs than wanted, they are dealt in rounds, one pair of every token a round:
    no token is most of a task because it is common.
    """
    capped = candidates.take(
        ranks_within((candidates.label, candidates.text), candidates.order) < PER_TEXT
    )
    rank = ranks_within((capped.label, capped.token, capped.is_test), capped.order)
    key = capped.token * 2 + capped.is_test
    _, group = np.unique(key, return_inverse=True)
    size = int(group.max()) + 1 if len(group) else 0
    pairs = np.minimum(
        np.bincount(group[capped.label], minlength=size), np.bincount(group[~capped.label], minlength=size)
    )
    matched = rank < pairs[group] if size else np.zeros(0, dtype=bool)
    kept = np.flatnonzero(matched)
    chosen = [
        _first_pairs(capped, kept[capped.is_test[kept] == side], rank, wanted)
        for side, wanted in zip((False, True), _shares(examples), strict=True)
    ]
    return Drawn(
        capped.take(np.sort(np.concatenate(chosen))),
        int(capped.label.sum()),
        int((matched & capped.label).sum()),
    )


def _shares(examples: int) -> tuple[int, int]:
    """Pairs to train and to test on."""
    test = round(examples / 2 * TEST_FRACTION)
    return examples // 2 - test, test


def _first_pairs(
    capped: Candidates, kept: Int[np.ndarray, " kept"], rank: Int[np.ndarray, " candidate"], wanted: int
) -> Int[np.ndarray, " chosen"]:
    """Both candidates of the first `wanted` pairs; positives and negatives of a pair share token and rank."""
    positives = kept[capped.label[kept]]
    negatives = kept[~capped.label[kept]]
    # Sorted by token and rank, the n-th positive and the n-th negative are a pair.
    positives = positives[np.lexsort((rank[positives], capped.token[positives]))]
    negatives = negatives[np.lexsort((rank[negatives], capped.token[negatives]))]
    first = np.lexsort((capped.order[positives], rank[positives]))[:wanted]
    return np.concatenate([positives[first], negatives[first]])
