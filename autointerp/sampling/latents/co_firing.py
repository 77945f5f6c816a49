"""A chunk's firings -> which other latents fire on the tokens of each chosen one, and how closely tied."""

from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64, Integer, UInt32
from scipy import sparse

from autointerp.sampling.latents.bounded_counts import BoundedCounts

__all__ = ["CO_FIRING_SCHEMA", "CoFiring"]

CO_FIRING_SCHEMA = {
    "latent": pl.UInt32,
    "rank": pl.UInt32,  # from 0
    "other": pl.UInt32,
    "value": pl.Float64,  # share of the latent's firings on which `other` fires too
    "lift": pl.Float64,  # that share over the density of `other`; above 1
    "undercount": pl.UInt32,  # by how many firings the count behind `value` may fall short; 0: exact
}

_WORK_LIMIT = 20_000_000  # entries of a product at a time; about 8 bytes each


class CoFiring:
    """Counts, for chosen latents, of the tokens on which each other latent fires as well.

    The counts of a chunk are a product of two 0/1 matrices, (chosen x tokens) by (tokens x latents), computed
    for some chosen latents at a time, so that a product has at most 20 million entries and a row.

    Memory: that, 16 bytes per firing on the tokens concerned, 5 per token of the chunk, and at most `cap`
    others of about 30 bytes per chosen latent; while a frame is made, about 100 bytes per other. Cost of a
    chunk: a pass over its firings, and one step per pair of firings on one token of which the first is a
    chosen latent's. Of a frame: one sort of 8-byte numbers, one per other.
    """

    def __init__(
        self, chosen: UInt32[np.ndarray, " chosen"], latent_count: int, *, keep: int = 1024, cap: int = 4096
    ) -> None:
        """Start with no firing.

        Args:
            chosen: latents to count for.
            latent_count: of the dictionary.
            keep: as in BoundedCounts, of each chosen latent. What is dropped matters little: see `frame`.
            cap: likewise.
        """
        self._chosen = np.unique(chosen)
        self._latent_count = latent_count
        self._counts = BoundedCounts({"latent": pl.UInt32}, keep=keep, cap=cap)

    def add(
        self, latent: UInt32[np.ndarray, " firing"], token_number: Integer[np.ndarray, " firing"]
    ) -> None:
        """Take in a chunk's firings, those of all latents.

        A chunk may be handed over in blocks of tokens, each with all the firings on them.

        Args:
            latent: sorted.
            token_number: row * width + position, or another number >= 0 for each token of the chunk, small
                enough for an array of that length. A latent has each token once.

        Raises:
            ValueError: the firings are not sorted by latent.
        """
        if (latent[1:] < latent[:-1]).any():
            raise ValueError("firings must be sorted by latent")
        if not latent.size:
            return
        chosen_by_token, token_by_latent = self._matrices(latent, token_number)
        firings_on_token = np.diff(token_by_latent.indptr).astype(np.int64)
        work = np.minimum(chosen_by_token @ firings_on_token, self._latent_count)
        for block in _blocks(work):
            pairs = self._pairs(chosen_by_token[block] @ token_by_latent, self._chosen[block])
            self._counts.add(pairs, is_distinct=True)

    def merge(self, other: "CoFiring") -> None:
        """Take in what was counted of other tokens, for the same chosen latents.

        Raises:
            ValueError: the chosen latents or the dictionary's size are others.
        """
        if self._latent_count != other._latent_count or not np.array_equal(self._chosen, other._chosen):
            raise ValueError("counts of other chosen latents do not add up")
        self._counts.merge(other._counts)

    def frame(
        self, tokens_fired: Integer[np.ndarray, " latent"], token_count: int, rank_count: int = 10
    ) -> pl.DataFrame:
        """The latents that each chosen one fires together with most closely: CO_FIRING_SCHEMA.

        With N tokens, n and m firings of the two latents and c of both, value = c / n and lift = c N / (n m).
        They are ranked by the phi coefficient, the correlation of the two 0/1 sequences of firing or not:

            phi = (c N - n m) / sqrt(n m (N - n) (N - m)),  in [-1, 1]

        By `value` latents that fire nearly everywhere would come first for every latent, by `lift` (or
        pointwise mutual information) those that fired once, by chance; phi holds down both. Li et al. 2025
        ("The geometry of concepts: sparse autoencoder feature structure", Entropy 27, 344; arXiv 2410.19750)
        compare measures of co-occurrence of latents and use it. Only others with phi > 0 are listed, more
        than chance would have: there are none for a latent that fires on every token. Ties: larger value,
        then smaller index.

        Where others were dropped as rare they cannot have ranked high: as phi falls when m grows and m >= c,
        phi <= sqrt(c / n) of any of them, and c is at most the bound of the drop.

        Args:
            tokens_fired: of every latent, on the tokens that were added.
            token_count: how many those are, with firings or without; below 3 * 10^9.
            rank_count: how many others to list of each chosen latent.

        Returns:
            By latent and rank.
        """
        pairs = self._counts.counts(is_sorted=False)
        latent, other, c = (pairs[name].to_numpy() for name in ("latent", "item", "count"))
        fired = tokens_fired.astype(np.int64)
        n, m = fired[latent], fired[other]
        excess = c * token_count - n * m
        with np.errstate(invalid="ignore", divide="ignore"):  # where a latent fires on every token
            spread = (n * m).astype(np.float64) * ((token_count - n) * (token_count - m)).astype(np.float64)
            phi = np.where(excess > 0, excess / np.sqrt(spread), -1.0)
        near = _largest_by_latent(latent, phi, rank_count)
        value = c[near] / n[near]
        columns = {
            "latent": latent[near],
            "other": other[near],
            "value": value,
            "lift": value * token_count / m[near],
            "undercount": pairs["undercount"].to_numpy()[near],
            "phi": phi[near],
        }
        ranked = (
            pl.DataFrame(columns)
            .sort("latent", "phi", "value", "other", descending=[False, True, True, False])
            .with_columns(rank=pl.int_range(pl.len()).over("latent"))
        )
        listed = ranked.filter(pl.col("rank") < rank_count)
        return listed.select(*CO_FIRING_SCHEMA).cast(CO_FIRING_SCHEMA)  # type: ignore[arg-type]

    def _matrices(
        self, latent: UInt32[np.ndarray, " firing"], token_number: Integer[np.ndarray, " firing"]
    ) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Chosen by token, and token by latent: 1 for a firing. Of tokens on which a chosen latent fires."""
        is_chosen = np.zeros(self._latent_count, bool)
        is_chosen[self._chosen] = True
        on = token_number[is_chosen[latent]]
        is_concerned = np.zeros(int(token_number.max()) + 1, bool)
        is_concerned[on] = True
        number = np.cumsum(is_concerned, dtype=np.int32) - 1  # of a token among those concerned
        count = int(number[-1]) + 1
        # Firings are sorted by latent, and so those of chosen latents are the rows of the first, end to end.
        ends = np.searchsorted(latent, self._chosen, side="right")
        per_chosen = ends - np.searchsorted(latent, self._chosen, side="left")
        first = sparse.csr_array(
            (np.ones(on.size, np.int32), number[on], np.append(0, np.cumsum(per_chosen))),
            shape=(len(self._chosen), count),
        )
        is_there = is_concerned[token_number]
        row, column = number[token_number[is_there]], latent[is_there].astype(np.int32)
        second = sparse.csr_array(
            (np.ones(row.size, np.int32), (row, column)), shape=(count, self._latent_count)
        )
        return first, second

    @staticmethod
    def _pairs(product: sparse.csr_array, chosen: UInt32[np.ndarray, " some"]) -> pl.DataFrame:
        """The product's entries as rows, less the diagonal."""
        entries = product.tocoo()
        latent, other = chosen[entries.row], entries.col.astype(np.int64)
        is_other = latent != other
        columns = {"latent": latent[is_other], "item": other[is_other], "count": entries.data[is_other]}
        return pl.DataFrame(columns)


