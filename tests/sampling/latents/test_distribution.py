"""Log-scale histograms: quantiles within 1 % of a sort, strata that agree with their bins value by value."""

import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sampling.latents import distribution as module
from autointerp.sampling.latents.distribution import (
    BASE,
    HIGHEST_BIN,
    HISTOGRAM_SCHEMA,
    LOWEST_BIN,
    Histograms,
    bins_of,
    quantiles,
    strata_edges,
)

LEVELS = (0.0, 0.01, 0.05, 0.07, 0.25, 0.5, 0.75, 0.95, 0.99)
TINY, HUGE = np.float32(2.0**-149), np.finfo(np.float32).max
RNG = np.random.default_rng(0)
SAMPLES = {
    "lognormal": RNG.lognormal(0, 2, 3000),
    "uniform": RNG.uniform(0.5, 3, 1000),
    "constant": np.full(77, 1.7),
    "one": np.ones(3),
    "single": np.array([-2.5]),
    "two values": np.where(RNG.random(500) < 0.3, 0.1, 40.0),
    "signed": RNG.normal(size=800),
    "denormal": RNG.integers(1, 1000, 400) * 2.0**-149,
    "huge": HUGE * RNG.uniform(0.1, 1, 400),
    "ends": np.array([TINY, HUGE, TINY, HUGE, 1.0]),
}
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda x: x != 0)


def histogram(value, latent=0):
    value = np.asarray(value).astype(np.float32)
    filled = Histograms()
    filled.add(np.full(value.size, latent, np.uint32), value)
    return filled.frame()


def nearest_rank(value, level):
    ordered = np.sort(np.abs(value.astype(np.float32)).astype(np.float64))
    return ordered[max(math.ceil(Fraction(str(level)) * len(ordered)), 1) - 1]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_quantile_is_within_one_percent_of_a_sort(name):
    value = SAMPLES[name]
    row = quantiles(histogram(value), LEVELS).row(0, named=True)
    for level in LEVELS:
        exact = nearest_rank(value, level)
        assert abs(row[f"q{round(100 * level):02d}"] - exact) <= (0.01 + 1e-9) * exact


@settings(max_examples=60, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=40), st.integers(0, 100))
def test_so_is_that_of_any_values(values, percent):
    value = np.array(values, np.float32)
    exact = nearest_rank(value, percent / 100)
    found = quantiles(histogram(value), [percent / 100])[f"q{percent:02d}"].item()
    assert abs(found - exact) <= (0.01 + 1e-9) * exact


def test_ranks_are_not_moved_by_rounding():
    """0.07 * 100 is a little more than 7 in floating point, and still means the 7th of 100 values."""
    value = 2.0 ** np.arange(-50, 50)
    for percent in range(1, 101):
        found = quantiles(histogram(value), [percent / 100])[f"q{percent:02d}"].item()
        assert found == pytest.approx(value[percent - 1], rel=0.0101)


@given(FINITE)
def test_a_value_lies_in_its_bin(value):
    number = int(bins_of(np.array([value], np.float32)).item())
    # BASE^b leaves the range of doubles nowhere; its own rounding error is below 1e-11.
    assert BASE ** (number - 1) * (1 - 1e-11) < abs(value) <= BASE**number * (1 + 1e-11)
    assert LOWEST_BIN <= number <= HIGHEST_BIN


def test_bins_are_the_logarithm_rounded_up():
    value = np.concatenate([v.astype(np.float32) for v in SAMPLES.values()])
    exact = np.log(np.abs(value.astype(np.float64))) / math.log(BASE)
    clear = np.abs(exact - np.round(exact)) > 1e-6
    np.testing.assert_array_equal(bins_of(value)[clear], np.ceil(exact[clear]))
    assert bins_of(np.array([1.0, TINY, HUGE], np.float32)).tolist() == [0, LOWEST_BIN, HIGHEST_BIN]


def test_bins_do_not_fall_as_values_grow_even_at_their_edges():
    edges = BASE ** np.arange(-600.0, 600.0)
    value = np.sort(
        np.concatenate([np.nextafter(edges.astype(np.float32), np.float32(to)) for to in (0.0, np.inf)])
    )
    assert (np.diff(bins_of(value)) >= 0).all()
    assert (np.diff(bins_of(value)) <= 1).all()


@pytest.mark.parametrize("error", [1e-4, -1e-4])
def test_a_machine_with_a_worse_logarithm_has_the_same_bins(monkeypatch, error):
    value = np.concatenate([v.astype(np.float32) for v in SAMPLES.values()])
    expected = bins_of(value)
    monkeypatch.setattr(module, "_LOG_BASE", math.log(BASE) * (1 + error))
    np.testing.assert_array_equal(bins_of(value), expected)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_what_is_no_firing_is_refused(value):
    with pytest.raises(ValueError, match="finite and not 0"):
        bins_of(np.array([1.0, value], np.float32))


def many_latents(seed, count=2000):
    generator = np.random.default_rng(seed)
    latent = generator.integers(0, 12, count).astype(np.uint32)
    scale = np.array([0.01, 1.0, 30.0])[latent % 3]
    value = (generator.lognormal(0, 1, count) * scale * generator.choice([-1, 1], count)).astype(np.float32)
    return latent, value


