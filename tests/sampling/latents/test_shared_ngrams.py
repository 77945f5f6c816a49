import hashlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.errors import RunStoreError
from autointerp.sampling.latents import shared_ngrams
from autointerp.sampling.latents.near_duplicates import clusters, signatures
from autointerp.sampling.latents.shared_ngrams import LEAK_SCHEMA, leaks, ngram_hashes, refuse_leaks
from autointerp.sampling.latents.sides import SplitShares, sides

EXAMPLES = {"latent": pl.UInt32, "split": pl.UInt8, "context": pl.UInt64, "focus": pl.UInt32}
CONTEXTS = {"context": pl.UInt64, "first_scored": pl.UInt32, "tokens": pl.List(pl.Int32)}


def ngrams(text, length) -> list[tuple]:
    if len(text) < length:
        return [tuple(text)] if text else []
    return [tuple(text[start : start + length]) for start in range(len(text) - length + 1)]


def peak_ngrams(text, place, length) -> set[tuple]:
    place = max(place, 0)
    return {gram for start, gram in enumerate(ngrams(text, length)) if start <= place < start + length}


def leaks_by_hand(rows, texts, length) -> set[tuple]:
    """Rows that share a passage with a peak on a later side, be that one kept or not."""
    found = set()
    for latent, split, context, _ in rows:
        text, first = texts[context]
        seen = set(ngrams(text[first:], length))
        for other, later, where, focus in rows:
            if other == latent and later > split:
                peak, begin = texts[where]
                if seen & peak_ngrams(peak[begin:], focus - begin, length):
                    found.add((latent, split, context))
    return found


def without(rows, dropped) -> list[tuple]:
    return [row for row in rows if row[:3] not in dropped]


def least_leaks(rows, texts, length) -> set[tuple]:
    """The validate side gives way first, and then explain to what is left."""
    first = {row for row in leaks_by_hand(rows, texts, length) if row[1] == 1}
    return first | {row for row in leaks_by_hand(without(rows, first), texts, length) if row[1] == 0}


def frames(rows, texts) -> tuple[pl.DataFrame, pl.DataFrame]:
    contexts = [(context, first, text) for context, (text, first) in texts.items()]
    return (
        pl.DataFrame(rows, schema=EXAMPLES, orient="row"),
        pl.DataFrame(contexts, schema=CONTEXTS, orient="row"),
    )


def found_leaks(rows, texts, length) -> set[tuple]:
    return set(leaks(*frames(rows, texts), length=length).rows())


@st.composite
def corpora(draw):
    first = draw(st.integers(0, 2))
    token = st.integers(0, draw(st.integers(0, 3)))
    texts = {
        number * 10**18: ([9] * first + draw(st.lists(token, min_size=1, max_size=9)), first)
        for number in range(draw(st.integers(1, 6)))
    }
    rows = []
    for _ in range(draw(st.integers(0, 10))):
        context = draw(st.sampled_from(sorted(texts)))
        focus = draw(st.integers(0, len(texts[context][0]) - 1))
        rows.append((draw(st.integers(0, 1)) * 4_000_000_000, draw(st.integers(0, 2)), context, focus))
    return rows, texts


def many_corpora(seed, count, *, vocabulary, longest):
    """Corpora side by side, each with latents and contexts of its own."""
    generator = np.random.default_rng(seed)
    for corpus in range(count):
        texts, rows = {}, []
        for number in range(generator.integers(1, 7)):
            first = int(generator.integers(0, 2))
            size = int(generator.integers(1, longest))
            texts[corpus * 10 + number] = (
                [-7] * first + generator.integers(0, vocabulary, size).tolist(),
                first,
            )
        for _ in range(generator.integers(0, 12)):
            context = int(generator.choice(list(texts)))
            text, first = texts[context]
            focus = int(generator.integers(first, len(text)))
            rows.append(
                (corpus * 2 + int(generator.integers(0, 2)), int(generator.integers(0, 3)), context, focus)
            )
        yield rows, texts


