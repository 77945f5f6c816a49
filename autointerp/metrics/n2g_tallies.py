"""Where graphs expect something and where latents fire, chunk by chunk -> each latent's score."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from autointerp.metrics.n2g import GraphScore
from autointerp.sampling.samplers.hashing import hashed

__all__ = ["PLACE_SCHEMA", "GraphTallies", "borrowers"]

PLACE_SCHEMA = {
    "latent": pl.UInt32,
    "row": pl.UInt32,  # number of the context in its part of the text
    "context": pl.UInt64,  # id of the context
    "position": pl.UInt32,
    "value": pl.Float64,
}
"""A place of the text with what is expected of a latent there, or with its activation."""

_KEY = ("latent", "row", "context", "position")
_DRAWN_BY = ("latent", "context", "position")
_SUMS = ("hits", "true_hits", "s", "ss", "a", "aa", "sa")


class GraphTallies:
    """What one dictionary's latents need to be scored. Memory: a few numbers a latent, and what is drawn."""

    def __init__(
        self,
        latents: Sequence[int],
        *,
        recall_sequences: int = 16,
        precision_sequences: int | None = None,
        fire_threshold: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Nothing seen yet.

        Args:
            latents: those with a graph.
            recall_sequences: random firings of each on which recall is measured, at most.
            precision_sequences: random places at which its graph fires, at most; None: all.
            fire_threshold: a latent fires where its |activation| is above this.
            seed: of what is drawn; each subset is as likely as any other, whatever the chunks.
        """
        self._latents = tuple(latents)
        self._counts = {"recall": recall_sequences, "precision": precision_sequences}
        self._threshold, self._seed = fire_threshold, seed
        self._sums: dict[int, np.ndarray] = {latent: np.zeros(len(_SUMS)) for latent in latents}
        self._drawn: dict[str, list[pl.DataFrame]] = {"recall": [], "precision": []}
        self._tokens = 0

    def add(self, hits: pl.DataFrame, firings: pl.DataFrame, token_count: int) -> None:
        """Take in a part of the text.

        Args:
            hits: PLACE_SCHEMA, of graphs, each place once.
            firings: PLACE_SCHEMA, of latents; others than those of this object are passed over.
            token_count: tokens of text in this part.
        """
        self._tokens += token_count
        own = pl.Series(self._latents, dtype=pl.UInt32)
        fired = firings.filter(pl.col("latent").is_in(own.implode())).rename({"value": "a"})
        both = (
            hits.rename({"value": "s"})
            .join(fired, on=_KEY, how="full", coalesce=True)
            .with_columns(pl.col("s").fill_null(0.0), pl.col("a").abs().fill_null(0.0))
            .with_columns(fires=pl.col("a") > self._threshold)
        )
        sums = both.group_by("latent").agg(
            hits=(pl.col("s") > 0).sum(),
            true_hits=((pl.col("s") > 0) & pl.col("fires")).sum(),
            s=pl.col("s").sum(),
            ss=(pl.col("s") ** 2).sum(),
            a=pl.col("a").sum(),
            aa=(pl.col("a") ** 2).sum(),
            sa=(pl.col("s") * pl.col("a")).sum(),
        )
        for latent, *found in sums.iter_rows():
            self._sums[latent] += np.array(found, dtype=np.float64)
        self._draw("recall", both.filter("fires").select(*_DRAWN_BY, is_right=pl.col("s") > 0))
        if self._counts["precision"] is not None:
            self._draw("precision", both.filter(pl.col("s") > 0).select(*_DRAWN_BY, is_right="fires"))

    def _draw(self, name: str, rows: pl.DataFrame) -> None:
        """Keep the rows of each latent whose hashes are smallest."""
        key = hashed(self._seed, f"n2g {name}", *(rows[column].to_numpy() for column in _DRAWN_BY))
        rows = rows.with_columns(key=pl.Series(key, dtype=pl.UInt64)).select("latent", "key", "is_right")
        kept = pl.concat([*self._drawn[name], rows]).sort("latent", "key")
        self._drawn[name] = [kept.group_by("latent", maintain_order=True).head(self._counts[name] or 1)]

    def scores(self) -> dict[int, GraphScore]:
        """By latent."""
        recall, precision = self._shares("recall"), self._shares("precision")
        found = {}
        for latent, sums in self._sums.items():
            hits, true_hits = sums[:2]
            all_precision = true_hits / hits if hits else None
            found[latent] = GraphScore.of(
                precision=all_precision if self._counts["precision"] is None else precision.get(latent),
                recall=recall.get(latent),
                correlation=_correlation(self._tokens, *sums[2:].tolist()),
            )
        return found

    def scale(self) -> dict[int, float]:
        """By latent, E[s a] / E[s^2]; none of those whose graph fires nowhere."""
        place = {name: index for index, name in enumerate(_SUMS)}
        return {
            latent: float(sums[place["sa"]] / sums[place["ss"]])
            for latent, sums in self._sums.items()
            if sums[place["ss"]] > 0
        }

    def _shares(self, name: str) -> Mapping[int, float]:
        if not self._drawn[name]:
            return {}
        return dict(self._drawn[name][0].group_by("latent").agg(pl.col("is_right").mean()).iter_rows())


def _correlation(n: int, s: float, ss: float, a: float, aa: float, sa: float) -> float | None:
    """Pearson's; None where either has no variance beyond rounding."""
    if n == 0:
        return None
    spread_s, spread_a = ss - s * s / n, aa - a * a / n
    if spread_s <= 1e-9 * ss or spread_a <= 1e-9 * aa:
        return None
    return max(-1.0, min(1.0, (sa - s * a / n) / math.sqrt(spread_s * spread_a)))


def borrowers(latents: Sequence[int], *, seed: int) -> dict[int, int]:
    """Lender -> borrower: every latent gets another one's graph, each graph is lent once.

    By the seed and the latents alone. Fewer than two latents lend nothing.
    """
    if len(latents) < 2:
        return {}
    keys = hashed(seed, "n2g borrowed", np.array(sorted(latents), dtype=np.uint64))
    order = [sorted(latents)[place] for place in np.argsort(keys, kind="stable")]
    return dict(zip(order, [*order[1:], order[0]], strict=True))
