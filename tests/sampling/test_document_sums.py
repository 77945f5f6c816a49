import polars as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from autointerp.records import OBSERVATION_SCHEMA
from autointerp.sampling.document_sums import (
    DocumentSums,
    Terms,
    failed_observations,
    position_range,
    position_slice,
)


@given(st.integers(min_value=0, max_value=1_000_000))
def test_a_position_lies_in_the_range_that_its_slice_names(position: int) -> None:
    text = position_slice(int(position_range(torch.tensor([position]))[0]))["position"]
    low, _, high = text.partition("-")
    assert int(low) <= position <= int(high or low)


def test_the_ranges_are_those_of_the_report() -> None:
    names = [position_slice(index)["position"] for index in range(6)]
    assert names == ["0", "1-3", "4-15", "16-63", "64-255", "256-1023"]


def test_a_document_without_tokens_in_a_range_has_no_row_there() -> None:
    sums = DocumentSums(["a", "b", "c"], ["m"])
    document, position = torch.tensor([0, 0, 1]), torch.tensor([0, 5, 0])
    sums.add(document, position, {"m": Terms(torch.tensor([1.0, 2.0, 4.0]))})
    rows = sums.observations("it", by_position=frozenset({"m"}))
    assert rows.select("slice", "unit", "numerator").rows() == [
        ("{}", "a", 2.0),
        ('{"position":"0"}', "a", 1.0),
        ('{"position":"0"}', "b", 4.0),
        ('{"position":"4-15"}', "a", 2.0),
    ]


def test_how_tokens_are_dealt_into_batches_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(100, generator=generator) * 1e4
    document = torch.randint(0, 4, (100,), generator=generator)
    position = torch.randint(0, 70, (100,), generator=generator)
    frames = []
    for step in (1, 7, 100):
        sums = DocumentSums(list("abcd"), ["m"])
        for start in range(0, 100, step):
            part = slice(start, start + step)
            sums.add(document[part], position[part], {"m": Terms(values[part], values[part].abs())})
        frames.append(sums.observations("it"))
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


def test_nothing_in_gives_no_rows_out() -> None:
    for documents in ([], ["a"]):
        rows = DocumentSums(documents, ["m"]).observations("it")
        assert rows.height == 0
        assert dict(rows.schema) == OBSERVATION_SCHEMA


def test_a_failure_is_a_row_without_a_number() -> None:
    rows = failed_observations("it", ["m", "n"], unit="chunk 3", reason="why")
    assert rows["metric"].to_list() == ["m", "n"]
    assert rows["numerator"].to_list() == [None, None]
    assert set(rows["reason"]) == {"why"}
    assert failed_observations("it", [], unit="chunk 3", reason="why").equals(
        pl.DataFrame(schema=OBSERVATION_SCHEMA)
    )
