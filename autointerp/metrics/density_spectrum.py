"""Do a few latents fire nearly everywhere? The mean density of the d densest latents, d the site's width.

    mean_density_of_densest = sum over the d densest latents of the tokens on which each fires / (d x tokens)

with d = d_model, or all latents where there are fewer. Every scored token counts, position 0 included, as in
every latent's density. With L0 active latents on each token it lies between L0 / latent_count (all are alike)
and min(1, L0 / d) (none but these d ever fire): a dictionary near the upper end has become a dense basis, as
principal components are, beside which its other latents matter little. The paper's TopK dictionaries begin to
do so at k = 256 and are far gone at k = 512, with d_model = 768.

The d densest are chosen on the tokens that they are then counted on. The interval is over documents and takes
the choice as given: among latents of nearly equal density, chance decides which is in, which biases the
number upward by far less than the interval's width wherever the density falls steeply at rank d.

Source: Gao et al. 2024 (arXiv 2406.04093), Fig. 20. Its caption says "divided by L0"; the values it shows,
.38 at k = 512 for one, are not.
"""

from collections.abc import Iterable, Mapping

import polars as pl

from autointerp.records import OBSERVATION_SCHEMA, observation_frame
from autointerp.sampling.activation_pass import ShardStore, read_shard
from autointerp.sampling.spill import context_key, firing_key

__all__ = ["MEAN_DENSITY_OF_DENSEST", "densest_latents", "densest_observations", "firings_by_document"]

MEAN_DENSITY_OF_DENSEST = "reconstruction.mean_density_of_densest"
_BY_DOCUMENT = {"document": pl.String, "fired": pl.Int64}


def densest_latents(densities: pl.DataFrame, count: int) -> pl.Series:
    """The `count` latents that fire on most tokens, or all if there are fewer; on ties the lower index.

    Args:
        densities: rows `latent`, `tokens_fired` of one dictionary, as from `latent_densities`.
        count: how many.
    """
    return densities.sort(["tokens_fired", "latent"], descending=[True, False]).head(count)["latent"]


def firings_by_document(
    store: ShardStore, checkpoint: str, chunk_names: Iterable[str], latents: pl.Series
) -> pl.DataFrame:
    """How often some latents fired in each document, together: rows `document`, `fired`.

    Reads the firings that a run keeps, a chunk at a time. Where documents are packed into contexts, a firing
    counts for the first document of its context.

    Raises:
        RunStoreError: a chunk's firings are not there.
    """
    total = pl.DataFrame(schema=_BY_DOCUMENT)
    wanted = latents.cast(pl.UInt32).implode()
    for name in chunk_names:
        firings = read_shard(store, firing_key(checkpoint, name))
        rows = firings.filter(pl.col("latent").is_in(wanted)).group_by("row").len("fired")
        contexts = read_shard(store, context_key(name)).select("document").with_row_index("row")
        found = contexts.join(rows, on="row").group_by("document").agg(pl.col("fired").sum().cast(pl.Int64))
        total = pl.concat([total, found.select(*_BY_DOCUMENT)])
    return total.group_by("document").agg(pl.col("fired").sum())


def densest_observations(
    store: ShardStore,
    chunk_names: Iterable[str],
    densities: pl.DataFrame,
    documents: pl.DataFrame,
    widths: Mapping[str, int],
) -> pl.DataFrame:
    """A row per dictionary and document: firings of the d densest latents over d, and the scored tokens.

    Args:
        store: with the kept firings of these chunks.
        chunk_names: of the run.
        densities: every latent's, from `latent_densities`; in these tokens the d densest are looked for.
        documents: what was evaluated, from `activation_pass.read_tokens`.
        widths: d by dictionary; those that are not named are left out.

    Returns: unit = cluster = document. No rows when there are no documents.
    """
    names = list(chunk_names)
    frames = [pl.DataFrame(schema=OBSERVATION_SCHEMA)]
    for checkpoint, width in widths.items() if documents.height else ():
        latents = densest_latents(densities.filter(pl.col("checkpoint") == checkpoint), width)
        fired = firings_by_document(store, checkpoint, names, latents)
        per_document = documents.group_by("document", maintain_order=True).agg(pl.col("token_count").sum())
        rows = per_document.join(fired, on="document", how="left", maintain_order="left")
        frames.append(
            observation_frame(
                checkpoint=checkpoint,
                metric=MEAN_DENSITY_OF_DENSEST,
                unit=rows["document"],
                cluster=rows["document"],
                numerator=rows["fired"].fill_null(0).cast(pl.Float64) / len(latents),
                denominator=rows["token_count"].cast(pl.Float64),
            )
        )
    return pl.concat(frames)
