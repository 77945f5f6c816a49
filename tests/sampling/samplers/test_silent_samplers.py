from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from autointerp.sampling.samplers import same_token, similar


def _groups(world):
    for latent in world.latents.tolist():
        for split in range(3):
            yield latent, split, world.contexts.filter(pl.col("split") == split)


def _populations(sample):
    return {row[:2]: row[2] for row in sample.select("latent", "split", "population").rows()}


def test_every_silent_context_is_as_likely_as_any_other(make_world):
    world = make_world(0, contexts=16, latents=1, split_count=1, densities=np.array([0.1, 0.0, 0.0]))
    fires = {context for latent, context in world.fires() if latent == world.latents[0]}
    silent = [context for context in world.contexts["context"].to_list() if context not in fires]
    assert 0 < len(silent) < 16
    drawn = dict.fromkeys(silent, 0)
    chunk = world.chunk()
    for seed in range(200):
        for context in world.sampled("silent", chunk=chunk, seed=seed, count=2)["context"].to_list():
            drawn[context] += 1
    share = 2 / len(silent)
    statistic = stats.chisquare(list(drawn.values())).statistic * (1 - 1 / len(silent)) / (1 - share)
    assert 1e-4 < stats.chi2.sf(statistic, len(silent) - 1) < 1 - 1e-4


@pytest.mark.parametrize("name", ["silent", "similar"])
def test_the_place_of_the_focus_is_uniform(make_world, name):
    world = make_world(1, contexts=1, latents=1, split_count=1, densities=np.zeros(3))
    world = replace(world, queries=np.ones_like(world.queries))
    first, length = world.contexts["first_scored"][0], len(world.contexts["tokens"][0])
    chunk = world.chunk()
    places = [world.sampled(name, chunk=chunk, seed=seed)["position"][0] for seed in range(200)]
    counts = np.bincount(places, minlength=length)
    assert counts[:first].sum() == 0 and length - first > 1
    assert stats.chisquare(counts[first:]).pvalue > 1e-4


def test_the_population_counts_silent_contexts(make_world):
    world = make_world(6, contexts=50)
    fires, populations = world.fires(), _populations(world.sampled("silent"))
    for latent, split, contexts in _groups(world):
        silent = sum((latent, context) not in fires for context in contexts["context"].to_list())
        assert populations.get((latent, split), 0) == silent


def test_contexts_without_scored_text_are_passed_over(make_world):
    world = make_world(6, latents=2)
    bare = world.contexts.with_columns(first_scored=pl.col("tokens").list.len().cast(pl.UInt32))
    world = replace(world, contexts=bare, firings=world.firings[:0], peaks=world.peaks[:0])
    for name in ("silent", "similar", "same_token"):
        assert world.sampled(name).height == 0


def test_same_token_finds_every_silent_context_with_the_token(make_world):
    world = make_world(8, contexts=60)
    fires, sample = world.fires(), world.sampled("same_token", count=60)
    tokens = {latent: set() for latent in world.latents.tolist()}
    for latent, token in world.tokens.rows():
        tokens[latent].add(token)
    for latent, split, contexts in _groups(world):
        expected = set()
        for context, _, row, first_scored in contexts.rows():
            if (latent, context) not in fires and tokens[latent] & set(row[first_scored:]):
                expected.add(context)
        rows = sample.filter((pl.col("latent") == latent) & (pl.col("split") == split))
        assert set(rows["context"]) == expected
        assert all(population == len(expected) for population in rows["population"])
    texts = dict(world.contexts.select("context", "tokens").rows())
    for latent, context, position in sample.select("latent", "context", "position").rows():
        assert texts[context][position] in tokens[latent]
    assert sample.height > 50


def test_a_pool_is_a_random_part_of_bounded_size(make_world, monkeypatch):
    monkeypatch.setattr(same_token, "_POOL", 2)
    world = make_world(8, contexts=200, split_count=1, densities=np.zeros(8))
    sample = world.sampled("same_token", count=5)
    assert sample["latent"].n_unique() == len(world.latents)
    assert sample["population"].max() < 60 < world.contexts.height
    assert sample.group_by("latent").len()["len"].to_list() == [5] * len(world.latents)


def test_a_latent_that_fires_wherever_its_token_stands_gets_what_the_pool_holds(make_world, monkeypatch):
    monkeypatch.setattr(same_token, "_POOL", 1)
    world = make_world(9, contexts=100, split_count=1, densities=np.array([0.6] * 8))
    sample = world.sampled("same_token", count=4)
    sizes = sample.group_by("latent").agg(pl.len(), pl.col("population").first())
    assert all(size == min(4, population) for _, size, population in sizes.rows())
    assert sizes["len"].min() < 4


