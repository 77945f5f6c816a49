"""Bounded counts: exact while nothing is dropped, and within the bound that they state ever after."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sampling.latents import bounded_counts as module
from autointerp.sampling.latents.bounded_counts import BoundedCounts

GROUPS = {"latent": pl.UInt32, "place": pl.UInt8}
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 7), st.integers(1, 5)), max_size=12)
# A tree of merges: leaves are chunks, handed over one after another to one summary.
TREES = st.recursive(st.lists(PAIRS, max_size=3), lambda inner: st.tuples(inner, inner), max_leaves=5)


def frame_of(pairs):
    latent, item, count = (list(column) for column in zip(*pairs, strict=True)) if pairs else ([], [], [])
    columns = {"latent": latent, "place": [number % 2 for number in latent], "item": item, "count": count}
    return pl.DataFrame(columns, schema=GROUPS | {"item": pl.Int32, "count": pl.UInt32})


def grow(tree, *, keep, cap):
    """The summary of a tree, and the exact counts."""
    if isinstance(tree, tuple):
        summary, exact = grow(tree[0], keep=keep, cap=cap)
        other, more = grow(tree[1], keep=keep, cap=cap)
        summary.merge(other)
        return summary, exact + more
    summary, exact = BoundedCounts(GROUPS, keep=keep, cap=cap), Counter()
    for number, pairs in enumerate(tree):
        summary.add(frame_of(pairs))
        for latent, item, count in pairs:
            exact[latent, item] += count
        if number % 2:
            summary.counts()  # what waits is added up, and what is too much dropped
    return summary, exact


def assert_bounds_hold(summary, exact, cap):
    frame, dropped = summary.counts(), summary.dropped()
    bound = {latent: number for latent, _, number in dropped.iter_rows()}
    kept = set()
    for latent, place, item, count, undercount in frame.iter_rows():
        assert place == latent % 2
        assert 1 <= count <= exact[latent, item] <= count + undercount
        assert 0 <= undercount <= bound.get(latent, 0)
        kept.add((latent, item))
    for (latent, item), count in exact.items():
        if (latent, item) not in kept:
            assert count <= bound[latent]
    assert max(Counter(latent for latent, _ in kept).values(), default=0) <= cap


@settings(max_examples=100, deadline=None)
@given(TREES, st.integers(1, 3), st.integers(0, 2))
def test_true_counts_lie_within_the_bounds_after_any_tree_of_merges(tree, keep, slack):
    summary, exact = grow(tree, keep=keep, cap=keep + slack)
    assert_bounds_hold(summary, exact, keep + slack)


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_without_a_drop_counts_are_exact(tree):
    summary, exact = grow(tree, keep=9, cap=9)
    assert summary.dropped().is_empty()
    rows = sorted((latent, -count, item) for (latent, item), count in exact.items())
    expected = [(latent, latent % 2, item, -count, 0) for latent, count, item in rows]
    assert summary.counts().rows() == expected


def test_the_bound_is_met_where_chunks_are_added_up_on_the_way(monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", 3)
    generator = np.random.default_rng(0)
    summary, exact = BoundedCounts(GROUPS, keep=4, cap=8), Counter()
    for _ in range(200):
        pairs = [
            (int(g), int(i), 1)
            for g, i in zip(generator.integers(0, 3, 5), generator.zipf(1.5, 5) % 60, strict=True)
        ]
        summary.add(frame_of(pairs))
        for latent, item, count in pairs:
            exact[latent, item] += count
    assert summary.dropped().height == 3
    assert_bounds_hold(summary, exact, 8)


def test_common_items_stay_exact_while_rare_ones_are_dropped():
    """100 items that occur 100 times each come with a stream of 20 000 that occur once."""
    summary = BoundedCounts({"latent": pl.UInt32}, keep=200, cap=400)
    for start in range(0, 20_000, 200):
        items = [*range(100), *range(1000 + start, 1200 + start)]
        summary.add(pl.DataFrame({"latent": 0, "item": items, "count": 1}))
        summary.counts()
    top = summary.top(100)
    assert top["item"].to_list() == list(range(100))
    assert set(top["count"]) == {100} and set(top["undercount"]) == {0}
    assert top["rank"].to_list() == list(range(100))
    assert summary.dropped()["bound"].item() <= 100


def test_a_dropped_item_that_returns_says_what_may_be_missing():
    summary = BoundedCounts({"latent": pl.UInt32}, keep=1, cap=1)
    for item, count in ((1, 5), (2, 3), (2, 4), (2, 2)):
        summary.add(pl.DataFrame({"latent": [0], "item": [item], "count": [count]}))
        summary.counts()
    # 2 is dropped at 3; at 4, when 3 may be missing; at 2, when 7 may be: so nothing dropped exceeds 9.
    assert summary.counts().rows() == [(0, 1, 5, 0)]
    assert summary.dropped().rows() == [(0, 9)]
    summary.add(pl.DataFrame({"latent": [0], "item": [2], "count": [6]}))
    assert summary.counts().rows() == [(0, 2, 6, 9)]


def test_ranks_are_of_each_group_with_ties_by_item():
    summary = BoundedCounts(GROUPS, keep=9, cap=9)
    summary.add(frame_of([(1, 5, 2), (1, 3, 2), (1, 9, 4), (0, 7, 1), (1, 2, 1), (1, 9, 1)]))
    assert summary.top(3).rows() == [
        (0, 0, 7, 1, 0, 0),
        (1, 1, 9, 5, 0, 0),
        (1, 1, 3, 2, 0, 1),
        (1, 1, 5, 2, 0, 2),
    ]


def test_nothing_in_gives_no_rows_out():
    summary = BoundedCounts(GROUPS, keep=1, cap=1)
    summary.merge(BoundedCounts(GROUPS, keep=1, cap=1))
    summary.add(frame_of([]))
    assert summary.top(3).is_empty() and summary.dropped().is_empty()
    assert summary.top(3).columns == ["latent", "place", "item", "count", "undercount", "rank"]


@pytest.mark.parametrize(("groups", "keep", "cap"), [({}, 1, 1), (GROUPS, 0, 1), (GROUPS, 2, 1)])
def test_what_cannot_be_counted_is_refused(groups, keep, cap):
    with pytest.raises(ValueError, match="needs a group column"):
        BoundedCounts(groups, keep=keep, cap=cap)


def test_counts_by_other_groups_do_not_add_up():
    with pytest.raises(ValueError, match="do not add"):
        BoundedCounts(GROUPS, keep=1, cap=1).merge(BoundedCounts({"latent": pl.UInt32}, keep=1, cap=1))


def test_numbers_too_large_to_be_packed_count_as_small_ones_do():
    """The same rows with all items, groups and counts scaled up: too many bits for one number."""
    generator = np.random.default_rng(1)
    small, large = (BoundedCounts({"latent": pl.UInt32}, keep=3, cap=6) for _ in range(2))
    for _ in range(5):
        latent, item, count = (
            generator.integers(0, 4, 60),
            generator.integers(-9, 9, 60),
            generator.zipf(2, 60),
        )
        small.add(pl.DataFrame({"latent": latent, "item": item, "count": count}))
        wide = {"latent": latent * 2**29, "item": item * 2**58, "count": count * 2**40}
        large.add(pl.DataFrame(wide))
        assert small.counts().height == large.counts().height
    scaled = small.top(4).with_columns(
        latent=(pl.col("latent").cast(pl.Int64) * 2**29).cast(pl.UInt32),
        item=pl.col("item") * 2**58,
        count=pl.col("count") * 2**40,
        undercount=pl.col("undercount") * 2**40,
    )
    assert large.top(4).equals(scaled)
    assert large.dropped()["bound"].equals(small.dropped()["bound"] * 2**40)
    assert small.dropped().height


@pytest.mark.parametrize("large", [31, 2**40, 2**62])
def test_the_first_of_each_group_are_those_of_a_sort(large):
    """Edges among small counts, at the largest small one, above it, and counts too large to be packed."""
    generator = np.random.default_rng(large % 97)
    for _ in range(60):
        sizes = generator.integers(1, 20, generator.integers(1, 12))
        starts, count = np.cumsum(sizes) - sizes, generator.choice([1, 2, 6, 7, 8, 9, large], sizes.sum())
        limits = generator.integers(1, sizes + 1)
        expected = np.zeros(len(count), bool)
        for start, size, limit in zip(starts, sizes, limits, strict=True):
            ranked = sorted(range(start, start + size), key=lambda row: (-count[row], row))
            expected[ranked[:limit]] = True
        assert (module._are_leading(count, starts, limits) == expected).all()


def test_groups_that_do_not_fit_into_a_number_are_refused():
    with pytest.raises(ValueError, match="unsigned"):
        BoundedCounts({"name": pl.String}, keep=1, cap=1)


def test_distinct_pairs_need_no_adding_up_before_they_wait():
    pairs = [(1, 5, 2), (1, 3, 2), (0, 7, 1)]
    one, other = BoundedCounts(GROUPS, keep=9, cap=9), BoundedCounts(GROUPS, keep=9, cap=9)
    for _ in range(2):
        one.add(frame_of(pairs), is_distinct=True)
        other.add(frame_of(pairs))
    assert one.counts().equals(other.counts())
    columns = ("latent", "place", "item")
    assert one.counts(is_sorted=False).sort(columns).equals(other.counts().sort(columns))
