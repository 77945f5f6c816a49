"""predictions/*.parquet of a run -> for each latent the passages that were judged most wrongly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from autointerp.errors import RunStoreError
from autointerp.reporting.latent_browser_examples import with_window
from autointerp.reporting.latent_tables import LatentTables

__all__ = ["judged_wrong"]

_YES = 0.5
"""A probability of exactly one half is a yes, as in balanced accuracy."""
_OF_EACH_KIND = 3
"""Misses and false alarms of one judge that are shown; passages of a simulator."""
_PASSAGE = r"^([0-9a-f]{16}):(\d+)-(\d+)$"
_COLUMNS = ("latent", "explainer", "method", "judge", "passage", "fires", "value", "is_probability")
_JUDGED = ("latent", "explainer", "method", "judge")
WRONG: dict[str, Any] = {
    "latent": pl.UInt32,
    "explainer": pl.String,
    "method": pl.String,
    "judge": pl.String,
    "asked": pl.UInt32,  # passages that the judge answered about
    "wrong": pl.UInt32,  # of them; null of simulations, which are not right or wrong
    "context": pl.UInt64,
    "begin": pl.UInt32,
    "end": pl.UInt32,
    "fires": pl.Boolean,
    "value": pl.Float64,  # what the judge said; null of simulations
    "predicted": pl.List(pl.Float64),  # of simulations, one for each token of the passage
    "fired": pl.List(pl.UInt32),
    "activations": pl.List(pl.Float32),
}
"""What `judged_wrong` gives."""


def judged_wrong(
    tables: LatentTables, checkpoint: str, latents: Sequence[int], firings: pl.DataFrame
) -> pl.DataFrame:
    """The worst answers about each latent's own explanations, as `WRONG`, the worst first.

    A probability is wrong where it lies on the other side of one half than the truth. What is none (cosines,
    nats, a graph's activation) is wrong where it does not tell the passage from those of the other kind: at
    most half of these, ties by half, lie on their side of it. AUROC is the mean of these shares. Of misses
    and of false alarms the three worst are given, and of simulations the three passages with the largest sum
    of squared differences.

    Args:
        tables: of the run.
        checkpoint: whose latents.
        latents: which ones.
        firings: `latent`, `context`, `fired`, `activations`, one row of each that may be meant: predictions
            do not say where the latent fires.

    Raises:
        RunStoreError: a file cannot be read.
    """
    found = _read(tables.run / "predictions", checkpoint, latents)
    if found is None or found.is_empty():
        return pl.DataFrame(schema=WRONG)
    ids = pl.col("passage").str.extract_groups(_PASSAGE)
    placed = found.with_columns(
        context=ids.struct.field("1").str.to_integer(base=16, dtype=pl.UInt64, strict=False),
        begin=ids.struct.field("2").cast(pl.UInt32, strict=False),
        end=ids.struct.field("3").cast(pl.UInt32, strict=False),
    ).filter(pl.col("context").is_not_null(), pl.col("begin") < pl.col("end"))
    worst = pl.concat([_answers(placed), _simulations(placed)], how="diagonal")
    joined = worst.join(firings, on=["latent", "context"], how="inner", maintain_order="left")
    windowed = with_window(joined.with_columns(focus=pl.col("begin")))
    return windowed.select(pl.col(name).cast(kind) for name, kind in WRONG.items())


def _read(folder: Path, checkpoint: str, latents: Sequence[int]) -> pl.DataFrame | None:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return None
    wanted = pl.Series(latents, dtype=pl.UInt32)
    try:
        return (
            pl.scan_parquet(files)
            .filter(
                pl.col("checkpoint") == checkpoint,
                pl.col("latent").is_in(wanted.implode()),
                pl.col("explanation") == "own",
                pl.col("judge") != "constant",
                pl.col("status") == "measured",
            )
            .select(*_COLUMNS, "truth", "predicted")
            .collect()
        )
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RunStoreError("cannot be read", where=folder, remedy=f"run the suite again ({why})") from None


def _answers(rows: pl.DataFrame) -> pl.DataFrame:
    known = rows.filter(pl.col("value").is_finite(), pl.col("fires").is_not_null())
    fires, said = pl.col("fires"), pl.col("value") - _YES
    above = pl.col("value").rank().over(_JUDGED) - pl.col("value").rank().over(*_JUDGED, "fires")
    others = pl.len().over(_JUDGED) - pl.len().over(*_JUDGED, "fires")
    told = pl.when(fires).then(above / others).otherwise(1 - above / others)  # NaN without others: not wrong
    by_probability = pl.when(fires).then(said < 0).otherwise(said >= 0)
    is_probability = pl.col("is_probability")
    judged = known.with_columns(
        is_wrong=pl.when(is_probability).then(by_probability).otherwise(told <= _YES),
        beyond=pl.when(is_probability).then(said.abs()).otherwise(_YES - told),
        asked=pl.len().over(_JUDGED),
        predicted=pl.lit(None, dtype=WRONG["predicted"]),
    ).with_columns(wrong=pl.col("is_wrong").sum().over(_JUDGED))
    order = (*_JUDGED, "fires")
    worst = judged.filter("is_wrong").sort(*order, -pl.col("beyond"), "passage")
    return _first(worst, order)


def _simulations(rows: pl.DataFrame) -> pl.DataFrame:
    length = pl.col("predicted").list.len()
    is_whole = (length == pl.col("truth").list.len()) & (length == pl.col("end") - pl.col("begin"))
    known = rows.filter(is_whole.fill_null(value=False)).with_row_index("row")
    errors = (
        known.select("row", "truth", "predicted")
        .explode("truth", "predicted")
        .group_by("row")
        .agg(error=(pl.col("truth") - pl.col("predicted").fill_nan(0.0)).pow(2).sum())
    )
    judged = known.join(errors, on="row", how="left", maintain_order="left").with_columns(
        asked=pl.len().over(_JUDGED), wrong=pl.lit(None, dtype=pl.UInt32)
    )
    worst = judged.sort(*_JUDGED, pl.col("error"), "passage", descending=[False] * 4 + [True, False])
    return _first(worst, _JUDGED)


def _first(rows: pl.DataFrame, group: Sequence[str]) -> pl.DataFrame:
    kept = rows.with_columns(turn=pl.int_range(pl.len()).over(group)).filter(pl.col("turn") < _OF_EACH_KIND)
    return kept.select(*_JUDGED, "asked", "wrong", "context", "begin", "end", "fires", "value", "predicted")
