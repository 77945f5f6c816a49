"""Peaks and their contexts -> the most common tokens at, before and after each latent's peaks."""

import numpy as np
import polars as pl
from jaxtyping import UInt32

from autointerp.sampling.latents.bounded_counts import BoundedCounts
from autointerp.sampling.latents.tables import TOKENS
from autointerp.sampling.samplers.text_places import TextPlaces

__all__ = ["PLACES", "TOKEN_SCHEMA", "TokenCounts"]

PLACES = ("before", "at", "after")
"""Where a token stands to the peak."""

TOKEN_SCHEMA = {name: dtype for name, dtype in TOKENS.items() if name != "checkpoint"}
"""Rows of `tokens.parquet`, for one dictionary."""


class TokenCounts:
    """Counts of tokens around the peaks of some latents, one count per peak and place.

    A place without a token of text is not counted: before the first scored position stands a BOS token or
    nothing, after the last position nothing, between packed documents EOS. So shares of `before` and `after`
    can add up to less than 1.

    Memory: at most `cap` items of about 30 bytes per latent and place, and those that wait to be added up.
    The cost of a chunk is a join and a group-by over its peaks, and one flat copy of its tokens.
    """

    def __init__(self, latents: UInt32[np.ndarray, " latent"], *, keep: int = 512, cap: int = 2048) -> None:
        """Start with no peak.

        Args:
            latents: those to count for; peaks of others are passed over.
            keep: as in BoundedCounts, of each latent and place.
            cap: likewise.
        """
        self._latents = np.unique(latents)
        self._peaks = np.zeros(len(self._latents), np.int64)
        self._counts = BoundedCounts({"latent": pl.UInt32, "place": pl.UInt8}, keep=keep, cap=cap)

    def add(self, peaks: pl.DataFrame, contexts: pl.DataFrame) -> None:
        """Take in some peaks.

        Args:
            peaks: ROW_SCHEMA, one row per latent and context in which it fires, in any order.
            contexts: `context`, `tokens` List(Int32), `first_scored` and, as in a ChunkView, `unscored`: one
                row for each context of the peaks, and for others if that is handy.

        Raises:
            ValueError: a peak's context is missing, or its position lies past the end.
        """
        chosen = peaks.select("latent", "context", "position").filter(
            pl.col("latent").is_in(pl.Series(self._latents).implode())
        )
        texts = contexts.filter(pl.col("tokens").list.len() > 0).with_columns(
            length=pl.col("tokens").list.len().cast(pl.Int64)
        )
        begin = pl.col("length").cum_sum() - pl.col("length")
        found = chosen.join(
            texts.select("context", "length", begin=begin),
            on="context",
            how="left",
            validate="m:1",
        )
        if not found.select((pl.col("position") < pl.col("length")).fill_null(False).all()).item():
            raise ValueError("a peak lies in no context that was handed over, or past its end")
        number = TextPlaces.of(texts).token
        token = texts["tokens"].explode().gather(number)
        self._counts.add(_tokens_around(found, pl.DataFrame({"index": number, "token": token})))
        rows = np.searchsorted(self._latents, chosen["latent"].to_numpy())
        self._peaks += np.bincount(rows, minlength=len(self._latents))

    def merge(self, other: "TokenCounts") -> None:
        """Take in what was counted of other peaks of the same latents.

        Raises:
            ValueError: the latents are others.
        """
        if not np.array_equal(self._latents, other._latents):
            raise ValueError("counts of other latents do not add up")
        self._peaks += other._peaks
        self._counts.merge(other._counts)

    def frame(self, rank_count: int = 10) -> pl.DataFrame:
        """The most common tokens of each latent and place: TOKEN_SCHEMA, by latent, place and rank.

        `rank` begins at 0; of equal counts the smaller token comes first. `share` is `count` over all peaks
        of the latent, at the edge of a context or not; like `count` it is a lower bound unless `undercount`
        is 0.
        """
        peaks = pl.DataFrame({"latent": self._latents, "peaks": self._peaks})
        places = pl.Series(PLACES)
        top = self._counts.top(rank_count).join(peaks, on="latent", how="left", maintain_order="left")
        columns = top.with_columns(
            place=places.gather(top["place"]),
            token="item",
            share=pl.col("count") / pl.col("peaks"),
        )
        return columns.select(*TOKEN_SCHEMA).cast(TOKEN_SCHEMA)  # type: ignore[arg-type]


def _tokens_around(found: pl.DataFrame, text: pl.DataFrame) -> pl.DataFrame:
    """One row per peak and place that has a token; `text` has those of all contexts, end to end."""
    position = pl.col("position").cast(pl.Int64)
    here = pl.col("begin") + position
    index = {
        "before": pl.when(position > 0).then(here - 1),
        "at": here,
        "after": pl.when(position + 1 < pl.col("length")).then(here + 1),
    }
    parts = [
        found.select("latent", place=pl.lit(number, pl.UInt8), index=index[place])
        for number, place in enumerate(PLACES)
    ]
    around = pl.concat(parts).drop_nulls().join(text, on="index")
    return around.select("latent", "place", item="token", count=pl.lit(1))
