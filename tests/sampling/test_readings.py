"""Which tokens and predictions count, on batches that the real context maker made from text."""

from collections.abc import Iterator

import pytest
import torch

from autointerp.errors import SubjectError
from autointerp.sampling.contexts import ContextOptions, CorpusChunk, corpus_chunks
from autointerp.sampling.corpus import Document
from autointerp.sampling.readings import (
    PredictionTable,
    SiteMeans,
    SiteReading,
    TokenTable,
    has_direction,
)
from autointerp.testing.tiny_subject import tiny_tokenizer


class Texts:
    def documents(self) -> Iterator[Document]:
        for index in range(6):
            yield Document(f"{index:016d}", f"text {index}", "the ring and the sea " * (index + 1))


@pytest.fixture(params=[("document", True), ("document", False), ("packed", True), ("packed", False)])
def chunk(request: pytest.FixtureRequest) -> CorpusChunk:
    packing, prepend_bos = request.param
    options = ContextOptions(context_length=11, packing=packing, prepend_bos=prepend_bos)
    (only,) = corpus_chunks(Texts(), tiny_tokenizer(), options, batch_tokens=40, chunk_tokens=10_000)
    return only


def test_predictions_that_count_are_those_of_a_scored_token_within_its_document(chunk: CorpusChunk) -> None:
    for batch in chunk.batches:
        expected = [
            (row * batch.tokens.shape[1] + column, int(batch.tokens[row, column + 1]), int(document), column)
            for row, documents in enumerate(batch.document_index)
            for column, document in enumerate(documents[:-1])
            if int(document) >= 0
            and int(documents[column + 1]) == int(document)
            and bool(batch.is_scored[row, column + 1])
        ]
        table = PredictionTable.of(batch)
        columns = (table.flat_index, table.target, table.document, table.position)
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_real_tokens_are_all_but_padding_and_scored_ones_belong_to_a_document(chunk: CorpusChunk) -> None:
    for batch in chunk.batches:
        table = TokenTable.of(batch)
        assert torch.equal(table.flat_index, batch.attention_mask.flatten().nonzero().squeeze(1))
        assert torch.equal(table.is_scored, batch.is_scored.flatten()[table.flat_index])
        assert bool((table.document[table.is_scored] >= 0).all())
        assert table.position.tolist() == (table.flat_index % batch.tokens.shape[1]).tolist()


def test_shared_quantities_of_a_site_are_their_formulas() -> None:
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = SiteMeans(torch.arange(6.0).double(), torch.full((6,), 0.1).double())
    reading = SiteReading("site", x, means)
    centred = x - x.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True)
    torch.testing.assert_close(reading.squared_norm, (x**2).sum(1))
    torch.testing.assert_close(reading.centred_squared_norm, (centred**2).sum(1))
    torch.testing.assert_close(reading.raw_baseline, ((x - means.raw) ** 2).sum(1))
    torch.testing.assert_close(reading.unit_baseline, ((unit - means.unit) ** 2).sum(1))


@pytest.mark.parametrize("width", [2, 33, 768, 2304, 8191])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_components_have_no_direction_however_their_mean_is_rounded(
    width: int, dtype: torch.dtype
) -> None:
    equal = torch.tensor([0.1, -1e-3, 1 / 3, 7e4, 0.0, 1e-20]).unsqueeze(1).expand(-1, width).to(dtype)
    assert not bool(has_direction(equal).any())
    other = equal.clone()
    other[:, 0] = other[:, 0] * 1.01 + 1e-19
    assert bool(has_direction(other)[:4].all())


def test_a_token_without_direction_has_no_baseline_in_the_papers_space() -> None:
    x = torch.full((1, 33), 0.1)
    reading = SiteReading("site", x, SiteMeans(torch.zeros(33), torch.full((33,), 0.1)))
    assert float(reading.centred_squared_norm[0]) > 0  # rounding only
    assert reading.unit_baseline.tolist() == [0.0]


def test_activations_that_are_not_finite_are_refused_with_place_and_remedy() -> None:
    x = torch.zeros(2, 3)
    reading = SiteReading("blocks.0.hook_resid_post", x, SiteMeans(torch.zeros(3), torch.zeros(3)))
    reading.check_finite("chunk 4, batch 2")
    x[1, 2] = torch.inf
    with pytest.raises(
        SubjectError, match=r"site blocks\.0\.hook_resid_post, chunk 4, batch 2: activations are not"
    ):
        reading.check_finite("chunk 4, batch 2")
