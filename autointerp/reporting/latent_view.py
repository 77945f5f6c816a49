"""A run directory -> LatentView: everything that the run knows of one latent, as plain records."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from autointerp.records import LatentCoverage
from autointerp.reporting.example_groups import ExampleChoice, ExampleGroup, example_groups
from autointerp.reporting.latent_explanations import LatentExplanation, explanations_of
from autointerp.reporting.latent_tables import LatentTableError, LatentTables, open_latent_tables
from autointerp.sampling.latents.distribution import BASE
from autointerp.sampling.latents.tables import TABLES
from autointerp.sampling.samplers.sampler import SPLITS

__all__ = [
    "Firing",
    "HistogramBar",
    "LatentView",
    "Neighbour",
    "TokenCount",
    "TokenLogit",
    "find_latent",
    "latent_view",
    "read_coverage",
    "with_texts",
]

_LARGEST_BIN = 35_000  # the ratio to this power is about the largest float64
_MOST_BARS = 40
_QUANTILES = ("q05", "q25", "q50", "q75", "q95")


@dataclass(frozen=True)
class Firing:
    """How often and how strongly a latent fires; every latent has this, sampled or not."""

    tokens_fired: int
    token_count: int | None
    """Scored tokens of the text; None where no latent of the dictionary fires, so that nothing tells."""
    density: float
    """Share of the scored tokens, in [0, 1]."""
    documents_fired: int
    document_count: int | None
    document_density: float
    """Share of the documents, in [0, 1]."""
    split_documents: Mapping[str, int]
    """Documents of each split in which it fires; near-duplicates count as one."""
    mass: float
    """Sum of |activation| over the text."""
    maximum: float | None
    """Of |activation|; None where it never fires."""
    mean: float | None
    """Of the activation where it fires; None where it never does."""
    quantiles: Mapping[str, float]
    """`q05` to `q95` of |activation| where it fires, within 1 %; empty where the latent was not sampled."""


@dataclass(frozen=True)
class HistogramBar:
    """How many firings have a magnitude in (low, high]; bars are equally wide in the logarithm."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class TokenCount:
    """A token before, at or after the peaks of a latent."""

    token: int
    text: str
    count: int
    """Peaks, at least."""
    share: float
    """Of all peaks, in [0, 1], at least."""
    undercount: int
    """By how many peaks `count` may fall short; 0: it is exact."""


@dataclass(frozen=True)
class TokenLogit:
    """What a unit of activation adds to a token's logit, against the mean over the vocabulary."""

    token: int
    text: str
    logit: float


@dataclass(frozen=True)
class Neighbour:
    """Another latent of the dictionary."""

    latent: int
    value: float | None
    """Cosine of the directions, or the share of the firings on which the other one fires too."""
    lift: float | None
    """Of co-firing: that share over the other's density; else None."""


@dataclass(frozen=True)
class LatentView:
    """Everything about one latent."""

    checkpoint: str
    latent: int
    status: str
    """live, dead, or undefined: fires, but in too few documents for three splits."""
    reason: str | None
    """Of undefined, else None."""
    is_ultra_dense: bool
    is_sampled: bool
    sampling_weight: float | None
    """Latents that fire for which this one stands; None where none is defined."""
    stratum: str | None
    """Of density, where latents were chosen by strata; else None."""
    firing: Firing
    histogram: tuple[HistogramBar, ...]
    """Of |activation| over its firings, at most 40 bars without gaps; empty where it was not sampled."""
    tokens: Mapping[str, tuple[TokenCount, ...]]
    """By place, `before`, `at` and `after` the peak, the most common first."""
    promoted: tuple[TokenLogit, ...]
    demoted: tuple[TokenLogit, ...]
    nearest: tuple[Neighbour, ...]
    """By cosine of the decoder's directions."""
    co_firing: tuple[Neighbour, ...]
    groups: tuple[ExampleGroup, ...]
    """In reading order; a sampler without examples has a group without any. Empty where the latent is not
    sampled or not live."""
    coverage: LatentCoverage
    explanations: tuple[LatentExplanation, ...] = ()


