import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from autointerp.sampling.samplers.hashing import hashed, text_hash, uniform

COUNT = 20_000


def _numbers(seed=0, salt="it", start=0):
    return hashed(seed, salt, np.arange(start, start + COUNT), np.full(COUNT, 7))


def _reference(seed, salt, *numbers):
    """The chain in plain integers."""
    mask, state = 2**64 - 1, text_hash(f"{seed}\0{salt}")
    for number in numbers:
        state = ((state ^ (number & mask)) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state


def test_the_chain_is_that_of_plain_integers():
    columns = [np.array([0, 5, 2**64 - 1], dtype=np.uint64), np.array([1, -1, 3]), np.array([2], np.uint32)]
    expected = [_reference(-3, "ä", *row) for row in [(0, 1, 2), (5, -1, 2), (2**64 - 1, 3, 2)]]
    assert hashed(-3, "ä", *columns).tolist() == expected


def test_columns_broadcast_and_stay_as_they_are():
    latent, context = np.arange(5, dtype=np.uint64), np.arange(7, dtype=np.uint64)
    table = hashed(1, "it", latent[:, None], context[None, :])
    flat = hashed(1, "it", np.repeat(latent, 7), np.tile(context, 5))
    assert np.array_equal(table.ravel(), flat)
    assert latent.tolist() == list(range(5)) and context.tolist() == list(range(7))


@pytest.mark.parametrize("shift", [0, 12, 32, 56])
def test_every_byte_is_uniform(shift):
    byte = (_numbers() >> np.uint64(shift)) & np.uint64(255)
    assert stats.chisquare(np.bincount(byte.astype(int), minlength=256)).pvalue > 1e-4


def test_each_bit_of_the_input_flips_each_bit_of_the_output_half_the_time():
    inputs = np.random.default_rng(0).integers(0, 2**63, size=2000, dtype=np.uint64)
    base = hashed(0, "it", inputs)
    for bit in range(64):
        flipped = base ^ hashed(0, "it", inputs ^ np.uint64(1 << bit))
        share = ((flipped[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(axis=0)
        assert np.all(np.abs(share - 0.5) < 6 * 0.5 / np.sqrt(2000))


@pytest.mark.parametrize(
    "other", [_numbers(start=1), _numbers(seed=1), _numbers(salt="that"), _numbers(start=2**32)]
)
def test_neighbouring_inputs_seeds_and_salts_do_not_correlate(other):
    one, two = uniform(_numbers()), uniform(other)
    assert stats.pearsonr(one, two).pvalue > 1e-4
    cells = np.histogram2d(one, two, bins=16)[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-4


def test_swapped_columns_hash_apart():
    column = np.arange(1, COUNT, dtype=np.uint64)
    assert not np.any(hashed(0, "it", column, column + 1) == hashed(0, "it", column + 1, column))


def test_uniform_numbers_lie_strictly_between_0_and_1():
    ends = uniform(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert 0 < ends[0] < 1e-15 and 1 - 1e-15 < ends[1] < 1
    assert stats.kstest(uniform(_numbers()), "uniform").pvalue > 1e-4


def test_the_hash_of_a_text_is_the_same_in_another_process():
    code = "from autointerp.sampling.samplers.hashing import text_hash; print(text_hash('naïve \\ud800'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == text_hash("naïve \ud800")
    assert 0 <= text_hash("") < 2**64
    assert len({text_hash(str(number)) for number in range(1000)}) == 1000
