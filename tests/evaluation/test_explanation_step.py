"""Which latents are explained: drawn by hash, the same whatever else is drawn and however they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.evaluation.explanations.step import drawn

LATENTS = st.lists(st.integers(0, 2**31), unique=True, max_size=30)


@given(LATENTS, st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_in_which_they_come_is_of_no_account(latents, random, seed):
    other = list(latents)
    random.shuffle(other)
    assert drawn(latents, None, seed=seed) == drawn(other, None, seed=seed)
    assert sorted(drawn(latents, None, seed=seed)) == sorted(latents)


@given(LATENTS, st.integers(1, 30), st.integers(1, 30))
def test_more_are_those_before_and_others(latents, count, more):
    few, many = drawn(latents, count, seed=0), drawn(latents, count + more, seed=0)
    assert many[: len(few)] == few
    assert len(few) == min(count, len(latents))


@given(LATENTS, st.sets(st.integers(0, 29)))
def test_of_fewer_latents_those_that_are_left_keep_their_order(latents, dropped):
    left = [latent for place, latent in enumerate(latents) if place not in dropped]
    order = [latent for latent in drawn(latents, None, seed=1) if latent in set(left)]
    assert drawn(left, None, seed=1) == order


def test_every_latent_has_the_same_chance():
    counts = dict.fromkeys(range(10), 0)
    for seed in range(1000):
        for latent in drawn(list(range(10)), 3, seed=seed):
            counts[latent] += 1
    assert sum(counts.values()) == 3000
    deviation = (1000 * 0.3 * 0.7) ** 0.5
    assert all(abs(count - 300) < 4 * deviation for count in counts.values())


@pytest.mark.parametrize("count", [None, 1, 5])
def test_none_of_none_is_none(count):
    assert drawn([], count, seed=0) == []