def test_neighbours_are_contexts_in_which_another_fires(make_world):
    world = make_world(12, contexts=60)
    fires, sample = world.fires(), world.sampled("neighbours", count=60)
    peaks = {(latent, context): position for latent, _, context, position, _ in world.peaks.rows()}
    for latent, split, contexts in _groups(world):
        others = world.neighbours.filter(pl.col("latent") == latent)["other"].to_list()
        expected = {
            context
            for context in contexts["context"].to_list()
            if (latent, context) not in fires and any((other, context) in fires for other in others)
        }
        rows = sample.filter((pl.col("latent") == latent) & (pl.col("split") == split))
        assert set(rows["context"]) == expected
        assert all(population == len(expected) for population in rows["population"])
        for context, position in rows.select("context", "position").rows():
            assert position in {peaks[other, context] for other in others if (other, context) in peaks}
    assert sample.height > 50


def test_neighbours_draw_contexts_alike_however_many_fire_there(make_world):
    world = make_world(
        12, contexts=14, latents=3, split_count=1, densities=np.array([0.0, 0.3, 0.3, 0.3, 0.3])
    )
    latent = int(world.latents[0])
    others = world.watched[1:].tolist()
    world.neighbours = pl.DataFrame(
        {"latent": [latent] * 4, "other": others}, schema_overrides={"other": pl.UInt32}
    )
    population = world.sampled("neighbours", count=99)["context"].to_list()
    drawn = dict.fromkeys(population, 0)
    chunk = world.chunk()
    for seed in range(250):
        drawn[world.sampled("neighbours", chunk=chunk, seed=seed, count=1)["context"][0]] += 1
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-4


def test_similar_are_the_largest_cosines(make_world):
    world = make_world(13, contexts=80)
    fires, sample = world.fires(), world.sampled("similar", count=4)
    embeddings = dict(zip(world.contexts["context"].to_list(), world.embeddings.astype(float), strict=True))
    found = 0
    for latent, split, contexts in _groups(world):
        query = world.queries[world.latents.tolist().index(latent), split].astype(float)
        rows = sample.filter((pl.col("latent") == latent) & (pl.col("split") == split)).sort("rank")
        if not np.any(query) or np.any(np.isnan(query)):
            assert rows.height == 0
            continue
        cosines = []
        for context in contexts["context"].to_list():
            moved = embeddings[context] - world.centre
            if (latent, context) not in fires:
                cosine = query @ moved / np.linalg.norm(query) / np.linalg.norm(moved)
                cosines.append((-round(float(cosine), 6), context))
        assert rows["context"].to_list() == [context for _, context in sorted(cosines)[:4]]
        assert all(population == len(cosines) for population in rows["population"])
        found += rows.height
    assert found > 12


def test_equal_embeddings_go_by_context(make_world):
    world = make_world(13, contexts=40, densities=np.zeros(8))
    world.embeddings[:] = world.embeddings[0]
    sample = world.sampled("similar", count=3).filter(pl.col("latent") == int(world.latents[2]))
    for split in range(3):
        ids = world.contexts.filter(pl.col("split") == split)["context"].sort().to_list()
        assert sample.filter(pl.col("split") == split).sort("rank")["context"].to_list() == ids[:3]


def test_without_embeddings_or_direction_there_is_nothing_similar(make_world):
    world = make_world(13)
    sampler = world.sampler("similar")
    sampler.add(world.chunk(embedded=False))
    assert sampler.sample().height == 0
    world.embeddings[:] = np.nan
    assert world.sampled("similar").height == 0
    world.embeddings[:] = world.centre
    assert world.sampled("similar").height == 0


def test_near_misses_go_by_margin_and_firing_contexts_are_left_out(make_world):
    world = make_world(14, contexts=60)
    honest = world.sampled("near_misses", count=4)
    false = world.peaks.select(
        "latent", "split", "context", "position", margin=pl.lit(0.01, dtype=pl.Float32)
    )
    lying = replace(world, near_misses=pl.concat([world.near_misses, false]))
    assert lying.sampled("near_misses", count=4).equals(honest)
    for latent, split, _ in _groups(world):
        rows = world.near_misses.filter((pl.col("latent") == latent) & (pl.col("split") == split))
        expected = rows.sort("margin", "context")["context"].to_list()[:4]
        mine = honest.filter((pl.col("latent") == latent) & (pl.col("split") == split)).sort("rank")
        assert mine["context"].to_list() == expected


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_products_of_many_pairs_are_those_of_each_alone(share):
    """Products that lie at the edges of the sixth decimal are among them."""
    generator = np.random.default_rng(0)
    left = np.r_[generator.normal(size=(40, 16)), np.eye(16)[:10] * (0.5 + 1e-6 * np.arange(10))[:, None]]
    right = np.r_[generator.normal(size=(60, 16)), np.eye(16)[:10] + 1e-6]
    left, right = (rows / np.maximum(np.sqrt((rows**2).sum(axis=1))[:, None], 1) for rows in (left, right))
    row, column = np.nonzero(generator.random((50, 70)) < share)
    alone = np.array([(left[i] * right[j]).sum() for i, j in zip(row, column, strict=True)])
    found = similar._rounded_products(left, right, row, column)
    np.testing.assert_array_equal(found, np.round(alone, 6))
    assert similar._rounded_products(left, right, row[:0], column[:0]).shape == (0,)