def latent_view(
    run: Path,
    *,
    latent: int,
    checkpoint: str | None = None,
    choice: ExampleChoice | None = None,
) -> LatentView:
    """What a run knows of one latent.

    Reads the rows of this latent, the contexts of the examples that are shown, and the texts of their tokens.

    Args:
        run: the run directory, or its report.json.
        latent: index in the dictionary.
        checkpoint: the dictionary's name; default: the only one that is no null.
        choice: which examples; default: 5 of each group.

    Raises:
        BadInputError: the run, the checkpoint, the latent or a sampler does not exist, or a table is damaged.
    """
    tables = open_latent_tables(run)
    name = tables.checkpoint(checkpoint)
    coverage = read_coverage(tables, name)
    row = _latent_row(tables, name, latent, coverage)
    where = (pl.col("checkpoint") == name) & (pl.col("latent") == latent)
    promoted = _promoted(tables, where)
    neighbours = tables.rows("neighbours", where).sort("rank")
    groups = example_groups(tables, name, latent, choice or ExampleChoice()) if row["is_sampled"] else ()
    has_examples = any(group.kept for group in groups)
    return LatentView(
        checkpoint=name,
        latent=latent,
        status=row["status"],
        reason=row["reason"] or None,
        is_ultra_dense=row["is_ultra_dense"],
        is_sampled=row["is_sampled"],
        sampling_weight=row["sampling_weight"],
        stratum=row["stratum"] or None,
        firing=_firing(tables, name, row),
        histogram=_bars(tables, where & (pl.col("unit") == "firing")),
        tokens=_tokens(tables, where),
        promoted=promoted["promoted"],
        demoted=promoted["demoted"],
        nearest=_neighbours(neighbours, "decoder_cosine"),
        co_firing=_neighbours(neighbours, "co_firing"),
        groups=groups if row["status"] == "live" or has_examples else (),
        coverage=coverage,
        explanations=explanations_of(tables.run, checkpoint=name, latent=latent),
    )


def find_latent(run: Path, text: str, *, checkpoint: str | None = None, seed: int = 0) -> int:
    """The latent that a word names: an index, or `random`.

    `random` is the sampled live latent whose hash of (seed, checkpoint, latent) is smallest: each is as
    likely, and the same seed gives the same latent on every day and machine.

    Raises:
        BadInputError: as `latent_view`; or the word is neither, or `random` has none to choose from.
    """
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    if text != "random":
        raise LatentTableError(f"{text!r} is no latent", remedy="give an index from 0 on, or `random`")
    tables = open_latent_tables(run)
    name = tables.checkpoint(checkpoint)
    read_coverage(tables, name)
    is_meant = (pl.col("checkpoint") == name) & pl.col("is_sampled") & (pl.col("status") == "live")
    latents = tables.rows("latents", is_meant, columns=["latent"])["latent"].to_list()
    if not latents:
        raise LatentTableError("has no sampled live latent to choose from", where=name)
    return min(latents, key=lambda latent: hashlib.sha256(f"{seed} {name} {latent}".encode()).digest())


def read_coverage(tables: LatentTables, checkpoint: str) -> LatentCoverage:
    """The coverage of a dictionary.

    Raises:
        LatentTableError: its latents were not sampled; the reason is said.
    """
    rows = tables.rows("coverage", pl.col("checkpoint") == checkpoint)
    row = rows.row(0, named=True)
    if row["status"] != "measured":
        raise LatentTableError(
            f"its latents were not sampled ({row['status']}: {row['reason']})", where=checkpoint
        )
    return LatentCoverage(**{name: row[name] for name in TABLES["coverage"]})


def _latent_row(
    tables: LatentTables, checkpoint: str, latent: int, coverage: LatentCoverage
) -> dict[str, Any]:
    latent_count = coverage.latent_count or 0
    if not 0 <= latent < latent_count:
        raise LatentTableError(
            f"there is no latent {latent}",
            where=checkpoint,
            remedy=f"its latents are 0 to {latent_count - 1}",
        )
    rows = tables.rows("latents", (pl.col("checkpoint") == checkpoint) & (pl.col("latent") == latent))
    if rows.is_empty():
        raise tables.damaged("latents", f"no row for latent {latent} of {checkpoint!r}")
    return rows.row(0, named=True)


