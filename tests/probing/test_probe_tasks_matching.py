from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from autointerp.probing.drawing import hash_of, is_test_group, mixed, ranks_within
from autointerp.probing.matching import PER_TEXT, Candidates, draw_examples
from autointerp.probing.token_baseline import identity_auroc, presence_auroc


def candidates(count, *, seed, texts=40, tokens=6, rate=0.3):
    random = np.random.default_rng(seed)
    text = random.integers(texts, size=count)
    token = random.integers(tokens, size=count)
    # Token 0 is mostly positive, so that unmatched draws would give it away.
    label = random.random(count) < np.where(token == 0, 0.9, rate)
    return Candidates(
        text,
        np.arange(count),
        token,
        label,
        text % 5 < 2,
        random.permutation(count).astype(np.uint64),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 300), st.sampled_from([20, 50, 1000]))
def test_every_positive_has_a_negative_with_its_token_on_its_side(seed, count, examples):
    drawn = draw_examples(candidates(count, seed=seed), examples=examples).examples
    positives = Counter(
        zip(drawn.token[drawn.label].tolist(), drawn.is_test[drawn.label].tolist(), strict=True)
    )
    negatives = Counter(
        zip(drawn.token[~drawn.label].tolist(), drawn.is_test[~drawn.label].tolist(), strict=True)
    )
    assert positives == negatives
    assert len(drawn.label) <= examples
    per_text = Counter(zip(drawn.text.tolist(), drawn.label.tolist(), strict=True))
    assert max(per_text.values(), default=0) <= PER_TEXT
    assert len(set(drawn.position.tolist())) == len(drawn.position)


def test_the_order_of_candidates_does_not_matter():
    given_ones = candidates(400, seed=1)
    shuffled = given_ones.take(np.random.default_rng(2).permutation(400))
    drawn = [
        set(draw_examples(one, examples=60).examples.position.tolist()) for one in (given_ones, shuffled)
    ]
    assert drawn[0] == drawn[1]


def test_two_fifths_of_the_examples_test():
    drawn = draw_examples(candidates(4000, seed=3, texts=2000), examples=100).examples
    assert len(drawn.label) == 100
    assert int(drawn.is_test.sum()) == 40


def test_what_was_matched_is_counted_by_token_and_side():
    given_ones = candidates(300, seed=4)
    drawn = draw_examples(given_ones, examples=10)
    brute = 0
    for token in range(6):
        for side in (True, False):
            here = (given_ones.token == token) & (given_ones.is_test == side)
            brute += min((here & given_ones.label).sum(), (here & ~given_ones.label).sum())
    assert drawn.matched_count == brute
    assert drawn.positive_count == int(given_ones.label.sum())


def test_a_common_token_is_dealt_no_more_than_a_rare_one():
    token = np.array([0] * 400 + [1] * 40 + [2] * 40)
    given_ones = Candidates(
        np.arange(480),
        np.arange(480),
        token,
        np.arange(480) % 2 == 0,
        np.zeros(480, dtype=bool),
        np.random.default_rng(0).permutation(480).astype(np.uint64),
    )
    drawn = draw_examples(given_ones, examples=100).examples
    assert Counter(drawn.token.tolist()) == {0: 20, 1: 20, 2: 20}


def test_no_candidate_gives_no_example():
    nothing = candidates(5, seed=0).take(np.zeros(5, dtype=bool))
    assert len(draw_examples(nothing, examples=10).examples.label) == 0


def test_ranks_are_places_in_the_order_among_equals():
    random = np.random.default_rng(5)
    column, order = random.integers(4, size=60), random.permutation(60)
    rank = ranks_within((column,), order)
    for value in range(4):
        here = np.flatnonzero(column == value)
        assert rank[here[np.argsort(order[here])]].tolist() == list(range(len(here)))


def test_the_side_of_a_group_is_its_hash_and_about_two_fifths_test():
    sides = [is_test_group(f"group {number}") for number in range(4000)]
    assert sides == [is_test_group(f"group {number}") for number in range(4000)]
    assert 0.37 < np.mean(sides) < 0.43
    assert hash_of("a", 1) != hash_of("a1")


