"""Tokens at, before and after peaks: equal to a loop over peaks."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from autointerp.sampling.latents.tables import TOKENS
from autointerp.sampling.latents.token_counts import PLACES, TOKEN_SCHEMA, TokenCounts
from autointerp.sampling.samplers.sampler import ROW_SCHEMA

CONTEXT_SCHEMA = {"context": pl.UInt64, "tokens": pl.List(pl.Int32), "first_scored": pl.UInt32}
LATENTS = np.array([1, 3, 8], np.uint32)


def make(seed, *, latents=10, contexts=30, vocabulary=6, first_context=0):
    """Contexts of 0 to 7 tokens, some behind a BOS token, and peaks anywhere in them."""
    generator = np.random.default_rng(seed)
    rows, peaks = [], []
    for number in range(first_context, first_context + contexts):
        length, first = int(generator.integers(0, 8)), int(generator.integers(0, 2))
        tokens = generator.integers(0, vocabulary, length).tolist()
        rows.append((number * 10**15, tokens, first))
        fired = np.flatnonzero(generator.random(latents) < 0.6) if length > first else []
        peaks += [(int(z), 0, number * 10**15, int(generator.integers(first, length)), 1.0) for z in fired]
    frame = pl.DataFrame(peaks, schema=ROW_SCHEMA, orient="row")
    return frame, pl.DataFrame(rows, schema=CONTEXT_SCHEMA, orient="row")


def test_what_is_no_text_is_not_counted():
    contexts = pl.DataFrame(
        {"context": [5], "tokens": [[0, 7, 1, 8, 1, 9]], "first_scored": [1], "unscored": [[2, 4]]},
        schema={**CONTEXT_SCHEMA, "unscored": pl.List(pl.UInt32)},
    )
    counts = TokenCounts(LATENTS)
    counts.add(pl.DataFrame([(1, 0, 5, 3, 1.0)], schema=ROW_SCHEMA, orient="row"), contexts)
    assert counts.frame().select("place", "token").rows() == [("at", 8)]


def brute_force(peaks, contexts, rank_count):
    texts = {context: (tokens, first) for context, tokens, first in contexts.iter_rows()}
    counts = {(int(latent), place): Counter() for latent in LATENTS for place in PLACES}
    totals = Counter()
    for latent, _, context, position, _ in peaks.iter_rows():
        if latent not in LATENTS:
            continue
        tokens, first = texts[context]
        totals[latent] += 1
        counts[latent, "at"][tokens[position]] += 1
        if position - 1 >= first:
            counts[latent, "before"][tokens[position - 1]] += 1
        if position + 1 < len(tokens):
            counts[latent, "after"][tokens[position + 1]] += 1
    rows = []
    for (latent, place), found in counts.items():
        ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:rank_count]
        for rank, (token, count) in enumerate(ranked):
            rows.append((latent, place, rank, token, count, count / totals[latent], 0))
    return pl.DataFrame(rows, schema=TOKEN_SCHEMA, orient="row")


def counted(*parts, **options):
    counts = TokenCounts(LATENTS, **options)
    for peaks, contexts in parts:
        counts.add(peaks, contexts)
    return counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rank_count", [3, 10])
def test_counts_equal_a_loop_over_peaks(seed, rank_count):
    peaks, contexts = make(seed)
    frame = counted((peaks, contexts)).frame(rank_count)
    assert frame.equals(brute_force(peaks, contexts, rank_count))
    assert set(frame["place"]) == set(PLACES)


def test_the_columns_are_those_of_the_table():
    frame = counted(make(0)).frame()
    assert {"checkpoint": pl.String} | dict(frame.schema) == TOKENS


def test_order_of_rows_chunks_and_merging_do_not_matter():
    parts = [make(seed, first_context=100 * seed) for seed in range(4)]
    whole = counted(tuple(pl.concat(frames) for frames in zip(*parts, strict=True))).frame()
    mixed = [tuple(f.sample(fraction=1.0, shuffle=True, seed=1) for f in part) for part in parts]
    left, right = counted(mixed[3], mixed[0]), counted(mixed[2], mixed[1])
    left.merge(right)
    assert left.frame().equals(whole)


def test_neither_bos_nor_what_lies_beyond_the_end_is_counted():
    contexts = pl.DataFrame([(7, [50, 11, 12], 1), (9, [13], 0)], schema=CONTEXT_SCHEMA, orient="row")
    rows = [(1, 0, 7, 1, 2.0), (1, 0, 9, 0, 2.0), (3, 1, 7, 2, -1.0)]
    peaks = pl.DataFrame(rows, schema=ROW_SCHEMA, orient="row")
    assert counted((peaks, contexts)).frame().rows() == [
        (1, "at", 0, 11, 1, 0.5, 0),
        (1, "at", 1, 13, 1, 0.5, 0),
        (1, "after", 0, 12, 1, 0.5, 0),
        (3, "before", 0, 11, 1, 1.0, 0),
        (3, "at", 0, 12, 1, 1.0, 0),
    ]


def test_with_a_small_cap_counts_are_lower_bounds():
    parts = [make(seed, vocabulary=40, contexts=60, first_context=100 * seed) for seed in range(6)]
    bounded = TokenCounts(LATENTS, keep=5, cap=10)
    for peaks, contexts in parts:
        bounded.add(peaks, contexts)
        bounded.frame()
    exact = counted(*parts).frame(100)
    both = bounded.frame(100).join(exact, on=["latent", "place", "token"], suffix="_true")
    assert len(both) == len(bounded.frame(100)) and both["undercount"].max() > 0
    assert (both["count"] <= both["count_true"]).all()
    assert (both["count_true"] <= both["count"] + both["undercount"]).all()


def test_no_peaks_give_no_rows():
    peaks, contexts = make(0)
    for nothing in (
        counted(),
        counted((peaks.clear(), contexts)),
        counted((peaks.clear(), contexts.clear())),
    ):
        assert nothing.frame().equals(pl.DataFrame(schema=TOKEN_SCHEMA))


def test_what_cannot_be_right_is_refused():
    peaks, contexts = make(0)
    far = peaks.with_columns(position=pl.col("position") + 8)
    for wrong in ((peaks, contexts.clear()), (peaks, contexts[1:15]), (far, contexts)):
        with pytest.raises(ValueError, match="a peak lies in no context"):
            counted(wrong)
    with pytest.raises(ValueError, match="do not add up"):
        counted().merge(TokenCounts(LATENTS[:2]))
