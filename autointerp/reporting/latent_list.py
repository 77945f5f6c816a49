"""A run directory -> LatentList: the sampled latents of one dictionary, a few facts of each."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from autointerp.records import LatentCoverage
from autointerp.reporting.latent_tables import LatentTables, open_latent_tables
from autointerp.reporting.latent_view import read_coverage, with_texts

__all__ = ["LatentList", "ListedLatent", "latent_list"]

_PROMOTED = 3


@dataclass(frozen=True)
class ListedLatent:
    """A sampled latent in short."""

    latent: int
    status: str
    density: float
    """Share of the scored tokens, in [0, 1]."""
    documents_fired: int
    maximum: float
    """Of |activation|."""
    peak_token: str | None
    """The most common token at its peaks; None where it has none."""
    peak_share: float | None
    """Of its peaks, in [0, 1], at least."""
    promoted: tuple[str, ...]
    """At most three."""
    example_count: int


@dataclass(frozen=True)
class LatentList:
    """The sampled latents of a dictionary, by index."""

    checkpoint: str
    sampled_count: int
    """All of them, listed or not."""
    latents: tuple[ListedLatent, ...]
    coverage: LatentCoverage


def latent_list(run: Path, *, checkpoint: str | None = None, count: int | None = None) -> LatentList:
    """The first sampled latents of a dictionary.

    Args:
        run: the run directory, or its report.json.
        checkpoint: the dictionary's name; default: the only one that is no null.
        count: how many; None: all.

    Raises:
        BadInputError: the run or the checkpoint does not exist, or a table is damaged.
    """
    tables = open_latent_tables(run)
    name = tables.checkpoint(checkpoint)
    coverage = read_coverage(tables, name)
    is_sampled = (pl.col("checkpoint") == name) & pl.col("is_sampled")
    sampled = tables.rows("latents", is_sampled).sort("latent")
    shown = sampled if count is None else sampled.head(count)
    where = (pl.col("checkpoint") == name) & pl.col("latent").is_in(shown["latent"].implode())
    rows = (
        shown.join(_peak_tokens(tables, where), on="latent", how="left", maintain_order="left")
        .join(_promoted(tables, where), on="latent", how="left", maintain_order="left")
        .join(_example_counts(tables, where), on="latent", how="left", maintain_order="left")
    )
    latents = tuple(
        ListedLatent(
            latent=row["latent"],
            status=row["status"],
            density=row["density"] or 0.0,
            documents_fired=row["documents_fired"],
            maximum=row["maximum"] or 0.0,
            peak_token=row["peak_token"],
            peak_share=row["peak_share"],
            promoted=tuple(row["promoted"] or ()),
            example_count=row["example_count"] or 0,
        )
        for row in rows.iter_rows(named=True)
    )
    return LatentList(name, sampled.height, latents, coverage)


def _peak_tokens(tables: LatentTables, where: pl.Expr) -> pl.DataFrame:
    rows = tables.rows("tokens", where & (pl.col("place") == "at")).sort("latent", "rank")
    first = with_texts(tables, rows.unique("latent", keep="first", maintain_order=True))
    return first.select("latent", peak_token="text", peak_share="share")


def _promoted(tables: LatentTables, where: pl.Expr) -> pl.DataFrame:
    rows = tables.rows("promoted", where & (pl.col("sign") == "promoted")).sort("latent", "rank")
    first = with_texts(tables, rows.group_by("latent", maintain_order=True).head(_PROMOTED))
    return first.group_by("latent", maintain_order=True).agg(promoted=pl.col("text"))


def _example_counts(tables: LatentTables, where: pl.Expr) -> pl.DataFrame:
    rows = tables.rows("examples", where, columns=["latent"])
    return rows.group_by("latent").agg(example_count=pl.len())