def _largest_by_latent(
    latent: UInt32[np.ndarray, " pair"], phi: Float64[np.ndarray, " pair"], count: int
) -> Int64[np.ndarray, " near"]:
    """Which pairs have phi > 0 and can be among the first `count` of their latent, ties included.

    By phi in float32, which keeps the order, and so drops none that is among the first in float64; numbers
    that hold latent and phi sort several times faster than rows of columns do.
    """
    candidate = np.flatnonzero(phi > 0)
    latent = latent[candidate].astype(np.uint64)
    # Of numbers above zero, the bits sort as the numbers do.
    strength = phi[candidate].astype(np.float32).view(np.uint32).astype(np.uint64)
    key = (latent << np.uint64(32)) | (np.uint64(2**32 - 1) - strength)
    ordered = np.sort(key)
    group = ordered >> np.uint64(32)
    starts = np.flatnonzero(np.diff(group, prepend=~group[:1]))
    ends = np.append(starts[1:], len(group))
    edge = ordered[np.minimum(starts + count, ends) - 1]
    limits = np.zeros(int(latent.max(initial=0)) + 1, np.uint64)
    limits[group[starts]] = edge
    return candidate[key <= limits[latent]]


def _blocks(work: Int64[np.ndarray, " chosen"]) -> list[slice]:
    """Consecutive rows with at most _WORK_LIMIT entries together, the first row not counted."""
    block = np.cumsum(work) // _WORK_LIMIT
    bounds = np.flatnonzero(np.diff(block)) + 1
    edges = [0, *bounds.tolist(), len(work)]
    return [slice(low, high) for low, high in pairwise(edges) if low < high]
