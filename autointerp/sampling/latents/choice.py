"""Totals of all latents -> which are sampled, with what weight, and what their scores can speak for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Int64

from autointerp.sampling.samplers.hashing import hashed
from autointerp.sampling.samplers.sampler import SPLITS

__all__ = ["Choice", "choose", "coverage_row", "followed_latents", "in_random_order", "judged"]

Wanted = Literal["random", "stratified", "all"] | tuple[int, ...]

_LEAST_FOLLOWED, _MOST_FOLLOWED = 256, 4096
_SPARE = 2
"""Latents followed for near misses per latent that is sampled: before the pass nobody knows which live."""


@dataclass(frozen=True)
class Choice:
    """Which latents of a dictionary are sampled."""

    latents: Wanted = "random"
    """`random`: uniformly among those that fire. `stratified`: as many from each decade of density (as
    `random` where there are more decades than `count`). `all`: all that fire. Else indices."""
    count: int = 200
    """How many, for `random` and `stratified`."""
    least_documents: int = 2
    """In how many documents of each split a latent must fire, near-duplicates counting once; one that does
    not is undefined: nothing could be told of it on text that its explanation was not made from."""
    ultra_dense: float = 0.1
    """Density per token above which a latent is reported as ultra-dense. A latent on so many tokens hardly
    stands for one concept; it stays among the sampled ones."""


def in_random_order(latent_count: int, *, seed: int) -> Int64[np.ndarray, " latent"]:
    """All latents by a hash of (seed, index): the same order in every run, whatever fires."""
    latents = np.arange(latent_count, dtype=np.uint64)
    return np.argsort(hashed(seed, "latents", latents), kind="stable")


def followed_latents(choice: Choice, latent_count: int, *, seed: int) -> Int64[np.ndarray, " latent"]:
    """Whose near misses to look for, before it is known which latents fire: the first in random order.

    Two for each that is to be sampled, at least 256 and at most 4096; those asked for by index, at most
    4096 of them.
    """
    if isinstance(choice.latents, tuple):
        wanted = np.array([index for index in choice.latents if index < latent_count], dtype=np.int64)
        return np.unique(wanted)[:_MOST_FOLLOWED]
    count = _MOST_FOLLOWED if choice.latents == "all" else _SPARE * choice.count
    count = min(max(count, _LEAST_FOLLOWED), _MOST_FOLLOWED)
    return np.sort(in_random_order(latent_count, seed=seed)[:count])


def judged(totals: pl.DataFrame, choice: Choice, *, token_count: int) -> pl.DataFrame:
    """Totals with `density`, `status`, `reason` and `is_ultra_dense`.

    Args:
        totals: one row per latent, from `LatentTotals.frame`.
        choice: the limits.
        token_count: scored tokens of the text.
    """
    fewest = pl.min_horizontal(*(f"{split}_documents" for split in SPLITS))
    words = [f"{split} {{}}" for split in SPLITS]
    reason = pl.format(
        f"fires in too few documents for three splits ({', '.join(words)}; needed: {choice.least_documents} "
        "in each)",
        *(f"{split}_documents" for split in SPLITS),
    )
    is_dead, is_rare = pl.col("tokens_fired") == 0, fewest < choice.least_documents
    return totals.with_columns(
        density=pl.col("tokens_fired") / token_count,
        status=pl.when(is_dead)
        .then(pl.lit("dead"))
        .when(is_rare)
        .then(pl.lit("undefined"))
        .otherwise(pl.lit("live")),
        reason=pl.when(is_rare & ~is_dead).then(reason).otherwise(pl.lit("")),
        is_ultra_dense=pl.col("tokens_fired") > choice.ultra_dense * token_count,
    )


def choose(latents: pl.DataFrame, choice: Choice, *, seed: int) -> pl.DataFrame:
    """The sampled latents: `latent`, `sampling_weight`, `stratum`, by latent.

    A weight is the number of latents that fire for which a sampled one stands, so that weighted sums over
    the sample estimate sums over all latents that fire without bias (Horvitz and Thompson 1952). A latent
    named by index stands for nobody: its weight is null. Latents that fire in too few documents are sampled
    like any other, as rows that say so: leaving them out would speak for fewer latents than it seems.

    Args:
        latents: from `judged`.
        choice: which; of a list, what the dictionary has.
        seed: of the order.
    """
    live = latents.filter(pl.col("tokens_fired") > 0)
    if isinstance(choice.latents, tuple):
        return _named(latents.height, choice.latents)
    if choice.latents == "all":
        return _weighted(live.with_columns(stratum=pl.lit("")), live.with_columns(stratum=pl.lit("")))
    order = in_random_order(latents.height, seed=seed)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    live = live.with_columns(place=pl.Series(place[live["latent"].to_numpy()]))
    if choice.latents == "random":
        live = live.with_columns(stratum=pl.lit(""))
        return _weighted(live.sort("place").head(choice.count), live)
    live = live.with_columns(stratum=_decades(live["density"].to_numpy()))
    if live["stratum"].n_unique() > choice.count:  # nobody would stand for the decades that go without
        live = live.with_columns(stratum=pl.lit(""))
    return _weighted(_dealt(live, choice.count), live)


def _named(latent_count: int, wanted: Sequence[int]) -> pl.DataFrame:
    there = sorted({index for index in wanted if index < latent_count})
    chosen = pl.DataFrame({"latent": there}, schema={"latent": pl.UInt32})
    return chosen.with_columns(sampling_weight=pl.lit(None, dtype=pl.Float64), stratum=pl.lit(""))


def _weighted(chosen: pl.DataFrame, population: pl.DataFrame) -> pl.DataFrame:
    there = population.group_by("stratum").agg(there=pl.len())
    taken = chosen.group_by("stratum").agg(taken=pl.len())
    return (
        chosen.join(there, on="stratum")
        .join(taken, on="stratum")
        .select("latent", "stratum", sampling_weight=pl.col("there") / pl.col("taken"))
        .select("latent", "sampling_weight", "stratum")
        .sort("latent")
    )


def _decades(density: np.ndarray) -> pl.Series:
    """`1e-3 to 1e-2`: the power of ten at or below the density, and the next."""
    low = np.floor(np.log10(np.maximum(density, np.finfo(float).tiny))).astype(int)
    return pl.Series([f"1e{power} to 1e{power + 1}" for power in low], dtype=pl.String)


def _dealt(live: pl.DataFrame, count: int) -> pl.DataFrame:
    """As many of each stratum; what a small one does not use goes to the others."""
    queue = live.sort("stratum", "place").with_columns(turn=pl.int_range(pl.len()).over("stratum"))
    return queue.sort("turn", "place").head(count)


def coverage_row(latents: pl.DataFrame, chosen: pl.DataFrame) -> dict[str, object]:
    """What scores of the sampled latents can speak for, less the columns that say whose it is.

    Args:
        latents: from `judged`.
        chosen: from `choose`.
    """
    scorable = latents.filter(pl.col("status") == "live")
    mass, all_mass = float(scorable["mass"].sum()), float(latents["mass"].sum())
    sampled = latents.join(chosen.select("latent"), on="latent")
    return {
        "latent_count": latents.height,
        "live_count": int((latents["tokens_fired"] > 0).sum()),
        "scorable_count": scorable.height,
        "ultra_dense_count": int(latents["is_ultra_dense"].sum()),
        "sampled_count": sampled.height,
        "sampled_scorable_count": int((sampled["status"] == "live").sum()),
        "scorable_fraction": scorable.height / latents.height,
        "scorable_mass_fraction": mass / all_mass if all_mass else None,
    }
