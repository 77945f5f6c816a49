"""Measures how much of a probe task one token gives away."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

__all__ = ["LEXICAL_AUROC", "identity_auroc", "presence_auroc"]

LEXICAL_AUROC = 0.8
"""A task that one token solves better than this asks about words, not about what the subject made of them."""
_OFFSETS = (0, 1, 2, 3)
_NO_TOKEN = -1


def identity_auroc(
    tokens: Sequence[Sequence[int]],
    position: Int[np.ndarray, " probe_example"],
    label: Bool[np.ndarray, " probe_example"],
    is_test: Bool[np.ndarray, " probe_example"],
) -> float | None:
    """Area under the ROC curve of the identity of one token: the marked one or one of the three before it.

    The score of a token is its log-odds among the training examples, log((positives + 1) / (negatives + 1));
    the best of the four places on the test part is told. In [0, 1], .5 is chance; near .5 is better.

    Args:
        tokens: of every example's text.
        position: of the marked token.
        label: of every example.
        is_test: whether an example tests.

    Returns:
        None if the test part lacks a label.
    """
    areas = []
    for offset in _OFFSETS:
        places = position - offset
        identity = np.array(
            [text[place] if place >= 0 else _NO_TOKEN for text, place in zip(tokens, places, strict=True)],
            dtype=np.int64,
        )
        _, index = np.unique(identity, return_inverse=True)
        size = int(index.max()) + 1 if len(index) else 0
        positives = np.bincount(index[label & ~is_test], minlength=size)
        negatives = np.bincount(index[~label & ~is_test], minlength=size)
        log_odds = np.log((positives + 1) / (negatives + 1))
        areas.append(_auroc(log_odds[index][is_test], label[is_test]))
    measured = [area for area in areas if area is not None]
    return max(measured) if measured else None


def presence_auroc(
    tokens: Sequence[Sequence[int]],
    label: Bool[np.ndarray, " probe_example"],
    is_test: Bool[np.ndarray, " probe_example"],
) -> float | None:
    """Area under the ROC curve of whether one token occurs in the text; the token is chosen on train.

    In [0, 1], .5 is chance; None if either part lacks a label.
    """
    distinct = [np.unique(np.asarray(text, dtype=np.int64)) for text in tokens]
    owner = np.repeat(np.arange(len(distinct)), [len(text) for text in distinct])
    flat = np.concatenate(distinct) if distinct else np.zeros(0, dtype=np.int64)
    train = {side: int((label[~is_test] == side).sum()) for side in (True, False)}
    if not all(train.values()):
        return None
    size = int(flat.max()) + 1 if len(flat) else 1
    in_train = ~is_test[owner]
    shares = [
        np.bincount(flat[in_train & (label[owner] == side)], minlength=size) / train[side]
        for side in (True, False)
    ]
    difference = shares[0] - shares[1]
    best = int(np.argmax(np.abs(difference)))
    score = np.sign(difference[best]) * np.bincount(owner[flat == best], minlength=len(distinct))
    return _auroc(score[is_test].astype(np.float64), label[is_test])


def _auroc(score: Float[np.ndarray, " test"], label: Bool[np.ndarray, " test"]) -> float | None:
    """Mann-Whitney U over the number of pairs; ties count half."""
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return None
    rank_sum = float(rankdata(score)[label].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