@settings(max_examples=120, deadline=None)
@given(corpora(), st.integers(1, 5))
def test_what_is_dropped_is_what_a_search_by_hand_drops(corpus, length) -> None:
    assert found_leaks(*corpus, length) == least_leaks(*corpus, length)


@pytest.mark.parametrize(("length", "vocabulary", "longest"), [(1, 9, 4), (3, 2, 8), (4, 3, 20), (16, 1, 40)])
def test_over_a_thousand_corpora_no_leak_remains_and_nothing_goes_needlessly(
    length, vocabulary, longest
) -> None:
    corpora = list(many_corpora(0, 1000, vocabulary=vocabulary, longest=longest))
    rows = [row for part, _ in corpora for row in part]
    texts = {context: text for _, part in corpora for context, text in part.items()}
    found = found_leaks(rows, texts, length)
    dropped = {}
    for leak in found:
        dropped.setdefault(leak[0] // 2, set()).add(leak)
    clean = 0
    for number, (own, part) in enumerate(corpora):
        kept = without(own, dropped.get(number, set()))
        assert not leaks_by_hand(kept, part, length)
        for leak in dropped.get(number, ()):
            back = kept + [row for row in own if row[:3] == leak]
            assert leak in leaks_by_hand(back, part, length)
        clean += not dropped.get(number)
    assert 20 < clean < 980
    assert not any(split == 2 for _, split, _ in found)
    assert {split for _, split, _ in found} == {0, 1}


def test_order_repetition_further_columns_and_blocks_do_not_matter(monkeypatch) -> None:
    corpora = list(many_corpora(1, 200, vocabulary=2, longest=9))
    rows = [row for part, _ in corpora for row in part]
    texts = {context: text for _, part in corpora for context, text in part.items()}
    examples, contexts = frames(rows, texts)
    expected = leaks(examples, contexts, length=3)
    assert expected.height > 100
    assert expected.equals(expected.unique().sort("latent", "split", "context"))
    shuffled = pl.concat([examples, examples[:50]]).sample(fraction=1, shuffle=True, seed=0)
    more = contexts.with_columns(start=pl.lit(0)).sample(fraction=1, shuffle=True, seed=1)
    assert leaks(shuffled.select("focus", "context", "split", "latent"), more, length=3).equals(expected)
    assert leaks(examples.with_columns(rank=pl.lit(1)), pl.concat([contexts, contexts]), length=3).equals(
        expected
    )
    for block in (1, 7, 100):
        monkeypatch.setattr(shared_ngrams, "_BLOCK", block)
        assert leaks(examples, contexts, length=3).equals(expected)


def test_of_two_latents_each_drops_on_its_own_account() -> None:
    text = list(range(40))
    texts = {1: (text, 0), 2: (text, 0)}
    rows = [(5, 0, 1, 3), (5, 2, 2, 9), (6, 0, 1, 3), (7, 2, 2, 9)]
    assert found_leaks(rows, texts, 16) == {(5, 0, 1)}


@pytest.mark.parametrize(
    ("shared", "focus", "is_leak"),
    [
        (range(20, 36), 20, True),  # the focus is the first token of the 16
        (range(20, 36), 35, True),  # the last
        (range(20, 36), 19, False),
        (range(20, 36), 36, False),
        (range(20, 35), 27, False),  # 15 tokens are none
        (range(16), 0, True),  # at the edges of the text
        (range(44, 60), 59, True),
    ],
)
@pytest.mark.parametrize("bos", [0, 1])
def test_sixteen_tokens_around_the_focus_count_wherever_they_stand_in_the_other(
    shared, focus, is_leak, bos
) -> None:
    scored = list(range(100, 160))
    shown = [7] * 11 + [scored[place] for place in shared] + [8] * 5
    texts = {1: ([1] * bos + shown, bos), 2: ([1] * bos + scored, bos)}
    assert bool(found_leaks([(0, 0, 1, bos), (0, 2, 2, focus + bos)], texts, 16)) is is_leak
    assert bool(found_leaks([(0, 0, 1, bos), (0, 1, 2, focus + bos)], texts, 16)) is is_leak
    assert bool(found_leaks([(0, 1, 1, bos), (0, 2, 2, focus + bos)], texts, 16)) is is_leak
    # The other way round the focus lies apart from what is shared.
    assert not found_leaks([(0, 0, 2, focus + bos), (0, 2, 1, bos)], texts, 16)


def test_bos_is_no_text() -> None:
    text = list(range(16))
    texts = {1: ([99, *text], 1), 2: (text, 0), 3: ([99, *text[:15]], 1), 4: ([98, *text[:15]], 0)}
    assert found_leaks([(0, 0, 1, 1), (0, 2, 2, 0)], texts, 16) == {(0, 0, 1)}
    assert found_leaks([(0, 0, 3, 1), (0, 2, 4, 5)], texts, 16) == set()


def test_a_short_text_is_shared_as_a_whole_only() -> None:
    texts = {1: ([1, 2, 3], 0), 2: ([0, 1, 2, 3], 1), 3: ([1, 2, 3, 4], 0), 4: ([1, 2], 0)}
    for shown, expected in ((1, True), (3, False), (4, False)):
        assert bool(found_leaks([(0, 0, shown, 0), (0, 2, 2, 3)], texts, 16)) is expected


def test_a_focus_before_the_text_counts_as_its_first_token() -> None:
    scored = list(range(60))
    texts = {1: (scored[:16], 0), 2: ([-1, *scored], 1), 3: (scored[1:17], 0)}
    rows = [(0, 0, 1, 0), (0, 0, 3, 0), (0, 2, 2, 0)]
    assert found_leaks(rows, texts, 16) == {(0, 0, 1)}


def test_a_validate_example_that_goes_takes_no_explain_example_with_it() -> None:
    a, b, c = list(range(16)), list(range(20, 36)), list(range(40, 56))
    texts = {1: (a + c, 0), 2: (a + b, 0), 3: (b, 0)}
    rows = [(0, 0, 1, 0), (0, 1, 2, 3), (0, 2, 3, 3)]
    assert found_leaks(rows, texts, 16) == {(0, 1, 2)}
    assert found_leaks(rows[:2], texts, 16) == {(0, 0, 1)}


def test_a_context_without_text_touches_nothing() -> None:
    texts = {1: ([5], 1), 2: ([5], 1), 3: ([5, 6], 1)}
    assert found_leaks([(0, 0, 1, 0), (0, 2, 2, 0), (0, 1, 3, 1)], texts, 16) == set()


def test_nothing_in_nothing_out_and_columns_are_as_stated() -> None:
    examples, contexts = frames([(0, 0, 1, 0), (0, 2, 2, 0)], {1: ([5] * 20, 0), 2: ([5] * 20, 0)})
    assert dict(leaks(examples, contexts).schema) == LEAK_SCHEMA
    assert leaks(examples, contexts).height == 1
    for one, other in ((examples.clear(), contexts), (examples.clear(), contexts.clear())):
        assert leaks(one, other).equals(pl.DataFrame(schema=LEAK_SCHEMA))
    for split in range(3):
        assert leaks(examples.with_columns(split=pl.lit(split, dtype=pl.UInt8)), contexts).height == 0


def test_an_example_outside_of_its_context_is_refused() -> None:
    examples, contexts = frames([(0, 0, 1, 3)], {1: ([5] * 3, 0)})
    with pytest.raises(ValueError, match="in no context, or behind its end"):
        leaks(examples, contexts)
    with pytest.raises(ValueError, match="in no context, or behind its end"):
        leaks(examples, contexts.clear())


def reference_hash(gram) -> int:
    """With Python's own integers."""

    def mixed(state, value):
        state = ((state ^ (value % 2**64)) + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        return state ^ (state >> 31)

    start = int.from_bytes(hashlib.blake2b(b"0\0ngram", digest_size=8).digest(), "little")
    total = sum(
        mixed(start, int(token)) * pow(0x9E3779B97F4A7C13, place, 2**64) for place, token in enumerate(gram)
    )
    return mixed(mixed(start, len(gram)), total)


TEXTS = st.lists(st.lists(st.integers(-3, 2**31 - 1), max_size=40), max_size=6)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.sampled_from([1, 2, 5, 16]), st.sampled_from([np.int32, np.int64]))
def test_hashes_are_those_of_the_formula(texts, length, dtype) -> None:
    tokens = np.array([token for text in texts for token in text], dtype=dtype)
    hashes, offsets = ngram_hashes(
        tokens, np.array([len(text) for text in texts], dtype=np.int64), length=length
    )
    expected = [ngrams(text, length) for text in texts]
    assert np.diff(offsets).tolist() == [len(part) for part in expected]
    assert offsets[0] == 0 and offsets[-1] == len(hashes)
    assert hashes.tolist() == [reference_hash(gram) for part in expected for gram in part]


def test_hashes_are_equal_where_ngrams_are(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, 30, 2000)
    tokens = generator.integers(0, 3, lengths.sum()).astype(np.int32)
    texts = np.split(tokens, np.cumsum(lengths)[:-1])
    grams = [gram for text in texts for gram in ngrams(text.tolist(), 8)]
    hashes, offsets = ngram_hashes(tokens, lengths, length=8)
    assert len(set(zip(grams, hashes.tolist(), strict=True))) == len(set(grams)) == len(set(hashes.tolist()))
    for block in (1, 50, 1000):
        monkeypatch.setattr(shared_ngrams, "_BLOCK", block)
        again = ngram_hashes(tokens, lengths, length=8)
        assert (again[0] == hashes).all() and (again[1] == offsets).all()


def test_swaps_and_shifts_change_hashes() -> None:
    texts = np.array([np.roll(np.arange(16), shift) for shift in range(16)])
    swapped = np.repeat(np.arange(16)[None], 120, axis=0)
    rows, (one, other) = np.arange(120), np.triu_indices(16, 1)
    swapped[rows, one], swapped[rows, other] = other, one
    tokens = np.concatenate([texts, swapped]).astype(np.int32)
    hashes = ngram_hashes(tokens.reshape(-1), np.full(len(tokens), 16))[0]
    assert len(np.unique(hashes)) == len(tokens) == 136


@pytest.mark.parametrize(("lengths", "length"), [([3], 16), ([2, 3], 16), ([5, -1], 16), ([4], 0)])
def test_lengths_that_do_not_fit_are_refused(lengths, length) -> None:
    with pytest.raises(ValueError, match="4 tokens"):
        ngram_hashes(np.zeros(4, dtype=np.int32), np.array(lengths), length=length)


def stored(rows, texts, side) -> tuple[pl.DataFrame, pl.DataFrame]:
    examples, contexts = frames(rows, texts)
    split = pl.Series("split", [side[context] for context in texts], dtype=pl.UInt8)
    name = pl.col("context").cast(pl.String)
    return examples, contexts.with_columns(split, document=name, cluster=name)


def clean() -> tuple[pl.DataFrame, pl.DataFrame]:
    texts = {number: (list(range(number * 100, number * 100 + 30)), 0) for number in range(3)}
    rows = [(0, 0, 0, 3), (0, 1, 1, 3), (0, 2, 2, 3), (1, 0, 0, 9)]
    return stored(rows, texts, {0: 0, 1: 1, 2: 2})


def named(frame) -> pl.DataFrame:
    return frame.with_columns(pl.col("split").replace_strict({0: "explain", 1: "validate", 2: "score"}))


def test_examples_apart_are_let_through_with_sides_by_index_or_name() -> None:
    examples, contexts = clean()
    refuse_leaks(examples, contexts)
    refuse_leaks(named(examples), named(contexts))
    refuse_leaks(named(examples), contexts)
    refuse_leaks(examples.clear(), contexts.clear())


def refused(examples, contexts) -> str:
    with pytest.raises(RunStoreError) as caught:
        refuse_leaks(examples, contexts)
    with pytest.raises(RunStoreError) as by_name:
        refuse_leaks(named(examples), named(contexts))
    assert str(caught.value) == str(by_name.value)
    return str(caught.value)


def test_a_leak_is_refused() -> None:
    texts = {number: (list(range(30)), 0) for number in range(3)}
    examples, contexts = stored([(4, 0, 0, 3), (4, 1, 1, 3), (4, 2, 2, 3)], texts, {0: 0, 1: 1, 2: 2})
    line = refused(examples, contexts)
    assert "2 in all" in line and "latent 4, split 1, context 1" in line
    found = leaks(examples, contexts)
    refuse_leaks(examples.join(found, on=["latent", "split", "context"], how="anti"), contexts)


@pytest.mark.parametrize("column", ["document", "cluster"])
def test_a_document_or_cluster_on_two_sides_is_refused(column) -> None:
    examples, contexts = clean()
    mixed = contexts.with_columns(pl.Series(column, ["a", "b", "a"]))
    assert f"a {column} stands on two sides (1 in all): {column} a" in refused(examples, mixed)


def test_an_example_on_another_side_than_its_context_is_refused() -> None:
    examples, contexts = clean()
    moved = examples.with_columns(split=pl.Series([0, 1, 2, 2], dtype=pl.UInt8))
    assert "another side than its context (1 in all): latent 1, context 0" in refused(moved, contexts)


def test_near_duplicate_documents_end_on_one_side_and_what_is_stored_has_no_leak() -> None:
    generator = np.random.default_rng(0)
    originals = generator.integers(0, 500, (60, 64))
    passage = generator.integers(0, 500, 20)
    originals[generator.random(60) < 0.5, 10:30] = passage  # quoted in half of them
    copies = np.where(generator.random((60, 64)) < 0.01, 501, originals)
    tokens = np.concatenate([originals, copies])
    names = [f"{name:03}" for name in generator.permutation(120)]
    signed = signatures(tokens.reshape(-1), np.repeat(np.arange(120), 64), 120)
    schema = {"document": pl.String, "signature": pl.Array(pl.UInt32, 64)}
    grouped = clusters(pl.DataFrame({"document": names, "signature": signed}, schema=schema))
    divided = sides(grouped, shares=SplitShares(), seed=0)
    contexts = pl.DataFrame(
        {
            "context": np.arange(120, dtype=np.uint64),
            "document": names,
            "first_scored": np.zeros(120, dtype=np.uint32),
            "tokens": tokens.tolist(),
        },
        schema_overrides={"tokens": pl.List(pl.Int32)},
    ).join(divided, on="document", how="left", maintain_order="left")
    for one in range(60):
        assert contexts["cluster"][one] == contexts["cluster"][one + 60]
    examples = pl.DataFrame(
        {
            "latent": np.repeat(np.arange(3, dtype=np.uint32), 120),
            "context": np.tile(np.arange(120, dtype=np.uint64), 3),
            "focus": generator.integers(0, 64, 360).astype(np.uint32),
        }
    ).join(contexts.select("context", "split"), on="context", maintain_order="left")
    found = leaks(examples, contexts)
    assert 0 < found.height < 360
    refuse_leaks(examples.join(found, on=["latent", "split", "context"], how="anti"), contexts)
    with pytest.raises(RunStoreError, match="around a peak"):
        refuse_leaks(examples, contexts)
