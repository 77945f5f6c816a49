"""Totals of every latent: equal to a loop over firings, whatever the order and merging of chunks."""

from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sampling.latents import totals as module
from autointerp.sampling.latents.tables import LATENTS as TABLE
from autointerp.sampling.latents.totals import CLUSTER_LIMIT, TOTALS_SCHEMA, ContextRows, LatentTotals
from autointerp.sampling.samplers.sampler import SPLITS

LATENTS, CONTEXTS, WIDTH, CLUSTERS = 9, 6, 8, 7
FLOATS = ("mass", "square_sum", "mean", "maximum")


def make_chunks(seed, chunk_count=4, density=0.2):
    """Chunks of firings. Latent 0 never fires; clusters may reach over chunks, each has one split."""
    generator = np.random.default_rng(seed)
    split_of = generator.integers(0, len(SPLITS), CLUSTERS)
    cluster = generator.integers(0, CLUSTERS, (chunk_count, CONTEXTS))
    spread = np.array([(cluster == code).any(axis=1).sum() > 1 for code in range(CLUSTERS)])
    chunks = []
    for index in range(chunk_count):
        fires = generator.random((LATENTS, CONTEXTS, WIDTH)) < density * generator.random((LATENTS, 1, 1)) * 2
        fires[0] = False
        latent, row, position = fires.nonzero()
        value = generator.normal(size=latent.size) * 10.0 ** generator.integers(-3, 4, latent.size)
        codes = cluster[index]
        contexts = ContextRows(
            generator.integers(0, 2**63, CONTEXTS).astype(np.uint64) * np.uint64(2),
            codes,
            split_of[codes].astype(np.uint8),
            spread[codes],
        )
        columns = (latent.astype(np.uint32), row.astype(np.uint32), position.astype(np.uint32))
        chunks.append(((*columns, value.astype(np.float32)), contexts))
    return chunks


def add(totals, chunks, index):
    columns, contexts = chunks[index]
    totals.add(*columns, chunk_index=index, contexts=contexts)


def totalled(chunks, order=None):
    totals = LatentTotals(LATENTS)
    for index in range(len(chunks)) if order is None else order:
        add(totals, chunks, index)
    return totals


def brute_force(chunks):
    rows = []
    for latent in range(LATENTS):
        seen = []
        clusters = {split: set() for split in SPLITS}
        for columns, contexts in chunks:
            for fired, row, position, value in zip(*columns, strict=True):
                if fired == latent:
                    seen.append((int(contexts.context[row]), int(position), float(value)))
                    clusters[SPLITS[contexts.split[row]]].add(int(contexts.cluster[row]))
        values = np.array([value for _, _, value in seen], dtype=np.float64)
        first, last = (seen[0], seen[-1]) if seen else ((None, None),) * 2
        rows.append(
            {
                "latent": latent,
                "tokens_fired": len(seen),
                "mass": float(np.abs(values).sum()),
                "square_sum": float((values**2).sum()),
                "mean": float(values.mean()) if seen else None,
                "maximum": float(np.abs(values).max()) if seen else None,
                "first_context": first[0],
                "first_position": first[1],
                "last_context": last[0],
                "last_position": last[1],
                **{f"{split}_documents": len(found) for split, found in clusters.items()},
            }
        )
    return pl.DataFrame(rows, schema=TOTALS_SCHEMA)


def assert_same(one, other):
    assert one.drop(FLOATS).equals(other.drop(FLOATS))
    mass = one["mass"].to_numpy()
    for name in FLOATS:
        unit = mass if name == "mean" else 0.0  # signs may cancel
        difference = (one[name].fill_null(0) - other[name].fill_null(0)).abs().to_numpy()
        assert (difference <= 1e-12 * (unit + one[name].fill_null(0).abs().to_numpy())).all()
        assert one[name].is_null().equals(other[name].is_null())


@pytest.mark.parametrize("seed", range(5))
def test_totals_equal_a_loop_over_firings(seed):
    chunks = make_chunks(seed)
    frame = totalled(chunks).frame()
    assert dict(frame.schema) == TOTALS_SCHEMA
    assert_same(frame, brute_force(chunks))
    assert frame["tokens_fired"][0] == 0 and frame["tokens_fired"].max() > 20


def test_the_columns_are_those_of_the_table():
    assert {name: TABLE[name] for name in TOTALS_SCHEMA if name != "square_sum"} == {
        name: kind for name, kind in TOTALS_SCHEMA.items() if name != "square_sum"
    }


