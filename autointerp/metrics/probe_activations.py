"""Activations on items, kept as what fires, and the latent that recovers a known feature best."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.metrics.probe_pooling import Items
from autointerp.metrics.probe_search import ProbedTask

__all__ = ["FeatureDetector", "PooledActivations", "best_detector"]

_TOKENS = 4096
"""Vectors that are encoded at a time."""


class PooledActivations:
    """Activations on items, pooled over their tokens. Memory: what fires, 12 bytes each."""

    def __init__(self, matrix: sparse.csr_array, device: torch.device) -> None:
        """Keep what fires: `matrix` is (item, latent)."""
        self.matrix, self.device = matrix, device
        self.item_count, self.latent_count = matrix.shape
        self._by_latent: sparse.csc_array | None = None

    @classmethod
    def encoded(
        cls, sae: SparseAutoencoder, x: Float[Tensor, "token d_model"], items: Items
    ) -> "PooledActivations":
        """Encode the token vectors that items point into, some at a time, and pool."""
        parts = [_encoded(sae, x, items.only(part)) for part in _parts(items)]
        empty = sparse.csr_array((0, sae.latent_count), dtype=np.float32)
        return cls(sparse.csr_array(sparse.vstack([empty, *parts], format="csr")), sae.device)

    def only(self, items: Int[np.ndarray, " item"]) -> "PooledActivations":
        """On some items."""
        return PooledActivations(sparse.csr_array(self.matrix[items]), self.device)

    def of(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent item"]:
        """Of some latents on all items, dense."""
        if self._by_latent is None:
            self._by_latent = sparse.csc_array(self.matrix)
        return torch.from_numpy(self._by_latent[:, latents.numpy()].toarray().T).to(self.device)


def _parts(items: Items) -> Iterator[np.ndarray]:
    """Items in order, as many at a time as have about so many tokens together."""
    ends = np.cumsum(items.stop - items.start)
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _TOKENS, side="right")))
        yield np.arange(first, last)
        first = last


def _encoded(sae: SparseAutoencoder, x: Tensor, items: Items) -> sparse.csr_array:
    """What fires on some items."""
    length = items.stop - items.start
    rows = np.concatenate([np.arange(a, b) for a, b in zip(items.start, items.stop, strict=True)])
    found = sae.encode_sparse(x[torch.from_numpy(rows)])
    parts = (found.values.float(), found.indices, found.offsets)
    per_token = sparse.csr_array(
        tuple(part.cpu().numpy() for part in parts), shape=(len(rows), sae.latent_count)
    )
    if bool((length == 1).all()):
        return per_token
    item = np.repeat(np.arange(len(length)), length)
    is_max = np.array([kind == "max" for kind in items.pooling])
    weight = np.where(is_max, 0.0, 1.0 / length)[item]
    mean = sparse.csr_array((weight, item, np.arange(len(rows) + 1)), shape=(len(rows), len(length))).T
    return sparse.csr_array((mean @ per_token + _maxima(per_token, item, is_max)).astype(np.float32))


def _maxima(per_token: sparse.csr_array, item: np.ndarray, is_max: np.ndarray) -> sparse.csr_array:
    """Largest value over an item's tokens, 0 (not firing) among them; rows of other items are empty."""
    entries = sparse.coo_array(per_token)
    owner = item[entries.row]
    keep = is_max[owner] & (entries.data > 0)
    owner, latent, value = owner[keep], entries.col[keep], entries.data[keep]
    order = np.lexsort((-value, latent, owner))
    owner, latent, value = owner[order], latent[order], value[order]
    is_first = np.ones(len(owner), dtype=bool)
    is_first[1:] = (owner[1:] != owner[:-1]) | (latent[1:] != latent[:-1])
    shape = (len(is_max), per_token.shape[1])
    return sparse.csr_array((value[is_first], (owner[is_first], latent[is_first])), shape=shape)


@dataclass(frozen=True)
class FeatureDetector:
    """The latent that, firing above a threshold, best says yes where a task does."""

    latent: int | None
    """None where no latent fires on a positive example of train."""
    threshold: float
    """It says yes where the activation is above; 0 is where it fires at all."""
    train_f1: float
    says_yes: tuple[bool, ...]
    """On the test examples, in order."""


def best_detector(activations: PooledActivations, task: ProbedTask) -> FeatureDetector:
    """The latent and threshold of largest F1 = 2 TP / (2 TP + FP + FN) on train, told on test.

    All thresholds are tried: 0, and for each latent the middle between every two neighbouring values on
    train. Of equals the first latent, and of its thresholds the lowest, is taken. Range of F1: 0 to 1, higher
    is better. Activations below zero never say yes. Time: that of sorting what fires on train.
    """
    label = task.label[~task.is_test]
    entries = sparse.coo_array(activations.matrix[task.item[~task.is_test]])
    keep = entries.data > 0
    example, latent, value = entries.row[keep], entries.col[keep], entries.data[keep].astype(np.float64)
    order = np.lexsort((-value, latent))
    latent, value, hit = latent[order], value[order], label[example[order]]
    choice = _best_cut(latent, value, hit, int(label.sum()))
    test = task.item[task.is_test]
    if choice is None:
        return FeatureDetector(None, 0.0, 0.0, tuple([False] * len(test)))
    number, threshold, f1 = choice
    column = sparse.csc_array(activations.matrix[:, [number]])[test].toarray()[:, 0]
    return FeatureDetector(number, threshold, f1, tuple((column > threshold).tolist()))


def _best_cut(
    latent: Int[np.ndarray, " entry"],
    value: Float[np.ndarray, " entry"],
    hit: Bool[np.ndarray, " entry"],
    positive_count: int,
) -> tuple[int, float, float] | None:
    """Latent, threshold, F1; entries are ordered by latent and, within one, from the largest value down."""
    if not hit.any():
        return None
    is_first = np.append(True, latent[1:] != latent[:-1])
    start = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    hits = np.cumsum(hit)
    true = hits - (hits[start] - hit[start])
    fired = np.arange(len(latent)) - start + 1
    f1 = 2.0 * true / (fired + positive_count)
    is_last = np.append(is_first[1:], True)
    next_value = np.append(value[1:], 0.0)
    next_value[is_last] = 0.0
    f1 = np.where(next_value < value, f1, -1.0)  # equal values fire together
    best = np.flatnonzero(f1 == f1.max())
    mine = best[latent[best] == latent[best[0]]][-1]  # its lowest threshold
    threshold = 0.0 if is_last[mine] else (value[mine] + next_value[mine]) / 2.0
    return int(latent[mine]), float(threshold), float(f1[mine])
