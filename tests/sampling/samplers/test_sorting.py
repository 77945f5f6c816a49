"""The order of rows is that of a sort by all columns, whichever bits are in use."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sampling.samplers.sorting import bits_in_order, order_of, run_starts

GROUPS = st.sampled_from([0, 1, 5, 2**24, 2**24 + 7, 2**40, 2**63, 2**64 - 1])
MAJORS = st.sampled_from([0, 1, 2, 2**20, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1])


@given(st.lists(st.tuples(GROUPS, MAJORS, st.integers(0, 2), st.sampled_from([-1.0, 0.5])), max_size=40))
@settings(max_examples=200, deadline=None)
def test_rows_sort_as_tuples_do(rows):
    kinds = (np.uint64, np.uint64, np.uint32, np.float32)
    columns = [np.array([row[place] for row in rows], kind) for place, kind in enumerate(kinds)]
    order = order_of(*columns)
    assert [rows[place] for place in order] == sorted(rows)
    assert sorted(order.tolist()) == list(range(len(rows)))


@given(st.lists(st.floats(allow_nan=False), max_size=30))
@settings(max_examples=100, deadline=None)
def test_bits_sort_as_the_numbers_do(numbers):
    found = np.array(numbers, np.float64)
    bits = bits_in_order(found)
    assert found[np.argsort(bits, kind="stable")].tolist() == sorted(numbers)
    assert bits_in_order(np.array([-0.0]))[0] == bits_in_order(np.array([0.0]))[0]


def test_runs_begin_where_numbers_change():
    assert run_starts(np.array([3, 3, 5, 9, 9, 9])).tolist() == [0, 2, 3]
    assert run_starts(np.zeros(0, np.int64)).tolist() == []
