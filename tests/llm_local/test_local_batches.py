"""Which questions are answered together, which prefixes are kept, which token is drawn."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.local_batches import next_batch
from autointerp.llm.local_drafts import Job
from autointerp.llm.local_prefixes import EchoTable, Prefix, PrefixCache, shared_length
from autointerp.llm.local_sampling import drawn
from autointerp.llm.local_text import EncodedPrompt
from autointerp.llm.requests import Request


def _job(ids, *, new_tokens: int = 1, echo: bool = False) -> Job:
    prompt = EncodedPrompt(np.array(ids, dtype=np.int64))
    return Job(Request(prompt="x", echo=echo), prompt, new_tokens)


def test_questions_that_begin_alike_go_together() -> None:
    one, other = list(range(50)), list(range(100, 150))
    jobs = [_job([*(one if n % 2 else other), 200 + n]) for n in range(6)]
    assert next_batch(jobs, max_tokens=10_000) == [0, 2, 4]
    assert next_batch(jobs, max_tokens=110) == [0, 2]
    assert next_batch(jobs, max_tokens=10_000, most_rows=1) == [0]


def test_questions_that_share_little_go_together_by_length_and_kind() -> None:
    jobs = [_job([n] * 5) for n in range(4)] + [_job([9] * 5, echo=True), _job([8] * 5, new_tokens=5000)]
    assert next_batch(jobs, max_tokens=100_000) == [0, 1, 2, 3]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=40), st.booleans()), min_size=1),
    st.integers(1, 400),
)
def test_the_first_is_always_answered_and_the_bound_holds(rows, max_tokens: int) -> None:
    jobs = [_job(ids, echo=echo) for ids, echo in rows]
    batch = next_batch(jobs, max_tokens=max_tokens)
    assert batch[0] == 0
    assert len(set(batch)) == len(batch)
    assert len({jobs[place].request.echo for place in batch}) == 1
    assert len(batch) == 1 or len(batch) * max(jobs[place].length for place in batch) <= max_tokens


def _prefix(ids, *, echo: bool = False) -> Prefix:
    keys = torch.zeros(1, 1, len(ids), 4)
    rest = len(ids) - 1
    table = EchoTable(np.zeros(rest), np.zeros((rest, 2), dtype=np.int64), np.zeros((rest, 2)))
    return Prefix(np.array(ids, dtype=np.int64), ((keys, keys.clone()),), table if echo else None)


def test_the_cache_keeps_what_was_used_last_within_its_bound() -> None:
    one, two, three = _prefix([1] * 10), _prefix([2] * 10), _prefix([3] * 10)
    cache = PrefixCache(2 * one.byte_count)
    cache.add(one)
    cache.add(two)
    assert cache.best(np.array([1, 1, 5]), echo=False) == (one, 2)
    cache.add(three)
    assert cache.byte_count == 2 * one.byte_count
    assert cache.best(np.array([2, 2]), echo=False) == (None, 0)
    assert cache.best(np.array([1] * 12), echo=False) == (one, 10)
    assert cache.best(np.array([1] * 12), echo=True) == (None, 0)
    cache.add(_prefix([4] * 1000))
    assert cache.best(np.array([4]), echo=False) == (None, 0)


def test_a_longer_prefix_takes_the_place_of_those_it_holds() -> None:
    cache = PrefixCache(10**6)
    short, told, long = _prefix([1] * 4), _prefix([1] * 5, echo=True), _prefix([1] * 9)
    for prefix in (short, told, long):
        cache.add(prefix)
    assert cache.byte_count == told.byte_count + long.byte_count
    assert cache.best(np.array([1] * 9), echo=True) == (told, 5)


def test_shared_length_is_that_of_the_common_beginning() -> None:
    assert shared_length(np.array([1, 2, 3]), np.array([1, 2, 4, 3])) == 2
    assert shared_length(np.array([1, 2]), np.array([1, 2, 4])) == 2
    assert shared_length(np.array([5]), np.array([1])) == 0


def test_draws_take_tokens_in_proportion_and_top_p_leaves_out_the_tail() -> None:
    probabilities = np.array([0.1, 0.6, 0.3])
    grid = (np.arange(1000) + 0.5) / 1000
    counts = np.bincount([drawn(probabilities, u, top_p=None) for u in grid], minlength=3)
    np.testing.assert_array_equal(counts, [100, 600, 300])
    counts = np.bincount([drawn(probabilities, u, top_p=0.7) for u in grid], minlength=3)
    np.testing.assert_allclose(counts, [0, 1000 * 0.6 / 0.9, 1000 * 0.3 / 0.9], atol=1)
    assert {drawn(probabilities, u, top_p=0.0) for u in grid} == {1}
    assert drawn(probabilities, 1 - 1e-17, top_p=None) == 0