def _firing(tables: LatentTables, checkpoint: str, row: Mapping[str, Any]) -> Firing:
    unknown = [name for name in ("density", "document_density", "mass") if row[name] is None]
    if unknown:
        raise tables.damaged("latents", f"latent {row['latent']} of {checkpoint!r} has no {unknown[0]}")
    token_count, document_count = _text_size(tables, checkpoint)
    if row["tokens_fired"] and (token_count is None or row["maximum"] is None):
        raise tables.damaged(
            "latents", f"latent {row['latent']} of {checkpoint!r} fires with density or maximum 0"
        )
    return Firing(
        tokens_fired=row["tokens_fired"],
        token_count=token_count,
        density=row["density"],
        documents_fired=row["documents_fired"],
        document_count=document_count,
        document_density=row["document_density"],
        split_documents={split: row[f"{split}_documents"] for split in SPLITS},
        mass=row["mass"],
        maximum=row["maximum"],
        mean=row["mean"],
        quantiles={name: row[name] for name in _QUANTILES if row[name] is not None},
    )


def _text_size(tables: LatentTables, checkpoint: str) -> tuple[int, int] | tuple[None, None]:
    """Scored tokens and documents: what the densities of the busiest latent are shares of."""
    columns = ["tokens_fired", "density", "documents_fired", "document_density"]
    fired = tables.rows(
        "latents", (pl.col("checkpoint") == checkpoint) & (pl.col("tokens_fired") > 0), columns=columns
    ).filter(pl.col("density") > 0, pl.col("document_density") > 0)
    if fired.is_empty():
        return None, None
    busiest = fired.sort("tokens_fired").row(-1, named=True)
    return (
        round(busiest["tokens_fired"] / busiest["density"]),
        round(busiest["documents_fired"] / busiest["document_density"]),
    )


def _bars(tables: LatentTables, where: pl.Expr) -> tuple[HistogramBar, ...]:
    """Neighbouring bins added up until at most 40 bars are left; those between others may be empty."""
    bins = tables.rows("histograms", where)
    if bins.is_empty():
        return ()
    first, last = int(bins["bin"].min()), int(bins["bin"].max())  # type: ignore[arg-type]  # there are some
    if max(-first, last) > _LARGEST_BIN:
        raise tables.damaged("histograms", "a bin lies beyond all numbers")
    width = math.ceil((last - first + 1) / _MOST_BARS)
    bars = bins.group_by((pl.col("bin") - first) // width).agg(pl.col("count").cast(pl.UInt64).sum())
    counts = dict(bars.iter_rows())
    edges = [BASE ** (first - 1 + width * index) for index in range(max(counts) + 2)]
    return tuple(
        HistogramBar(edges[index], edges[index + 1], counts.get(index, 0)) for index in range(max(counts) + 1)
    )


def _tokens(tables: LatentTables, where: pl.Expr) -> dict[str, tuple[TokenCount, ...]]:
    rows = with_texts(tables, tables.rows("tokens", where).sort("rank"))
    return {
        place: tuple(
            TokenCount(
                row["token"], row["text"], row["count"], row["share"] or 0.0, undercount=row["undercount"]
            )
            for row in rows.filter(pl.col("place") == place).iter_rows(named=True)
        )
        for place in ("before", "at", "after")
    }


def _promoted(tables: LatentTables, where: pl.Expr) -> dict[str, tuple[TokenLogit, ...]]:
    rows = with_texts(tables, tables.rows("promoted", where).sort("rank")).drop_nulls("logit")
    return {
        sign: tuple(
            TokenLogit(row["token"], row["text"], row["logit"])
            for row in rows.filter(pl.col("sign") == sign).iter_rows(named=True)
        )
        for sign in ("promoted", "demoted")
    }


def with_texts(tables: LatentTables, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with the `text` of each `token`; `[7]` where the vocabulary has no token 7."""
    texts = tables.rows("vocabulary", pl.col("token").is_in(frame["token"].unique().implode()))
    return frame.join(texts, on="token", how="left", maintain_order="left").with_columns(
        pl.col("text").fill_null(pl.format("[{}]", "token"))
    )


def _neighbours(rows: pl.DataFrame, kind: str) -> tuple[Neighbour, ...]:
    of_kind = rows.filter(pl.col("kind") == kind)
    return tuple(Neighbour(*row) for row in of_kind.select("other", "value", "lift").iter_rows())
