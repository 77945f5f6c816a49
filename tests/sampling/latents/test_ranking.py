"""What is left on a shortlist holds the truly largest, whatever errors within the bound do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sampling.latents.ranking import Entries, Shortlist, largest_of, places_by_row


@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), cut=st.integers(1, 25), levels=st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_the_truly_largest_stay_on_the_shortlist(seed, count, cut, levels):
    generator = np.random.default_rng(seed)
    error = 0.02
    exact = generator.integers(-levels, levels + 1, (7, 25)) / levels  # ties everywhere
    rough = torch.tensor(exact + generator.uniform(-error, error, exact.shape), dtype=torch.float32)
    shortlist = Shortlist(7, count=count, error=error + 1e-6, limit=10, device="cpu")
    for first in (0, 3):  # some rows after others, columns in blocks, every other one a transposed view
        rows = rough[first : first + 3] if first == 0 else rough[first:]
        for number, start in enumerate(range(0, 25, cut)):
            block = rows[:, start : start + cut].contiguous()
            block = block.T.contiguous().T if number % 2 else block
            row, column = shortlist.passing(block, first)
            shortlist.add(Entries(row + first, column + start, block[row, column]))
            if shortlist.is_full():
                shortlist.shortened()
    left = shortlist.shortened()
    held = set(zip(left.rows.tolist(), left.columns.tolist(), strict=True))
    best = largest_of(torch.tensor(exact), count).columns
    assert {(row, column) for row in range(7) for column in best[row].tolist()} <= held
    assert len(held) == len(left.rows)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), is_transposed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_truly_largest_stay_where_values_are_rounded_to_bfloat16(seed, count, is_transposed):
    generator = np.random.default_rng(seed)
    exact = torch.tensor(
        generator.uniform(-1, 1, (6, 30)) * generator.choice([1e-3, 1.0]), dtype=torch.float32
    )
    exact[:, ::3] = exact[:, :1] * (
        1 + 2**-9 * torch.randint(-2, 3, (6, 10))
    )  # closer than bfloat16 can tell
    rough = exact.bfloat16()
    rough = rough.T.contiguous().T if is_transposed else rough
    shortlist = Shortlist(6, count=count, error=1e-9, relative=1.01 * 2**-8, limit=10, device="cpu")
    row, column = shortlist.passing(rough, 0)
    shortlist.add(Entries(row, column, rough[row, column].float()))
    left = shortlist.shortened()
    held = set(zip(left.rows.tolist(), left.columns.tolist(), strict=True))
    best = largest_of(exact, count).columns
    assert {(row, column) for row in range(6) for column in best[row].tolist()} <= held


def test_a_shortlist_is_short():
    rough = torch.linspace(-1, 1, 1000).repeat(2, 1)
    shortlist = Shortlist(2, count=3, error=1e-4, limit=10, device="cpu")
    row, column = shortlist.passing(rough, 0)
    shortlist.add(Entries(row, column, rough[row, column]))
    assert sorted(shortlist.shortened().columns.tolist()) == [997, 997, 998, 998, 999, 999]


@pytest.mark.parametrize("values", [[0.5, -0.5, 0.0, -1.0, 1.0, -0.25, 0.25, 0.5]])
def test_entries_sort_by_row_and_from_the_largest(values):
    rows = torch.tensor([1, 0, 1, 0, 0, 1, 0, 1])
    entries = Entries(rows, torch.arange(8), torch.tensor(values)).in_order()
    assert entries.columns.tolist() == [4, 6, 1, 3, 0, 7, 2, 5]
    assert places_by_row(entries.rows, 3).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
