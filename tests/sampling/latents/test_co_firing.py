"""Which latents fire together: counts and ranks equal to a dense matrix and to scikit-learn."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import matthews_corrcoef

from autointerp.sampling.latents import co_firing as module
from autointerp.sampling.latents.co_firing import CO_FIRING_SCHEMA, CoFiring

LATENTS, TOKENS = 14, 240
CHOSEN = np.array([12, 2, 5, 0], np.uint32)


def make(seed):
    """Latent 0 never fires, 1 on all tokens, 2 on nearly all; 5, 6 and 7 are tied, the rest are not."""
    generator = np.random.default_rng(seed)
    fires = generator.random((LATENTS, TOKENS)) < generator.uniform(0.02, 0.4, (LATENTS, 1))
    fires[0], fires[1] = False, True
    fires[2] = generator.random(TOKENS) < 0.9
    fires[6] = fires[5] & (generator.random(TOKENS) < 0.8)
    fires[7] = fires[5] | (generator.random(TOKENS) < 0.1)
    return fires


def firings(fires, offset=0):
    latent, token = fires.nonzero()
    return latent.astype(np.uint32), token + offset


def counted(fires, *, parts=1, chosen=CHOSEN, **options):
    counts = CoFiring(chosen, LATENTS, **options)
    for block in np.array_split(fires, parts, axis=1):
        counts.add(*firings(block))
    return counts


def dense_frame(fires, chosen, rank_count):
    rows = []
    for latent in sorted(set(chosen.tolist())):
        found = []
        for other in range(LATENTS):
            both = int((fires[latent] & fires[other]).sum())
            if other == latent or not both:
                continue
            phi = matthews_corrcoef(fires[latent], fires[other])
            value = both / fires[latent].sum()
            found.append((round(-phi, 9), -value, other, value / fires[other].mean()))
        ranked = [row for row in sorted(found) if row[0] < 0][:rank_count]
        rows += [(latent, rank, row[2], -row[1], row[3], 0) for rank, row in enumerate(ranked)]
    return pl.DataFrame(rows, schema=CO_FIRING_SCHEMA, orient="row")


def assert_same(one, other):
    exact = ("latent", "rank", "other", "undercount")
    assert one.select(exact).equals(other.select(exact))
    for name in ("value", "lift"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)


def fired(fires):
    return fires.sum(axis=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rank_count", [2, 20])
def test_ranks_and_shares_equal_those_of_dense_matrices(seed, rank_count):
    fires = make(seed)
    frame = counted(fires).frame(fired(fires), TOKENS, rank_count)
    assert dict(frame.schema) == CO_FIRING_SCHEMA
    assert_same(frame, dense_frame(fires, CHOSEN, rank_count))
    assert set(frame["latent"]) == {2, 5, 12}


def test_all_counts_equal_a_product_of_dense_matrices():
    fires = make(7)
    every = np.arange(LATENTS, dtype=np.uint32)
    frame = counted(fires, chosen=every)._counts.counts()
    found = np.zeros((LATENTS, LATENTS), int)
    found[frame["latent"], frame["item"]] = frame["count"]
    product = fires.astype(int) @ fires.T.astype(int)
    np.testing.assert_array_equal(found, product - np.diag(np.diag(product)))
    assert frame["undercount"].max() == 0


@pytest.mark.parametrize("limit", [1, 5, 30])
def test_how_the_work_is_cut_up_does_not_matter(monkeypatch, limit):
    fires = make(1)
    whole = counted(fires).frame(fired(fires), TOKENS)
    monkeypatch.setattr(module, "_WORK_LIMIT", limit)
    assert counted(fires).frame(fired(fires), TOKENS).equals(whole)
    assert counted(fires, parts=7).frame(fired(fires), TOKENS).equals(whole)


def test_blocks_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "_WORK_LIMIT", 10)
    work = np.array([3, 3, 3, 9, 0, 25, 1, 1])
    blocks = module._blocks(work)
    assert np.concatenate([np.arange(8)[block] for block in blocks]).tolist() == list(range(8))
    assert all(work[block][1:].sum() <= 10 for block in blocks)
    assert len(blocks) > 2


def test_parts_merge_into_the_whole_in_any_order():
    fires = make(2)
    blocks = np.array_split(fires, 4, axis=1)
    left, right = CoFiring(CHOSEN, LATENTS), CoFiring(CHOSEN[::-1].copy(), LATENTS)
    for index, counts in ((3, left), (0, right), (2, right), (1, left)):
        counts.add(*firings(blocks[index]))
    right.merge(left)
    assert right.frame(fired(fires), TOKENS).equals(counted(fires).frame(fired(fires), TOKENS))


@pytest.mark.parametrize("kind", [np.uint32, np.int64, np.uint64])
def test_numbers_of_tokens_may_have_gaps_and_any_type(kind):
    fires = make(3)
    latent, token = firings(fires)
    counts = CoFiring(CHOSEN, LATENTS)
    scattered = np.random.default_rng(0).permutation(TOKENS * 5)[:TOKENS]
    counts.add(latent, scattered[token].astype(kind))
    assert counts.frame(fired(fires), TOKENS).equals(counted(fires).frame(fired(fires), TOKENS))


def test_a_latent_that_fires_everywhere_is_nobodys_neighbour():
    fires = make(4)
    every = np.arange(LATENTS, dtype=np.uint32)
    frame = counted(fires, chosen=every).frame(fired(fires), TOKENS, LATENTS)
    assert 1 not in frame["latent"].to_list() and 1 not in frame["other"].to_list()
    assert (frame["lift"] > 1).all()
    tied = frame.filter(latent=5, rank=0).row(0, named=True)
    assert tied["other"] in (6, 7)


def test_dropped_others_cannot_rank_above_the_bound_that_is_stated():
    fires = make(5)
    bounded = CoFiring(CHOSEN, LATENTS, keep=3, cap=4)
    for block in np.array_split(fires, 8, axis=1):
        bounded.add(*firings(block))
        bounded.frame(fired(fires), TOKENS)
    bound = dict(bounded._counts.dropped().iter_rows())
    kept = set(bounded._counts.counts().select("latent", "item").iter_rows())
    assert bound
    missing = [
        (a, b) for a in bound for b in range(LATENTS) if b != a and fires[b].any() and (a, b) not in kept
    ]
    assert missing
    for latent, other in missing:
        phi = matthews_corrcoef(fires[latent], fires[other])
        assert phi <= np.sqrt(bound[latent] / fires[latent].sum()) + 1e-12


def test_nothing_in_gives_no_rows_out():
    empty = pl.DataFrame(schema=CO_FIRING_SCHEMA)
    fires = make(6)
    silent, alone = np.zeros_like(fires), fires.copy()
    alone[CHOSEN] = False  # others fire, the chosen ones do not
    none = counted(fires, chosen=np.zeros(0, np.uint32))
    for counts in (counted(silent), counted(alone), CoFiring(CHOSEN, LATENTS), none):
        assert counts.frame(fired(fires), TOKENS).equals(empty)


def test_what_cannot_be_right_is_refused():
    latent, token = firings(make(0))
    with pytest.raises(ValueError, match="sorted by latent"):
        CoFiring(CHOSEN, LATENTS).add(latent[::-1].copy(), token)
    for other in (CoFiring(CHOSEN[1:], LATENTS), CoFiring(CHOSEN, LATENTS + 1)):
        with pytest.raises(ValueError, match="do not add up"):
            CoFiring(CHOSEN, LATENTS).merge(other)


def test_only_others_that_can_be_listed_are_ranked_and_ties_stay():
    latent = np.repeat(np.array([2, 9], np.uint32), 6)
    phi = np.array([0.5, 0.25, 0.25, -0.5, 0.75, 0.0, 1.0, 1.0 + 1e-12, 0.1, 0.2, -1.0, -1.0])
    near = module._largest_by_latent(latent, phi, 3)
    assert near.tolist() == [0, 1, 2, 4, 6, 7, 9]
    assert module._largest_by_latent(latent, phi, 1).tolist() == [4, 6, 7]  # equal in float32
    assert module._largest_by_latent(latent, -np.ones(12), 3).tolist() == []
    assert module._largest_by_latent(latent[:0], phi[:0], 3).tolist() == []