def test_mixed_numbers_differ_and_depend_on_both_keys():
    keys = np.arange(1000, dtype=np.int64)
    numbers = mixed(keys, np.zeros(1000, dtype=np.int64))
    assert len(set(numbers.tolist())) == 1000
    assert not (numbers == mixed(keys, np.ones(1000, dtype=np.int64))).any()


# ---- the single-token baseline ----------------------------------------------------------------------


def texts_and_labels(seed=0, count=400):
    random = np.random.default_rng(seed)
    label = random.random(count) < 0.5
    texts = [tuple(random.integers(20, size=12).tolist()) for _ in range(count)]
    return random, texts, label, random.random(count) < 0.4


def test_a_token_that_says_nothing_is_near_chance_and_matched_ones_exactly_at_it():
    _random, texts, label, is_test = texts_and_labels()
    position = np.full(400, 6)
    assert 0.4 < identity_auroc(texts, position, label, is_test) < 0.65
    same = [(7,)] * 400
    assert identity_auroc(same, np.zeros(400, dtype=np.int64), label, is_test) == 0.5


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_a_telling_token_at_or_before_the_mark_is_found(offset):
    _random, texts, label, is_test = texts_and_labels()
    told = [
        (*text[: 8 - offset], 100 if one else 101, *text[9 - offset :])
        for text, one in zip(texts, label, strict=True)
    ]
    assert identity_auroc(told, np.full(400, 8), label, is_test) == 1.0


def test_a_telling_token_further_back_is_not_this_baselines():
    _random, texts, label, is_test = texts_and_labels()
    told = [(*text[:4], 100 if one else 101, *text[5:]) for text, one in zip(texts, label, strict=True)]
    assert identity_auroc(told, np.full(400, 8), label, is_test) < 0.65


def test_identity_agrees_with_scikit_learn_on_the_log_odds_of_the_best_place():
    random, texts, label, is_test = texts_and_labels(seed=3)
    position = random.integers(2, 12, size=400)
    areas = []
    for offset in range(4):
        token = [text[p - offset] if p >= offset else -1 for text, p in zip(texts, position, strict=True)]
        counts = {True: Counter(), False: Counter()}
        for one, y, t in zip(token, label.tolist(), is_test, strict=True):
            if not t:
                counts[y][one] += 1
        score = [np.log((counts[True][one] + 1) / (counts[False][one] + 1)) for one in token]
        areas.append(roc_auc_score(label[is_test], np.asarray(score)[is_test]))
    assert identity_auroc(texts, position, label, is_test) == pytest.approx(max(areas), abs=1e-12)


def test_presence_is_of_the_token_that_tells_most_on_train():
    _random, texts, label, is_test = texts_and_labels()
    told = [(*text, 50) if one else text for text, one in zip(texts, label, strict=True)]
    assert presence_auroc(told, label, is_test) == 1.0
    absent = [text if one else (*text, 50) for text, one in zip(texts, label, strict=True)]
    assert presence_auroc(absent, label, is_test) == 1.0
    assert 0.35 < presence_auroc(texts, label, is_test) < 0.65


def test_presence_agrees_with_brute_force():
    _random, texts, label, is_test = texts_and_labels(seed=6)
    held = np.array([[token in text for token in range(20)] for text in texts])
    difference = held[~is_test & label].mean(axis=0) - held[~is_test & ~label].mean(axis=0)
    best = int(np.argmax(np.abs(difference)))
    expected = roc_auc_score(label[is_test], np.sign(difference[best]) * held[is_test, best])
    assert presence_auroc(texts, label, is_test) == pytest.approx(expected, abs=1e-12)


def test_without_both_labels_there_is_no_baseline():
    _random, texts, _label, is_test = texts_and_labels()
    ones = np.ones(400, dtype=bool)
    assert identity_auroc(texts, np.full(400, 6), ones, is_test) is None
    assert presence_auroc(texts, ones, is_test) is None
