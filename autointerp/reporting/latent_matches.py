"""A run's latents/matches.parquet -> for each two dictionaries how many latents are in both, and which."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from autointerp.errors import BadInputError
from autointerp.reporting.latent_browser_packing import shown_text
from autointerp.reporting.latent_tables import LatentTables
from autointerp.sampling.latents.tables import LEAST_MATCH_COSINE
from autointerp.scoring.score import wilson

__all__ = ["LatentMatches", "LatentShare", "PairMatches", "read_matches"]

_LONGEST_TROUBLE = 400


@dataclass(frozen=True)
class LatentShare:
    """A share of a dictionary's live latents, in [0, 1]."""

    value: float
    n: int
    """Latents that it was seen on."""
    low: float | None = None
    high: float | None = None
    """Both None where all live latents were looked at, or where those that were are no random sample."""


@dataclass(frozen=True)
class PairMatches:
    """What became of one dictionary's latents in another."""

    checkpoint: str
    other: str
    matched: LatentShare
    lost: LatentShare
    split: LatentShare
    gained: LatentShare | None
    """Of the other's latents; None where none of them was sampled."""
    median_cosine: float
    """To the nearest latent there, of all."""
    median_co_firing: float | None
    """Of those that are alike enough to match; None where none is, or no firings were kept."""


@dataclass(frozen=True, eq=False)
class LatentMatches:
    """The table of one run."""

    rows: pl.DataFrame
    """MATCHES with `sampling_weight`, `mass`, `density` of the latent, and `is_matched is_lost is_split`."""
    live: dict[str, int] = field(default_factory=dict)
    """Live latents of each dictionary."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(dictionary, why) of those whose latents were not sampled."""
    listed: frozenset[tuple[str, int]] = frozenset()
    """(checkpoint, latent) of those that the page shows."""
    trouble: str = ""
    """Why the table cannot be shown."""

    @cached_property
    def _parts(self) -> dict[tuple[str, str], pl.DataFrame]:
        keys = ("checkpoint", "other_checkpoint")
        parts = self.rows.partition_by(*keys, as_dict=True, maintain_order=True)
        return {(str(one), str(other)): part for (one, other), part in parts.items()}

    def of(self, checkpoint: str, other: str) -> pl.DataFrame:
        """The rows of one pair; empty where there are none."""
        return self._parts.get((checkpoint, other), self.rows.clear())

    def is_random(self, checkpoint: str) -> bool:
        """Whether the latents that were looked at stand for all, and were not named one by one."""
        own = self.rows.filter(pl.col("checkpoint") == checkpoint)
        return own["sampling_weight"].null_count() == 0

    def pair(self, checkpoint: str, other: str, *, level: float) -> PairMatches | None:
        """The shares of one pair; None where there are no rows of it.

        Args:
            checkpoint: whose latents are looked for.
            other: where.
            level: of the intervals.
        """
        rows, back = self.of(checkpoint, other), self.of(other, checkpoint)
        if rows.is_empty():
            return None
        found = [
            self._share(rows, column, checkpoint, level) for column in ("is_matched", "is_lost", "is_split")
        ]
        median = rows["co_firing"].drop_nulls().median()
        return PairMatches(
            checkpoint,
            other,
            *found,
            gained=None if back.is_empty() else self._share(back, "is_lost", other, level),
            median_cosine=float(np.median(rows["cosine"].to_numpy())),
            median_co_firing=median if isinstance(median, float) else None,
        )

    def _share(self, rows: pl.DataFrame, column: str, checkpoint: str, level: float) -> LatentShare:
        is_so = rows[column].to_numpy()
        if not self.is_random(checkpoint):
            return LatentShare(float(is_so.mean()), rows.height)
        weight = rows["sampling_weight"].to_numpy()
        value = min(float(weight[is_so].sum() / weight.sum()), 1.0)
        if rows.height == self.live.get(checkpoint):
            return LatentShare(value, rows.height)
        size = float(weight.sum() ** 2 / (weight**2).sum())  # Kish's, where strata were sampled unequally
        ends = wilson(value, size, level=level)
        return LatentShare(value, rows.height, ends.low, ends.high)


def read_matches(run: Path, listed: Iterable[tuple[str, int]] = ()) -> LatentMatches | None:
    """The matches of a run; None where it has no such table.

    A damaged table, or one of an earlier version, does not take the report with it: the result says why.

    Args:
        run: the run directory.
        listed: (checkpoint, latent) of those that the page can show.
    """
    tables = LatentTables(run)
    if not tables.has("matches"):
        return None
    try:
        return _read(tables, frozenset(listed))
    except BadInputError as error:
        return LatentMatches(pl.DataFrame(), trouble=shown_text(str(error), _LONGEST_TROUBLE))


def _read(tables: LatentTables, listed: frozenset[tuple[str, int]]) -> LatentMatches:
    columns: Sequence[str] = ("checkpoint", "latent", "sampling_weight", "mass", "density")
    facts = tables.rows("latents", pl.col("is_sampled"), columns=columns)
    coverage = tables.rows("coverage", columns=["checkpoint", "status", "reason", "live_count"])
    is_sampled = coverage["status"] == "measured"
    is_alike = pl.col("cosine") >= LEAST_MATCH_COSINE
    rows = tables.rows("matches", pl.col("cosine").is_finite()).join(facts, on=["checkpoint", "latent"])
    rows = rows.with_columns(
        is_matched=(is_alike & pl.col("followers").list.contains(pl.col("other_latent"))).fill_null(
            value=False
        ),
        is_lost=~is_alike,
        is_split=(pl.col("followers").list.len() > 1).fill_null(value=False),
    )
    live = coverage.filter(is_sampled).select("checkpoint", "live_count").iter_rows()
    left_out = coverage.filter(~is_sampled).select("checkpoint", "reason").iter_rows()
    return LatentMatches(rows, dict(live), tuple((name, why or "") for name, why in left_out), listed)
