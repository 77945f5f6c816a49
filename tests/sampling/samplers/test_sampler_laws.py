import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sampling.samplers import fan_out, reservoir, same_token, silent_blocks
from autointerp.sampling.samplers.catalogue import SAMPLER_NAMES
from autointerp.sampling.samplers.sampler import SAMPLE_SCHEMA, Sampler

NAMES = tuple(SAMPLER_NAMES)
SILENT = tuple(name for name, entry in SAMPLER_NAMES.items() if entry.is_silent)
PROBABILITY = ("uniform", "quantiles", "silent")
GROUP = ["latent", "split", "stratum"]


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_says_what_the_sampler_says(make_world, name):
    sampler = make_world().sampler(name)
    assert isinstance(sampler, Sampler)
    assert (sampler.name, sampler.is_silent) == (name, SAMPLER_NAMES[name].is_silent)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), data=st.data())
@settings(max_examples=12, deadline=None)
def test_chunks_their_order_and_merging_make_no_difference(make_world, name, seed, count, data):
    world = make_world(seed)
    parts = data.draw(
        st.lists(st.integers(0, 4), min_size=world.contexts.height, max_size=world.contexts.height)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(same_token, "_POOL", data.draw(st.sampled_from([1, 2, 16])))
        whole = world.sampled(name, seed=seed, count=count)
        samplers = [world.sampler(name, seed=seed, count=count) for _ in range(3)]
        patch.setattr(reservoir, "_LEAST_BUFFER", data.draw(st.sampled_from([0, 2**16])))
        patch.setattr(silent_blocks, "_BLOCK", data.draw(st.sampled_from([1, 40, 2**22])))
        patch.setattr(fan_out, "_PAIRS", data.draw(st.sampled_from([1, 7, 2**20])))
        patch.setattr(fan_out, "_CELLS", data.draw(st.sampled_from([1, 20, 2**22])))
        for chunk in data.draw(st.permutations(world.chunks(parts))):
            samplers[data.draw(st.integers(0, 2))].add(chunk)
        samplers[2].merge(samplers[0])
        samplers[2].merge(samplers[1])
        assert samplers[2].sample().equals(whole)
    assert whole.equals(whole.sort(*SAMPLE_SCHEMA))


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_keeps_to_its_schema_and_counts(make_world, name):
    world = make_world(3, contexts=60)
    sample = world.sampled(name, count=4)
    assert dict(sample.schema) == SAMPLE_SCHEMA
    assert sample.height > 10
    groups = sample.group_by(GROUP).agg(pl.len(), pl.col("rank").sort(), pl.col("population").unique())
    for _, _, _, size, ranks, populations in groups.rows():
        assert size <= 4 and ranks == list(range(size)) and len(populations) == 1
        assert size == min(4, populations[0]) or name in (
            "neighbours",
            "same_token",
            "similar",
            "near_misses",
        )
        assert size <= populations[0]
    assert sample.select("latent").unique()["latent"].is_in(world.latents.tolist()).all()
    splits = dict(world.contexts.select("context", "split").rows())
    assert all(splits[context] == split for context, split in sample.select("context", "split").rows())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_gives_no_rows_out(make_world, name):
    world = make_world()
    sampler = world.sampler(name)
    assert sampler.sample().height == 0
    sampler.add(world.chunk([]))
    sampler.merge(world.sampler(name))
    sample = sampler.sample()
    assert sample.height == 0 and dict(sample.schema) == SAMPLE_SCHEMA
    sampler.add(world.chunk())
    assert sampler.sample().equals(world.sampled(name))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "similar"])
def test_no_latents_give_no_rows(make_world, name):
    world = make_world()
    assert world.sampled(name, latents=np.zeros(0, dtype=np.uint32)).height == 0


@pytest.mark.parametrize("name", NAMES)
def test_latents_that_never_fire_have_silent_text_only(make_world, name):
    world = make_world(densities=np.zeros(8))
    assert (world.sampled(name).height > 0) == (name in ("silent", "same_token", "similar", "near_misses"))


@pytest.mark.parametrize("name", SILENT)
def test_a_latent_that_fires_in_every_context_has_no_silent_text(make_world, name):
    world = make_world(densities=np.array([1.0, 0.1] * 4))
    always = world.latents[::2]
    assert not world.sampled(name)["latent"].is_in(always.tolist()).any()


@pytest.mark.parametrize("name", SILENT)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_silent_text_is_silent_and_its_focus_is_scored(make_world, name, seed):
    world = make_world(seed)
    fires = world.fires()
    places = {row[0]: (row[3], len(row[2])) for row in world.contexts.rows()}
    sample = world.sampled(name, seed=seed, count=5)
    for latent, context, position in sample.select("latent", "context", "position").rows():
        assert (latent, context) not in fires
        assert places[context][0] <= position < places[context][1]
    assert sample["value"].null_count() == sample.height
    assert not sample.select("latent", "context").is_duplicated().any()


@pytest.mark.parametrize("name", ["top", "uniform", "quantiles", "importance"])
def test_active_rows_are_firings(make_world, name):
    world = make_world(5)
    columns = ["latent", "split", "context", "position", "value"]
    source = world.firings if name == "uniform" else world.peaks
    sample = world.sampled(name)
    assert sample.join(source, on=columns, how="semi").height == sample.height > 0


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_for_probability_samples_and_sum_to_the_population(make_world, name):
    sample = make_world(7, contexts=60).sampled(name)
    if name not in (*PROBABILITY, "importance"):
        assert sample["weight"].null_count() == sample.height
        return
    assert sample["weight"].null_count() == 0 and sample["weight"].min() >= 1
    if name in PROBABILITY:
        sums = sample.group_by(GROUP).agg(pl.col("weight").sum(), pl.col("population").first())
        assert np.allclose(sums["weight"], sums["population"], rtol=1e-12)
        assert (sample["weight"] > 1).any()


@pytest.mark.parametrize("name", ["uniform", "quantiles", "importance", "silent", "same_token", "neighbours"])
def test_another_seed_draws_other_rows(make_world, name):
    world = make_world(2, contexts=60)
    assert not world.sampled(name, seed=1).equals(world.sampled(name, seed=2))
    assert world.sampled(name, seed=1).equals(world.sampled(name, seed=1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_same_chunk", [True, False])
def test_a_document_that_is_there_twice_is_drawn_once(make_world, name, is_same_chunk):
    world = make_world(11)
    once = world.sampled(name)
    sampler = world.sampler(name)
    if is_same_chunk:
        sampler.add(world.chunk(np.repeat(np.arange(world.contexts.height), 2)))
    else:
        sampler.add(world.chunk())
        sampler.add(world.chunk())
    columns = ["latent", "split", "stratum", "context", "position", "value", "rank"]
    assert sampler.sample().select(columns).equals(once.select(columns))
