"""A small random corpus, dealt into chunks as a test likes, and every sampler over it."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from autointerp.sampling.samplers.importance import ImportanceSampler
from autointerp.sampling.samplers.near_misses import NearMissSampler
from autointerp.sampling.samplers.neighbours import NeighbourSampler
from autointerp.sampling.samplers.quantiles import QuantileSampler
from autointerp.sampling.samplers.same_token import SameTokenSampler
from autointerp.sampling.samplers.sampler import NEAR_MISS_ROWS, ROW_SCHEMA, ChunkView
from autointerp.sampling.samplers.silent import SilentSampler
from autointerp.sampling.samplers.similar import SimilarSampler
from autointerp.sampling.samplers.top import TopSampler
from autointerp.sampling.samplers.uniform import UniformSampler

WIDTH = 4


@dataclass
class World:
    """All rows of a corpus; `chunk` cuts some contexts out."""

    latents: np.ndarray  # chosen
    watched: np.ndarray
    contexts: pl.DataFrame  # in the order of the corpus
    firings: pl.DataFrame  # of watched latents
    peaks: pl.DataFrame
    embeddings: np.ndarray
    near_misses: pl.DataFrame
    edges: pl.DataFrame
    tokens: pl.DataFrame
    neighbours: pl.DataFrame
    queries: np.ndarray
    centre: np.ndarray

    def chunk(self, rows=None, embedded=True):
        rows = np.arange(self.contexts.height) if rows is None else np.array(sorted(rows), dtype=np.int64)
        contexts = self.contexts[rows].with_columns(row=pl.Series(rows, dtype=pl.Int64)).sort("context")
        ids = contexts.select("context").unique()
        firings, peaks, misses = (
            frame.join(ids, on="context", how="semi").sort("latent", "context", "position")
            for frame in (self.firings, self.peaks, self.near_misses)
        )
        return ChunkView(
            contexts=contexts.drop("row"),
            firings=firings.filter(pl.col("latent").is_in(self.latents.tolist())),
            peaks=peaks,
            embeddings=self.embeddings[contexts["row"].to_numpy()] if embedded else None,
            near_misses=misses,
        )

    def chunks(self, part_of_context):
        """Chunks by the part that each context is given; contexts of one part lie together."""
        parts = np.asarray(part_of_context)
        return [self.chunk(np.flatnonzero(parts == part)) for part in np.unique(parts)]

    def fires(self):
        return set(self.peaks.select("latent", "context").rows())

    def sampler(self, name, *, seed=0, count=3, latents=None):
        options = {"latents": self.latents if latents is None else latents, "count": count, "seed": seed}
        makers = {
            "top": TopSampler,
            "uniform": UniformSampler,
            "quantiles": lambda **given: QuantileSampler(**given, edges=self.edges),
            "importance": ImportanceSampler,
            "silent": SilentSampler,
            "same_token": lambda **given: SameTokenSampler(**given, tokens=self.tokens),
            "neighbours": lambda **given: NeighbourSampler(**given, neighbours=self.neighbours),
            "similar": lambda **given: SimilarSampler(**given, queries=self.queries, centre=self.centre),
            "near_misses": NearMissSampler,
        }
        return makers[name](**options)

    def sampled(self, name, *, chunk=None, **options):
        sampler = self.sampler(name, **options)
        sampler.add(self.chunk() if chunk is None else chunk)
        return sampler.sample()


def _contexts(random, count, split_count):
    first_scored = int(random.integers(0, 2))
    ids = np.unique(random.integers(0, 2**63, size=count, dtype=np.uint64) * np.uint64(2) + np.uint64(1))
    random.shuffle(ids)
    tokens = [random.integers(0, 4, size=first_scored + int(random.integers(1, 7))) for _ in ids]
    return pl.DataFrame(
        {
            "context": ids,
            "split": random.integers(0, split_count, size=len(ids)),
            "tokens": [row.tolist() for row in tokens],
            "first_scored": [first_scored] * len(ids),
        },
        schema={
            "context": pl.UInt64,
            "split": pl.UInt8,
            "tokens": pl.List(pl.Int32),
            "first_scored": pl.UInt32,
        },
    )


def _firings(random, contexts, watched, densities):
    rows = []
    for context, split, tokens, first_scored in contexts.rows():
        for position in range(first_scored, len(tokens)):
            for latent, density in zip(watched.tolist(), densities, strict=True):
                if random.random() < density:
                    sign = -1 if latent % 3 == 0 else 1
                    value = sign * float(random.choice([0.25, 0.5, 0.5, 1.0, 1.7, 3.0]))
                    rows.append((latent, split, context, position, value))
    return pl.DataFrame(rows, schema=ROW_SCHEMA, orient="row").sort("latent", "context", "position")


def _peaks(firings):
    return (
        firings.with_columns(size=pl.col("value").abs())
        .sort("latent", "context", "size", "position", descending=[False, False, True, False])
        .unique(["latent", "context"], keep="first", maintain_order=True)
        .drop("size")
    )


def _near_misses(random, contexts, watched, fires):
    rows = [
        (latent, split, context, first_scored, float(random.choice([0.1, 0.2, 0.3, 0.4])))
        for context, split, _, first_scored in contexts.rows()
        for latent in watched.tolist()
        if (latent, context) not in fires and random.random() < 0.5
    ]
    return pl.DataFrame(rows, schema=NEAR_MISS_ROWS, orient="row")


def make_world(seed=0, *, contexts=30, latents=6, split_count=3, densities=None):
    random = np.random.default_rng(seed)
    watched = np.arange(1, latents + 3, dtype=np.uint32) * 2
    chosen = watched[:latents]
    if densities is None:
        densities = random.choice([0.0, 0.02, 0.1, 0.3, 0.9], size=len(watched))
    table = _contexts(random, contexts, split_count)
    firings = _firings(random, table, watched, densities)
    peaks = _peaks(firings)
    strata = [(0, 0.3, 0.6), (1, 0.6, 1.7), (2, 1.7, 2.0)]
    pairs = sorted({(int(a), int(b)) for a, b in random.choice(watched, size=(3 * latents, 2)) if a != b})
    queries = random.normal(size=(latents, 3, WIDTH)).astype(np.float32)
    queries[0, 0], queries[-1, 1] = 0, np.nan
    return World(
        latents=chosen,
        watched=watched,
        contexts=table,
        firings=firings,
        peaks=peaks,
        embeddings=random.integers(-2, 3, size=(table.height, WIDTH)).astype(np.float32),
        near_misses=_near_misses(random, table, chosen, set(peaks.select("latent", "context").rows())),
        edges=pl.DataFrame(
            [(latent, *stratum) for latent in chosen.tolist() for stratum in strata],
            schema={"latent": pl.UInt32, "stratum": pl.Int16, "lower": pl.Float64, "upper": pl.Float64},
            orient="row",
        ),
        tokens=pl.DataFrame(
            {"latent": np.repeat(chosen, 2), "token": [index % 4 for index in range(2 * latents)]},
            schema={"latent": pl.UInt32, "token": pl.Int32},
        ),
        neighbours=pl.DataFrame(pairs, schema={"latent": pl.UInt32, "other": pl.UInt32}, orient="row"),
        queries=queries,
        centre=random.normal(size=WIDTH).astype(np.float32),
    )


@pytest.fixture(scope="session", name="make_world")
def make_world_fixture():
    return make_world
