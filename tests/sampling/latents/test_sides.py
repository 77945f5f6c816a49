import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency

from autointerp.errors import SuiteError
from autointerp.sampling.contexts import split_of
from autointerp.sampling.latents.near_duplicates import clusters
from autointerp.sampling.latents.sides import SIDE_SCHEMA, SplitShares, side_of, sides

MANY = [f"{number:08x}" for number in range(20_000)]


def alone(documents) -> pl.DataFrame:
    return pl.DataFrame(
        {"document": documents, "cluster": documents}, schema={"document": str, "cluster": str}
    )


@pytest.mark.parametrize(
    "shares", [SplitShares(), SplitShares(0.01, 0.01, 0.98), SplitShares(0.9, 0.05, 0.05)]
)
def test_each_side_has_its_share_of_clusters(shares) -> None:
    split = sides(alone(MANY), shares=shares, seed=3)["split"].to_numpy()
    for side, share in enumerate((shares.explain, shares.validate, shares.score)):
        assert binomtest(int((split == side).sum()), len(MANY), share).pvalue > 1e-4


def test_a_cluster_stands_on_one_side_whatever_its_documents_are_called() -> None:
    generator = np.random.default_rng(0)
    owner = generator.integers(0, 500, 5000)
    frame = pl.DataFrame({"document": MANY[:5000], "cluster": [MANY[number] for number in owner]})
    found = sides(frame, shares=SplitShares(), seed=0)
    assert found.group_by("cluster").agg(pl.col("split").n_unique())["split"].max() == 1
    assert found.select("document", "cluster").equals(frame)
    assert dict(found.schema) == SIDE_SCHEMA
    assert found["split"].to_list() == [
        side_of(cluster, SplitShares(), seed=0) for cluster in frame["cluster"].to_list()
    ]


def test_the_order_of_rows_and_the_other_documents_do_not_matter() -> None:
    whole = sides(alone(MANY[:1000]), shares=SplitShares(), seed=1)
    shuffled = sides(
        alone(MANY[:1000]).sample(fraction=1, shuffle=True, seed=0), shares=SplitShares(), seed=1
    )
    assert shuffled.sort("document").equals(whole)
    assert sides(alone(MANY[300:310]), shares=SplitShares(), seed=1).equals(whole[300:310])


def test_seeds_divide_independently_and_not_as_calibration_text_is_divided() -> None:
    first, second = (
        sides(alone(MANY), shares=SplitShares(), seed=seed)["split"].to_numpy() for seed in (0, 1)
    )
    calibration = np.array([split_of(name, calibration_fraction=0.5) == "calibration" for name in MANY])
    for other in (second, calibration.astype(int)):
        table = np.zeros((3, 3))
        np.add.at(table, (first, other), 1)
        assert chi2_contingency(table[:, table.any(axis=0)]).pvalue > 1e-4


def test_the_division_is_the_same_in_every_version() -> None:
    assert [side_of(name, SplitShares(), seed=0) for name in MANY[:12]] == [
        2,
        0,
        0,
        0,
        0,
        2,
        2,
        2,
        2,
        0,
        2,
        1,
    ]


def test_more_documents_join_clusters_but_never_split_one() -> None:
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2**31, (30, 64), dtype=np.uint32)[generator.integers(0, 30, 120)]
    noise = generator.random((120, 64)) < 0.35
    signature = np.where(noise, generator.integers(0, 2**31, (120, 64), dtype=np.uint32), base)
    schema = {"document": pl.String, "signature": pl.Array(pl.UInt32, 64)}
    frame = pl.DataFrame({"document": MANY[:120], "signature": signature}, schema=schema)
    fewer, more = (
        sides(clusters(rows), shares=SplitShares(), seed=0) for rows in (frame.sample(60, seed=0), frame)
    )
    both = fewer.join(more, on="document", suffix="_more")
    assert both.group_by("cluster").agg(pl.col("cluster_more").n_unique())["cluster_more"].max() == 1
    assert both["cluster_more"].n_unique() < both["cluster"].n_unique()
    unjoined = both.filter(pl.col("cluster") == pl.col("cluster_more"))
    assert unjoined["split"].equals(unjoined["split_more"].alias("split"))


def test_nothing_in_nothing_out() -> None:
    assert sides(alone([]), shares=SplitShares(), seed=0).equals(pl.DataFrame(schema=SIDE_SCHEMA))


@pytest.mark.parametrize(
    "shares",
    [(0.5, 0.5, 0.5), (0.4, 0.2, 0.4 + 2e-9), (1.0, 0.0, 0.0), (1.2, -0.6, 0.4), (0.4, 0.2, math.nan)],
)
def test_what_is_no_division_of_a_whole_is_refused(shares) -> None:
    with pytest.raises(SuiteError, match="do not divide a whole"):
        SplitShares(*shares)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(min_value=1e-3, max_value=1e3), min_size=3, max_size=3), st.text())
def test_shares_that_miss_one_by_rounding_alone_are_taken(parts, cluster) -> None:
    shares = SplitShares(*(part / sum(parts) for part in parts))
    assert side_of(cluster, shares, seed=0) in (0, 1, 2)