def test_counts_are_those_of_a_group_by():
    latent, value = many_latents(1)
    filled = Histograms()
    filled.add(latent, value)
    frame = filled.frame()
    assert dict(frame.schema) == HISTOGRAM_SCHEMA
    expected = (
        pl.DataFrame({"latent": latent, "bin": bins_of(value)})
        .group_by("latent", "bin")
        .agg(count=pl.len())
        .sort("latent", "bin")
    )
    assert frame.equals(expected.cast(HISTOGRAM_SCHEMA))


@pytest.mark.parametrize("pending", [0, 100, 1 << 20])
def test_parts_add_up_in_any_order(monkeypatch, pending):
    monkeypatch.setattr(module, "_PENDING_BINS", pending)
    latent, value = many_latents(2)
    whole = Histograms()
    whole.add(latent, value)
    parts = [Histograms() for _ in range(3)]
    for index, at in enumerate(np.array_split(np.random.default_rng(0).permutation(latent.size), 20)):
        parts[index % 3].add(latent[at], value[at])
    parts[1].merge(parts[0])
    parts[2].merge(parts[1])
    assert parts[2].frame().equals(whole.frame())


def test_quantiles_of_many_latents_are_each_their_own():
    latent, value = many_latents(3)
    filled = Histograms()
    filled.add(latent, value)
    frame = filled.frame().sample(fraction=1.0, shuffle=True, seed=0)
    table = quantiles(frame, (0.05, 0.5))
    assert table["latent"].to_list() == list(range(12))
    for row in table.iter_rows(named=True):
        assert row["q50"] == pytest.approx(nearest_rank(value[latent == row["latent"]], 0.5), rel=0.0101)


def edge_case(name):
    return SAMPLES[name].astype(np.float32), histogram(SAMPLES[name])


@pytest.mark.parametrize("strata", [1, 2, 5, 10])
@pytest.mark.parametrize("name", SAMPLES)
def test_strata_cover_every_value_once_and_agree_with_bins(name, strata):
    value, frame = edge_case(name)
    edges = strata_edges(frame, strata=strata)
    assert edges["stratum"].is_sorted() and edges["stratum"].is_unique().all()
    assert edges["stratum"].min() >= 0 and edges["stratum"].max() < strata
    assert edges["lower"][0] == 0 and edges["upper"][-1] == math.inf
    assert edges["lower"][1:].equals(edges["upper"][:-1].rename("lower"))
    size, bins = np.abs(value)[:, None], bins_of(value)[:, None]
    by_value = (edges["lower"].to_numpy() <= size) & (size < edges["upper"].to_numpy())
    by_bin = (edges["lower_bin"].to_numpy() <= bins) & (bins < edges["upper_bin"].to_numpy())
    np.testing.assert_array_equal(by_value, by_bin)
    assert (by_value.sum(axis=1) == 1).all()
    assert (by_value.sum(axis=0) > 0).all()


def test_strata_agree_with_bins_right_at_their_edges():
    edges = strata_edges(histogram(SAMPLES["lognormal"]), strata=10)
    for row in edges.iter_rows(named=True):
        if row["lower"] > 0:
            first = np.array([row["lower"]], np.float32)
            assert float(first.item()) == row["lower"]
            assert bins_of(first).item() == row["lower_bin"]
            assert bins_of(np.nextafter(first, np.float32(0))).item() == row["lower_bin"] - 1


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(-300, 300), st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 6)
)
def test_every_cut_is_at_the_edge_nearest_to_its_share(counts, strata):
    frame = pl.DataFrame(
        {"latent": [4] * len(counts), "bin": list(counts), "count": list(counts.values())},
        schema=HISTOGRAM_SCHEMA,
    )
    edges = strata_edges(frame, strata=strata)
    upto = np.append(0, np.cumsum([counts[number] for number in sorted(counts)]))
    held = {
        row["stratum"]: sum(c for b, c in counts.items() if row["lower_bin"] <= b < row["upper_bin"])
        for row in edges.iter_rows(named=True)
    }
    for cut in range(1, strata):
        below = sum(count for stratum, count in held.items() if stratum < cut)
        target = Fraction(cut * int(upto[-1]), strata)
        assert abs(below - target) == min(abs(int(edge) - target) for edge in upto)


def test_a_constant_has_one_stratum_in_the_middle():
    edges = strata_edges(histogram(SAMPLES["constant"]), strata=5)
    assert edges.select("stratum", "lower", "upper").rows() == [(2, 0.0, math.inf)]


def test_strata_of_smooth_values_are_of_nearly_equal_size():
    frame = histogram(SAMPLES["lognormal"])
    edges = strata_edges(frame, strata=10)
    held = [
        frame.filter(pl.col("bin").is_between(low, high, closed="left"))["count"].sum()
        for low, high in edges.select("lower_bin", "upper_bin").iter_rows()
    ]
    assert len(held) == 10 and sum(held) == 3000
    assert max(abs(count - 300) for count in held) <= frame["count"].max()


def test_no_values_give_no_rows():
    empty = Histograms()
    empty.add(np.zeros(0, np.uint32), np.zeros(0, np.float32))
    empty.merge(Histograms())
    frame = empty.frame()
    assert frame.equals(pl.DataFrame(schema=HISTOGRAM_SCHEMA))
    assert quantiles(frame, [0.05]).columns == ["latent", "q05"]
    assert strata_edges(frame, strata=3).is_empty()
