"""What a sampler is handed, chunk by chunk, and what it gives back.

A sampler keeps, of each latent and split, the few rows with the smallest keys. A key is a value, or a hash of
(seed, sampler, latent, context, position), never a running random number: so a sample does not depend on the
order of chunks, on their size or on who went over them, and the samples of two parts merge into that of the
whole.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import polars as pl
from jaxtyping import Float32

__all__ = ["NEAR_MISS_ROWS", "ROW_SCHEMA", "SAMPLE_SCHEMA", "SPLITS", "ChunkView", "Sampler", "SplitName"]

SplitName = Literal["explain", "validate", "score"]
SPLITS: tuple[SplitName, ...] = ("explain", "validate", "score")
"""Where a document stands, by index: what an explainer sees, what explanations are chosen on, what they are
scored on."""

ROW_SCHEMA = {
    "latent": pl.UInt32,
    "split": pl.UInt8,  # index into SPLITS
    "context": pl.UInt64,  # id of the context
    "position": pl.UInt32,  # in the context, BOS included
    "value": pl.Float32,
}
"""A firing, or the peak of a latent in a context: its firing of largest |value|, the first of equals."""

NEAR_MISS_ROWS = {
    "latent": pl.UInt32,
    "split": pl.UInt8,
    "context": pl.UInt64,
    "position": pl.UInt32,
    "margin": pl.Float32,  # >= 0: by how much the pre-activation stayed below what fires
}
"""Contexts in which a latent was silent, with the place where it came closest to firing."""

SAMPLE_SCHEMA = {
    "latent": pl.UInt32,
    "split": pl.UInt8,
    "stratum": pl.Int16,  # 0 where the sampler has no strata
    "context": pl.UInt64,
    "position": pl.UInt32,  # the focus: the firing or peak that was drawn; of silent text, see the sampler
    "value": pl.Float32,  # activation at the focus; null where the latent is silent
    "rank": pl.UInt32,  # within latent, split and stratum, from 0 in the sampler's own order
    "population": pl.UInt32,  # rows that were drawn from, in this latent, split and stratum
    "weight": pl.Float64,  # rows of the population that this one stands for; null where the sampler is no
    # probability sample (top contexts, hard negatives)
}
"""What a sampler gives: at most `count` rows of each latent, split and stratum, sorted by these columns."""


@dataclass(frozen=True, eq=False)
class ChunkView:
    """One chunk as a sampler sees it. Contexts and documents lie wholly within one chunk."""

    contexts: pl.DataFrame
    """One row per context: `context` (UInt64 id), `split` (UInt8), `tokens` (List(Int32), BOS included if the
    run puts one), `first_scored` (UInt32: position of its first scored token) and `unscored` (List(UInt32):
    positions behind it that are not scored; the column may be absent where there are none); sorted by id."""
    firings: pl.DataFrame
    """ROW_SCHEMA: all firings of chosen latents on scored tokens, by latent, context, position."""
    peaks: pl.DataFrame
    """ROW_SCHEMA: one row per watched latent and context in which it fires, sorted by latent and context.
    Watched are the chosen latents, and those named as neighbours of chosen ones."""
    embeddings: Float32[np.ndarray, "context_row width"] | None
    """One row per row of `contexts`: the site's mean activation over the context's scored tokens, projected
    to a few dimensions. None where the run kept none."""
    near_misses: pl.DataFrame
    """NEAR_MISS_ROWS: of chosen latents, a few per chunk and latent."""


@runtime_checkable
class Sampler(Protocol):
    """Keeps some rows of each chosen latent while chunks go by, in any order."""

    @property
    def name(self) -> str:
        """As in the catalogue and in the column `sampler` of the examples."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether it gives text in which the latent does not fire anywhere in the context."""
        ...

    def add(self, chunk: ChunkView) -> None:
        """Take a chunk in; keep at most a fixed number of rows per latent, split and stratum."""
        ...

    def merge(self, other: "Sampler") -> None:
        """Take in what another one kept of other chunks, as if `add` had seen them here."""
        ...

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA."""
        ...
