"""Unigram and bigram models of a text: what predictions are worth that know no more than counts."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from scipy import sparse
from torch import Tensor

__all__ = ["TextModels"]


class TextModels:
    """Next-token probabilities from counts, smoothed so that none is 0.

    Unigram: P(w) = (c(w) + 1) / (N + V), of all tokens of text. Bigram, Witten and Bell 1991: P(w | v) =
    (c(v, w) + T(v) P(w)) / (c(v) + T(v)), T(v) the number of different tokens seen behind v; P(w) behind a
    token after which nothing was seen. No constant to tune. Memory: the distinct pairs, and V numbers.
    """

    def __init__(self, vocabulary_size: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Count.

        Args:
            vocabulary_size: V, of the subject's logits.
            parts: of the text, each its tokens and the indices of those whose next one follows in the text.
        """
        shape = (vocabulary_size, vocabulary_size)
        singles = np.ones(vocabulary_size)
        pairs = sparse.csr_array(shape)
        for tokens, heads in parts:
            singles += np.bincount(tokens, minlength=vocabulary_size)
            ones = np.ones(len(heads))
            pairs = pairs + sparse.csr_array((ones, (tokens[heads], tokens[heads + 1])), shape=shape)
        self._unigram = singles / singles.sum()
        self._pairs = sparse.csr_array(pairs)
        self._followed = np.asarray(self._pairs.sum(axis=1)).ravel()
        self._kinds = np.diff(self._pairs.indptr)

    def unigram(self, count: int) -> Float[Tensor, "prediction vocabulary"]:
        """Log-probabilities, the same for each of `count` predictions."""
        return torch.from_numpy(np.log(self._unigram)).float().expand(count, -1)

    def bigram(self, tokens: Int[Tensor, " prediction"]) -> Float[Tensor, "prediction vocabulary"]:
        """Log-probabilities of what follows each token. Memory: the result, in float64 while it is made."""
        before: Int64[np.ndarray, " prediction"] = tokens.cpu().numpy()
        followed, kinds = self._followed[before], self._kinds[before]
        total = np.where(followed > 0, followed + kinds, 1.0)
        rows = np.where(followed > 0, kinds / total, 1.0)[:, None] * self._unigram
        seen = self._pairs[before].tocoo()
        rows[seen.row, seen.col] += seen.data / total[seen.row]
        return torch.from_numpy(np.log(rows)).float()
