"""Clusters of near-duplicate documents -> the side each stands on: explain, validate or score."""

import math
from dataclasses import astuple, dataclass

import polars as pl

from autointerp.errors import SuiteError
from autointerp.sampling.samplers.hashing import text_hash

__all__ = ["SIDE_SCHEMA", "SplitShares", "side_of", "sides"]

SIDE_SCHEMA = {
    "document": pl.String,
    "cluster": pl.String,
    "split": pl.UInt8,  # index into SPLITS
}
"""Every document with the side that it and its near-duplicates stand on."""

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class SplitShares:
    """Shares of clusters by side, each above 0; they sum up to 1 within 1e-9."""

    explain: float = 0.4
    """What an explainer sees."""
    validate: float = 0.2
    """What explanations are chosen on."""
    score: float = 0.4
    """What they are scored on."""

    def __post_init__(self) -> None:
        """Refuse what is no division of the whole."""
        shares = astuple(self)
        # Negated, so that NaN is refused too.
        if not min(shares) > 0 or not abs(math.fsum(shares) - 1) <= _TOLERANCE:
            raise SuiteError(
                f"shares of sides (explain, validate, score) = {shares} do not divide a whole",
                remedy="choose numbers above 0 that sum up to 1",
            )


def side_of(cluster: str, shares: SplitShares, *, seed: int) -> int:
    """The side on which a cluster stands, by the hash of its id alone, so in every run and order the same.

    Args:
        cluster: the smallest id among near-duplicate documents.
        shares: the probability of each side.
        seed: another one gives another division, independent of the first.

    Returns:
        An index into SPLITS.
    """
    # With a salt of its own, so that it does not depend on how documents were divided for anything else.
    place = text_hash(f"{seed}\0side\0{cluster}") / 2**64
    return int(place >= shares.explain) + int(place >= shares.explain + shares.validate)


def sides(clusters: pl.DataFrame, *, shares: SplitShares, seed: int) -> pl.DataFrame:
    """The side of every document; all documents of a cluster stand on one.

    With few clusters the shares are met only about: n clusters put n p +- sqrt(n p (1 - p)) on a side of
    share p, and clusters count the same whatever their size. Adding documents can join clusters, so that some
    documents move to the side of the joined one, but it never splits one; and a cluster that nothing joins
    stays where it is.

    Args:
        clusters: `document` and `cluster`, as `near_duplicates.clusters` gives them.
        shares: about how many of the clusters go where.
        seed: as of `side_of`.

    Returns:
        SIDE_SCHEMA, in the order of the rows of `clusters`. Cost: one hash per distinct cluster.
    """
    distinct = clusters["cluster"].unique()
    found = [side_of(cluster, shares, seed=seed) for cluster in distinct.to_list()]
    side = pl.DataFrame({"cluster": distinct, "split": pl.Series(found, dtype=pl.UInt8)})
    return clusters.join(side, on="cluster", how="left", maintain_order="left").select(*SIDE_SCHEMA)
