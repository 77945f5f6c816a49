"""The run's text on one side, chunk by chunk, as graphs walk over it and as latents fire on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, UInt32, UInt64

from autointerp.evaluation.work import Work
from autointerp.explaining.graph_walk import GraphText, MergedGraphs
from autointerp.metrics.n2g_tallies import PLACE_SCHEMA
from autointerp.sampling.latents.sides import SplitShares
from autointerp.sampling.latents.spilled import Spilled, document_sides
from autointerp.sampling.samplers.sampler import SPLITS, SplitName
from autointerp.sampling.spill import context_key

__all__ = ["SideText", "expected", "fired", "narrowed", "open_spill", "side_text"]


@dataclass(frozen=True, eq=False)
class SideText:
    """The contexts of a chunk that stand on one side."""

    chunk: str
    frame: pl.DataFrame
    """As `ChunkContexts.frame`, with `row`, the number of the context in the chunk."""
    text: GraphText
    """From each context's first token of text on."""
    row: UInt32[np.ndarray, " place"]
    context: UInt64[np.ndarray, " place"]
    position: UInt32[np.ndarray, " place"]
    """In the context, BOS included."""
    is_text: Bool[np.ndarray, " place"]

    @property
    def token_count(self) -> int:
        """Tokens of text, on which alone latents are watched."""
        return int(self.is_text.sum())


def open_spill(work: Work) -> Spilled:
    """What the pass left, with every document on its side, as where latents were sampled."""
    chunk_names = [key.removeprefix(context_key("")) for key in work.store.keys(context_key(""))]
    section = work.suite.sampling
    documents = document_sides(
        work.store,
        chunk_names,
        shares=SplitShares(section.explain_fraction, section.validate_fraction, section.score_fraction),
        least_similarity=section.duplicate_similarity,
        seed=work.suite.seed,
    )
    return Spilled(work.store, chunk_names, documents)


def side_text(spilled: Spilled, split: SplitName) -> Iterator[SideText]:
    """The text of one side; memory: one chunk's."""
    for chunk in spilled.chunk_names:
        frame = spilled.contexts(chunk).frame.with_row_index("row")
        frame = frame.filter(pl.col("split") == SPLITS.index(split))
        frame = frame.filter(pl.col("first_scored") < pl.col("tokens").list.len())
        if frame.height:
            yield _side_text(chunk, frame)


def _side_text(chunk: str, frame: pl.DataFrame) -> SideText:
    first_scored = frame["first_scored"].to_numpy().astype(np.int64)
    own = frame.select(pl.col("tokens").list.slice(pl.col("first_scored")))["tokens"]
    lengths = own.list.len().to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(owner)) - starts[owner] + first_scored[owner]
    is_text = np.ones(len(owner), dtype=bool)
    unscored = frame["unscored"]
    holder = np.repeat(starts - first_scored, unscored.list.len().to_numpy())
    places = unscored.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    is_text[holder + places.astype(np.int64)] = False
    tokens = own.explode(empty_as_null=False, keep_nulls=False).to_numpy().astype(np.int64)
    return SideText(
        chunk=chunk,
        frame=frame,
        text=GraphText(tokens, starts[owner]),
        row=frame["row"].to_numpy().astype(np.uint32)[owner],
        context=frame["context"].to_numpy()[owner],
        position=position.astype(np.uint32),
        is_text=is_text,
    )


def expected(side: SideText, merged: MergedGraphs) -> Iterator[pl.DataFrame]:
    """What graphs expect on a chunk's text, as PLACE_SCHEMA with `place` in `side.text`, a part at a time."""
    for hits in merged.hits(side.text):
        kept = side.is_text[hits.place]
        place = hits.place[kept]
        columns = {
            "latent": hits.latent[kept].astype(np.uint32),
            "row": side.row[place],
            "context": side.context[place],
            "position": side.position[place],
            "value": hits.value[kept],
        }
        yield pl.DataFrame(columns, schema=PLACE_SCHEMA).with_columns(place=pl.Series(place))


def fired(side: SideText, spilled: Spilled, name: str, latents: Sequence[int] | None = None) -> pl.DataFrame:
    """Where a dictionary's latents, or some of them, fire on a chunk's text of this side, as PLACE_SCHEMA."""
    firings = spilled.firings(name, side.chunk)
    if latents is not None:
        wanted = np.zeros(max([int(firings.latent.max(initial=0)), *latents]) + 1, dtype=bool)
        wanted[list(latents)] = True
        firings = firings.of(wanted)
    columns = (firings.latent, firings.row, firings.position, firings.value.astype(np.float64))
    names = ("latent", "row", "position", "value")
    frame = pl.DataFrame(dict(zip(names, columns, strict=True)))
    return frame.join(side.frame.select("row", "context"), on="row").select(*PLACE_SCHEMA)


def narrowed(side: SideText, contexts: pl.DataFrame) -> SideText | None:
    """Some contexts of it alone; None where there is none of them.

    Args:
        side: the text.
        contexts: `chunk` and `row`; those of other chunks are passed over. Their order does not matter.
    """
    wanted = contexts.filter(chunk=side.chunk).select("row")
    frame = side.frame.join(wanted, on="row", how="semi", maintain_order="left")
    return _side_text(side.chunk, frame) if frame.height else None
