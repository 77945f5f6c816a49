from collections import defaultdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sampling.samplers import reservoir as reservoir_module
from autointerp.sampling.samplers.reservoir import Reservoir, as_sample
from autointerp.sampling.samplers.sampler import SAMPLE_SCHEMA

SCHEMA = {
    "latent": pl.UInt32,
    "split": pl.UInt8,
    "stratum": pl.Int16,
    "context": pl.UInt64,
    "position": pl.UInt32,
    "value": pl.Float32,
    "key": pl.Float64,
}
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 7, 2**32 - 1]),
        st.integers(0, 2),
        st.sampled_from([0, 3]),
        st.sampled_from([0, 1, 5, 2**64 - 1]),
        st.integers(0, 3),
        st.sampled_from([None, -1.0, 2.5]),
        st.sampled_from([-1.5, 0.0, 0.25, 3.0]),
    ),
    max_size=60,
)


def _frame(rows):
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _brute(rows, count, is_one_per_context):
    """(group, context, position, value, key, rank, population, next_key) of what is to be kept."""
    groups = defaultdict(list)
    for row in rows:
        groups[row[:3]].append(row[3:])
    kept = []
    for group, members in sorted(groups.items()):
        none_first = sorted(
            members, key=lambda row: (row[3], row[0], row[1], row[2] is not None, row[2] or 0)
        )
        distinct = {}
        for row in none_first:
            distinct.setdefault(row[:1] if is_one_per_context else row[:2], row)
        ordered = list(distinct.values())
        following = ordered[count][3] if len(ordered) > count else None
        for rank, row in enumerate(ordered[:count]):
            kept.append((*group, *row, rank, len(members), following))
    return kept


def _filled(rows, count=2, **options):
    reservoir = Reservoir(count, **options)
    reservoir.add(_frame(rows))
    return reservoir


@pytest.fixture(params=[0, 2**16], ids=["prunes at once", "prunes late"])
def _buffer(request, monkeypatch):
    monkeypatch.setattr(reservoir_module, "_LEAST_BUFFER", request.param)


@given(rows=ROWS, count=st.integers(1, 4), is_one_per_context=st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_keeps_what_a_sort_of_everything_keeps(rows, count, is_one_per_context):
    kept = _filled(rows, count, is_one_per_context=is_one_per_context).kept()
    assert kept.rows() == _brute(rows, count, is_one_per_context)


@given(rows=ROWS, data=st.data(), is_one_per_context=st.booleans(), least=st.sampled_from([0, 5, 2**16]))
@settings(max_examples=60, deadline=None)
def test_order_parts_and_merging_make_no_difference(rows, data, is_one_per_context, least):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reservoir_module, "_LEAST_BUFFER", least)
        whole = _filled(rows, is_one_per_context=is_one_per_context).kept()
        shuffled = data.draw(st.permutations(rows))
        parts = [Reservoir(2, is_one_per_context=is_one_per_context) for _ in range(3)]
        for row in shuffled:
            parts[data.draw(st.integers(0, 2))].add(_frame([row]))
        parts[1].merge(parts[2])
        parts[0].merge(parts[1])
        assert parts[0].kept().equals(whole)


def test_thresholds_are_the_largest_keys_that_can_still_matter():
    rows = [(1, 0, 0, context, 0, 1.0, context / 10) for context in range(5)] + [(2, 0, 0, 0, 0, 1.0, 0.5)]
    reservoir = _filled(rows, count=2)
    reservoir.kept()
    assert reservoir.thresholds().rows() == [(1, 0, 0, 0.2)]


def test_rows_left_out_beforehand_count_where_the_population_is_given():
    reservoir = Reservoir(1)
    population = pl.DataFrame({"latent": [1, 3], "split": [0, 0], "stratum": [0, 0], "population": [10, 4]})
    reservoir.add(_frame([(1, 0, 0, 5, 0, None, 0.5)]), population=population)
    reservoir.add(_frame([(1, 0, 0, 6, 0, None, 0.75)]))
    assert reservoir.kept().select("latent", "context", "population", "next_key").rows() == [(1, 5, 11, 0.75)]


@pytest.mark.usefixtures("_buffer")
def test_what_is_held_does_not_grow_with_what_came():
    reservoir = Reservoir(3)
    for start in range(0, 3000, 100):
        rows = [
            (1, 0, 0, context, 0, 1.0, float(context * 7919 % 3001)) for context in range(start, start + 100)
        ]
        reservoir.add(_frame(rows))
        reservoir.kept()
        held = len(reservoir._rows.group) + sum(len(rows.group) for rows in reservoir._buffer)
        assert held <= 4
    assert reservoir.kept()["population"].to_list() == [3000] * 3


def test_it_goes_on_after_it_was_looked_at():
    rows = [(1, 0, 0, context, 0, 1.0, float(-context)) for context in range(6)]
    reservoir = _filled(rows[:3])
    reservoir.kept()
    reservoir.add(_frame(rows[3:]))
    assert reservoir.kept().equals(_filled(rows).kept())


def test_reservoirs_of_different_kinds_do_not_merge():
    with pytest.raises(ValueError, match="do not merge"):
        Reservoir(2).merge(Reservoir(3))
    with pytest.raises(ValueError, match="do not merge"):
        Reservoir(2).merge(Reservoir(2, is_one_per_context=True))


def test_an_empty_one_gives_an_empty_sample():
    sample = as_sample(Reservoir(2).kept())
    assert sample.height == 0 and dict(sample.schema) == SAMPLE_SCHEMA