def test_the_order_of_chunks_does_not_matter():
    chunks = make_chunks(11, chunk_count=3)
    expected = totalled(chunks).frame()
    for order in permutations(range(3)):
        assert_same(totalled(chunks, order).frame(), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.lists(st.integers(0, 2), min_size=5, max_size=5), st.permutations(range(5)))
def test_parts_merge_into_the_whole(seed, part_of, order):
    chunks = make_chunks(seed, chunk_count=5)
    parts = [totalled(chunks, [index for index in order if part_of[index] == part]) for part in range(3)]
    parts[0].merge(parts[1])
    parts[2].merge(parts[0])
    assert_same(parts[2].frame(), totalled(chunks).frame())


def test_a_chunk_may_come_in_blocks_of_latents():
    chunks = make_chunks(3)
    totals = LatentTotals(LATENTS)
    for index, (columns, contexts) in enumerate(chunks):
        for low in (6, 0, 3):
            here = (columns[0] >= low) & (columns[0] < low + 3)
            totals.add(*(column[here] for column in columns), chunk_index=index, contexts=contexts)
    assert_same(totals.frame(), totalled(chunks).frame())


def test_pairs_sorted_again_and_again_are_still_counted_once(monkeypatch):
    chunks = make_chunks(5, chunk_count=12)
    expected = totalled(chunks).frame()
    monkeypatch.setattr(module, "_PENDING_PAIRS", 0)
    assert_same(totalled(chunks).frame(), expected)
    assert expected["explain_documents"].max() <= CLUSTERS


def test_a_cluster_that_reaches_over_chunks_counts_once_and_one_that_does_not_is_forgotten():
    totals = LatentTotals(2)
    for index in range(3):
        contexts = ContextRows(
            np.arange(3, dtype=np.uint64),
            np.array([CLUSTER_LIMIT - 1, 100 + index, 100 + index]),
            np.array([2, 0, 0], np.uint8),
            np.array([True, False, False]),
        )
        one = np.ones(3, np.uint32)
        row = np.arange(3, dtype=np.uint32)
        totals.add(one, row, row, np.ones(3, np.float32), chunk_index=index, contexts=contexts)
    row = totals.frame().row(1, named=True)
    assert (row["explain_documents"], row["validate_documents"], row["score_documents"]) == (3, 0, 1)


def test_sums_are_kept_in_double_precision():
    totals = LatentTotals(1)
    contexts = ContextRows(*(np.zeros(1, kind) for kind in (np.uint64, np.int64, np.uint8, bool)))
    value = np.array([1e8, *[1.0] * 1000], np.float32)
    zeros = np.zeros(value.size, np.uint32)
    position = np.arange(value.size, dtype=np.uint32)
    totals.add(zeros, zeros, position, value, chunk_index=0, contexts=contexts)
    assert totals.frame()["mass"].item() == 1e8 + 1000


def test_nothing_in_gives_a_row_per_latent():
    totals = LatentTotals(3)
    contexts = ContextRows(*(np.zeros(0, kind) for kind in (np.uint64, np.int64, np.uint8, bool)))
    none = np.zeros(0, np.uint32)
    totals.add(none, none, none, np.zeros(0, np.float32), chunk_index=0, contexts=contexts)
    totals.merge(LatentTotals(3))
    frame = totals.frame()
    assert frame["tokens_fired"].to_list() == [0, 0, 0]
    assert frame["mean"].null_count() == frame["first_context"].null_count() == 3
    assert LatentTotals(0).frame().equals(pl.DataFrame(schema=TOTALS_SCHEMA))


def test_what_cannot_be_right_is_refused():
    chunks = make_chunks(0)
    (latent, *rest), contexts = chunks[0]
    with pytest.raises(ValueError, match="sorted by latent"):
        LatentTotals(LATENTS).add(latent[::-1].copy(), *rest, chunk_index=0, contexts=contexts)
    with pytest.raises(ValueError, match="do not add"):
        LatentTotals(3).merge(LatentTotals(4))
    one = np.zeros(1, np.uint64)
    for code, split in ((CLUSTER_LIMIT, 0), (-1, 0), (0, len(SPLITS))):
        with pytest.raises(ValueError, match="must lie in"):
            ContextRows(one, np.array([code]), np.array([split], np.uint8), np.array([False]))
