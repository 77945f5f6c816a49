"""Firings that a run kept -> of pairs of latents the share of their tokens on which both fire."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from autointerp.sampling.spill import slug

__all__ = ["co_firing", "read_firings"]


def read_firings(run: Path, checkpoint: str, latents: Sequence[int]) -> pl.DataFrame | None:
    """(latent, context, position) of some latents' firings; None where the run kept none."""
    chunks = run / "chunks"
    frames = []
    for file in sorted(chunks.glob(f"firings~{slug(checkpoint)}~*.parquet")):
        context = chunks / f"contexts~{file.stem.rpartition('~')[2]}.parquet"
        if not context.is_file():
            return None
        of_row = pl.scan_parquet(context).select("context").with_row_index("row").cast({"row": pl.UInt32})
        frames.append(
            pl.scan_parquet(file)
            .filter(pl.col("latent").is_in(list(latents)))
            .select(pl.col("latent", "row").cast(pl.UInt32), "position")
            .join(of_row, on="row")
            .select("latent", "context", "position")
            .collect()
        )
    return pl.concat(frames) if frames else None


def co_firing(one: pl.DataFrame, other: pl.DataFrame, pairs: Sequence[tuple[int, int]]) -> list[float | None]:
    """Of each pair (latent of one, latent of the other) the tokens on which both fire, over either (Jaccard).

    In [0, 1]; None where neither fires.

    Args:
        one: from `read_firings`, on text that both have.
        other: of the other dictionary.
        pairs: a latent may be in several.
    """
    if not pairs:
        return []
    sides = []
    for frame, latents in zip((one, other), zip(*pairs, strict=True), strict=True):
        numbered = pl.DataFrame(
            {"latent": latents, "pair": range(len(pairs))}, schema={"latent": pl.UInt32, "pair": pl.UInt32}
        )
        sides.append(frame.join(numbered, on="latent").select("pair", "context", "position").unique())
    counts = [np.bincount(side["pair"].to_numpy(), minlength=len(pairs)) for side in sides]
    together = sides[0].join(sides[1], on=["pair", "context", "position"])
    both = np.bincount(together["pair"].to_numpy(), minlength=len(pairs))
    either = counts[0] + counts[1] - both
    return [float(b / e) if e else None for b, e in zip(both, either, strict=True)]
