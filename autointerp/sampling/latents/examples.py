"""Drawn rows -> examples: a window of a context around the focus, with what fires in it.

The window is the whole context unless a length is asked for. Then the focus stands in its middle
(`centring = "focus"`), as far as the context's ends allow, or at a place that a hash decides (`"random"`), so
that a judge cannot tell from the place where to look. A BOS token, which is no text, is never in a window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool

from autointerp.sampling.latents.spilled import Spilled
from autointerp.sampling.latents.tables import CONTEXTS
from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.sampler import SPLITS

__all__ = ["WindowOptions", "activations_of", "contexts_of", "windowed"]


@dataclass(frozen=True)
class WindowOptions:
    """How much of a context an example shows."""

    tokens: int | None = None
    """How many; None: all of the context's text."""
    centring: Literal["focus", "random"] = "focus"
    """Where the focus stands in a window that is shorter than its context."""


def windowed(
    drawn: pl.DataFrame, contexts: pl.DataFrame, options: WindowOptions, *, seed: int
) -> pl.DataFrame:
    """The rows with `begin` and `end`: positions begin <= p < end, the focus among them.

    Args:
        drawn: rows with latent, context, position.
        contexts: `context`, `first_scored`, `tokens`.
        options: length and centring.
        seed: of random centring.
    """
    bounds = contexts.select(
        "context", first="first_scored", last=pl.col("tokens").list.len().cast(pl.UInt32)
    )
    frame = drawn.join(bounds, on="context", how="left", maintain_order="left")
    first, last, focus = (frame[name].to_numpy().astype(np.int64) for name in ("first", "last", "position"))
    length = last - first if options.tokens is None else np.minimum(options.tokens, last - first)
    if options.centring == "random":
        keys = [frame[name].to_numpy().astype(np.uint64) for name in ("latent", "context", "position")]
        before = np.floor(uniform(hashed(seed, "window", *keys)) * length).astype(np.int64)
    else:
        before = length // 2
    begin = np.clip(focus - before, first, last - length)
    return frame.drop("first", "last").with_columns(
        begin=pl.Series(begin, dtype=pl.UInt32), end=pl.Series(begin + length, dtype=pl.UInt32)
    )


def contexts_of(spilled: Spilled, wanted: pl.Series) -> pl.DataFrame:
    """The contexts with these ids, by id: columns of `tables.CONTEXTS`.

    Memory: these contexts, and one chunk.
    """
    ids = wanted.unique()
    found = [pl.DataFrame()]
    for chunk in spilled.chunk_names:
        frame = spilled.contexts(chunk).frame
        found.append(frame.filter(pl.col("context").is_in(ids.implode())))
    side = pl.col("split").replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String)
    return (
        pl.concat(found, how="diagonal")
        .unique("context", keep="first", maintain_order=True)
        .with_columns(side)
        .select(*CONTEXTS)
        .sort("context")
    )


def activations_of(
    examples: pl.DataFrame,
    spilled: Spilled,
    name: str,
    chosen: Bool[np.ndarray, " dictionary"],
    *,
    advance: Callable[[float], None] = lambda _: None,
) -> pl.DataFrame:
    """The examples with `fired` (positions in the window at which the latent fires) and `activations` there.

    Args:
        examples: rows with latent, context, begin, end.
        spilled: the firings.
        name: of the dictionary.
        chosen: by latent, whether it is sampled.
        advance: told of every chunk that is read.
    """
    numbered = examples.with_row_index("example")
    wanted = numbered.select("example", "latent", "context", "begin", "end")
    parts: list[pl.DataFrame] = []
    for chunk in spilled.chunk_names:
        contexts = spilled.contexts(chunk)
        rows = spilled.firings(name, chunk).of(chosen).rows(contexts)
        inside = rows.join(wanted, on=["latent", "context"]).filter(
            pl.col("position").is_between("begin", "end", closed="left")
        )
        parts.append(inside.select("example", "position", "value"))
        advance(1)
    lists = (
        pl.concat(parts)
        .unique(["example", "position"], keep="first")
        .sort("example", "position")
        .group_by("example", maintain_order=True)
        .agg(fired=pl.col("position"), activations=pl.col("value"))
    )
    return (
        numbered.join(lists, on="example", how="left", maintain_order="left")
        .with_columns(
            fired=pl.col("fired").fill_null(pl.lit([], dtype=pl.List(pl.UInt32))),
            activations=pl.col("activations").fill_null(pl.lit([], dtype=pl.List(pl.Float32))),
        )
        .drop("example")
    )
