import numpy as np
import polars as pl
import pytest
from scipy import stats

from autointerp.sampling.samplers.importance import ImportanceSampler
from autointerp.sampling.samplers.quantiles import QuantileSampler
from autointerp.sampling.samplers.sampler import NEAR_MISS_ROWS, ROW_SCHEMA, ChunkView
from autointerp.sampling.samplers.top import TopSampler
from autointerp.sampling.samplers.uniform import UniformSampler

LATENTS = np.array([4], dtype=np.uint32)


def _chunk(values, firings=None):
    """One latent that peaks once in each of as many contexts."""
    ids = list(range(10, 10 + len(values)))
    peaks = pl.DataFrame(
        {"latent": [4] * len(ids), "split": [1] * len(ids), "context": ids, "position": [0] * len(ids)}
    )
    peaks = peaks.with_columns(value=pl.Series(values, dtype=pl.Float32)).cast(ROW_SCHEMA)
    contexts = pl.DataFrame(
        {"context": ids, "split": [1] * len(ids), "tokens": [[1]] * len(ids), "first_scored": [0] * len(ids)},
        schema={
            "context": pl.UInt64,
            "split": pl.UInt8,
            "tokens": pl.List(pl.Int32),
            "first_scored": pl.UInt32,
        },
    )
    misses = pl.DataFrame(schema=NEAR_MISS_ROWS)
    return ChunkView(contexts, peaks if firings is None else firings, peaks, None, misses)


def _sample(sampler, chunk):
    sampler.add(chunk)
    return sampler.sample()


def _edges(*rows):
    return pl.DataFrame(rows, schema=["latent", "stratum", "lower", "upper"], orient="row")


def test_top_is_a_stable_sort(make_world):
    world = make_world(1, contexts=80)
    expected = []
    for latent in world.latents.tolist():
        for split in range(3):
            rows = world.peaks.filter((pl.col("latent") == latent) & (pl.col("split") == split))
            ordered = sorted(rows.sort("context").rows(), key=lambda row: -abs(row[4]))
            expected += [(*row, rank, len(ordered)) for rank, row in enumerate(ordered[:5])]
    sample = world.sampled("top", count=5).sort("latent", "split", "rank")
    columns = ["latent", "split", "context", "position", "value", "rank", "population"]
    assert sample.select(columns).rows() == expected
    assert len(expected) > 50


def test_top_goes_by_magnitude_and_by_context_among_equals():
    sample = _sample(TopSampler(latents=LATENTS, count=4, seed=0), _chunk([1.0, -3.0, 2.0, -2.0, 0.5]))
    assert sample.sort("rank")["context"].to_list() == [11, 12, 13, 10]


@pytest.mark.parametrize("name", ["uniform", "quantiles"])
def test_every_row_is_as_likely_as_any_other(name):
    chunk = _chunk(np.linspace(1, 2, 12))
    drawn = np.zeros(12, dtype=int)
    for seed in range(250):
        options = {"latents": LATENTS, "count": 3, "seed": seed}
        sampler = UniformSampler(**options)
        if name == "quantiles":
            sampler = QuantileSampler(**options, edges=_edges((4, 0, 0.0, 9.0)))
        drawn[_sample(sampler, chunk)["context"].to_numpy() - 10] += 1
    # Without replacement a count varies less: by 1 - 3 / 12, where the multinomial has 1 - 1 / 12.
    statistic = stats.chisquare(drawn).statistic / ((1 - 3 / 12) / (1 - 1 / 12))
    assert 1e-4 < stats.chi2.sf(statistic, 11) < 1 - 1e-4


def test_uniform_draws_firings_not_contexts():
    rows = [(4, 1, 10, position, 1.0) for position in range(9)] + [(4, 1, 11, 0, 1.0)]
    chunk = _chunk([1.0, 1.0], pl.DataFrame(rows, schema=ROW_SCHEMA, orient="row"))
    drawn = [
        _sample(UniformSampler(latents=LATENTS, count=1, seed=seed), chunk)["context"][0]
        for seed in range(200)
    ]
    assert stats.binomtest(drawn.count(11), 200, 0.1).pvalue > 1e-4


def test_strata_hold_what_they_say_and_the_highest_is_open_above():
    third = float(np.float32(0.1))  # a little more than 0.1 in float64
    values = [0.05, -third, 0.1999, 0.2, 0.5, -1.0, 7.0, 0.25]
    edges = _edges((4, 0, 0.1, 0.15), (4, 1, 0.15, 0.25), (4, 2, 0.5, 1.0))
    sample = _sample(QuantileSampler(latents=LATENTS, count=9, seed=0, edges=edges), _chunk(values))
    strata = {context - 10: stratum for context, stratum in sample.select("context", "stratum").rows()}
    assert strata == {1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2}
    exact = _edges((4, 0, 0.0, third), (4, 1, third, 1.0))
    sample = _sample(QuantileSampler(latents=LATENTS, count=9, seed=0, edges=exact), _chunk([third]))
    assert sample["stratum"].to_list() == [1]


def test_each_stratum_has_its_own_population(make_world):
    world = make_world(4, contexts=80)
    sample = world.sampled("quantiles", count=2)
    size = pl.col("value").cast(pl.Float64).abs()
    for latent, split, stratum, population in sample.select(
        "latent", "split", "stratum", "population"
    ).rows():
        low, high = [(0.3, 0.6), (0.6, 1.7), (1.7, np.inf)][stratum]
        is_there = (pl.col("latent") == latent) & (pl.col("split") == split) & (size >= low) & (size < high)
        assert world.peaks.filter(is_there).height == population
    assert set(sample["stratum"]) == {0, 1, 2}


def test_latents_without_edges_give_nothing():
    edges = _edges((6, 0, 0.0, 1.0))
    sampler = QuantileSampler(latents=np.array([4, 6], dtype=np.uint32), count=2, seed=0, edges=edges)
    assert _sample(sampler, _chunk([0.5, 0.7])).height == 0


def test_importance_weights_are_unbiased_for_any_sum():
    values = np.array([0.01, 0.5, -0.5, 1.0, 2.0, -3.0, 0.1, 20.0, 0.2, 1.0], dtype=np.float32)
    chunk = _chunk(values)
    sums = []
    for seed in range(200):
        sample = _sample(ImportanceSampler(latents=LATENTS, count=4, seed=seed), chunk)
        weight, value = sample["weight"].to_numpy(), sample["value"].to_numpy().astype(float)
        sums.append([weight.sum(), (weight * np.abs(value)).sum(), (weight * (value < 0)).sum()])
    expected = [10, np.abs(values.astype(float)).sum(), 2]
    error = np.std(sums, axis=0) / np.sqrt(len(sums))
    assert np.all(np.abs(np.mean(sums, axis=0) - expected) < 4 * error)


def test_importance_draws_large_peaks_first_and_counts_each_once_where_all_are_kept():
    values = [1.0] * 30 + [1e6]
    for seed in range(20):
        sample = _sample(ImportanceSampler(latents=LATENTS, count=2, seed=seed), _chunk(values))
        assert sample.filter(pl.col("context") == 40)["weight"].to_list() == [1.0]
    sample = _sample(ImportanceSampler(latents=LATENTS, count=31, seed=0), _chunk(values))
    assert sample["weight"].to_list() == [1.0] * 31
