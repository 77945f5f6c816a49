"""The sampled latents of a run -> `latents/matches.parquet`: the nearest in every other dictionary."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.evaluation.co_firing import co_firing, read_firings
from autointerp.evaluation.inputs import Measurable
from autointerp.metrics.latent_matching import followers_of, nearest_in
from autointerp.run_store import RunStore
from autointerp.sampling.latents.decoder_neighbours import decoder_directions
from autointerp.sampling.latents.tables import LEAST_MATCH_COSINE, MATCHES

__all__ = ["nearest_across", "with_co_firing", "write_matches"]


class DecoderDirections:
    """`latent_matching.Directions` of a dictionary, read from where it lies, block by block."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae

    def __len__(self) -> int:
        """How many latents it has."""
        return self._sae.latent_count

    def __getitem__(self, latents: Int64[Tensor, " chosen"]) -> Float[Tensor, "chosen width"]:
        """Those of some latents."""
        return decoder_directions(self._sae, latents.tolist())

    def split(self, size: int) -> Iterator[Float[Tensor, "block width"]]:
        """All of them in order, so many at a time."""
        for start in range(0, len(self), size):
            yield decoder_directions(self._sae, range(start, min(start + size, len(self))))


def write_matches(store: RunStore, entries: Sequence[Measurable]) -> None:
    """Write `latents/matches.parquet`; a few matrix products of directions for every two dictionaries."""
    sampled = pl.read_parquet(store.path / "latents" / "latents.parquet").filter(pl.col("is_sampled"))
    latents = {
        entry.summary.name: sampled.filter(pl.col("checkpoint") == entry.summary.name)["latent"].to_list()
        for entry in entries
    }
    found = with_co_firing(nearest_across(entries, latents), store.path)
    store.write_table("latents/matches.parquet", found)


def nearest_across(entries: Sequence[Measurable], latents: Mapping[str, Sequence[int]]) -> pl.DataFrame:
    """MATCHES of the given latents of each dictionary, as yet without `co_firing`."""
    frames = [pl.DataFrame(schema=MATCHES)]
    for entry in entries:
        chosen = list(latents[entry.summary.name])
        if not chosen:
            continue
        own = DecoderDirections(entry.checkpoint.sae)
        rows = own[torch.tensor(chosen)]
        for other in entries:
            if other is entry or other.summary.site != entry.summary.site:
                continue
            theirs = DecoderDirections(other.checkpoint.sae)
            found = nearest_in(rows, theirs)
            followers = followers_of(np.array(chosen), own, theirs, least=LEAST_MATCH_COSINE)
            names = (entry.summary.name, other.summary.name)
            columns = (names[0], chosen, names[1], found.index, found.cosine, followers, None)
            frames.append(pl.DataFrame(dict(zip(MATCHES, columns, strict=True)), schema=MATCHES))
    return pl.concat(frames)


def with_co_firing(matches: pl.DataFrame, run: Path) -> pl.DataFrame:
    """The same with `co_firing` of those that are alike enough, from the firings that the run kept."""
    alike = matches.filter(pl.col("cosine") >= LEAST_MATCH_COSINE)
    sides = [
        alike.select(checkpoint="checkpoint", latent="latent"),
        alike.select(checkpoint="other_checkpoint", latent="other_latent"),
    ]
    wanted = pl.concat(sides).unique().partition_by("checkpoint", as_dict=True)
    fired = {name: read_firings(run, name, own["latent"].to_list()) for (name,), own in wanted.items()}
    frames = [matches.filter((pl.col("cosine") < LEAST_MATCH_COSINE) | pl.col("cosine").is_null())]
    for part in alike.partition_by("checkpoint", "other_checkpoint", maintain_order=True):
        one, other = fired[part["checkpoint"][0]], fired[part["other_checkpoint"][0]]
        if one is not None and other is not None:
            pairs = list(part.select("latent", "other_latent").iter_rows())
            shares = pl.Series("co_firing", co_firing(one, other, pairs), dtype=pl.Float64)
            part = part.with_columns(shares)  # noqa: PLW2901
        frames.append(part)
    order = matches.select("checkpoint", "other_checkpoint", "latent").with_row_index("order")
    found = pl.concat(frames).join(order, on=["checkpoint", "other_checkpoint", "latent"], how="left")
    return found.sort("order").select(list(MATCHES))
