"""The three sparse products against dense matrix products."""

import pytest
import torch

from autointerp.training.sparse_products import row_products, transposed_row_sums, weighted_row_sums


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(11, 5, generator=generator)
    indices = torch.stack([torch.randperm(11, generator=generator)[:3] for _ in range(7)])
    weights = torch.randn(7, 3, generator=generator)
    vectors = torch.randn(7, 5, generator=generator)
    dense = torch.zeros(7, 11).scatter_(1, indices, weights)
    return rows, indices, weights, vectors, dense


def test_weighted_row_sums_are_the_dense_product(case):
    rows, indices, weights, _, dense = case
    torch.testing.assert_close(weighted_row_sums(rows, indices, weights), dense @ rows)


def test_row_products_are_the_dense_products_at_the_indices(case):
    rows, indices, _, vectors, _ = case
    torch.testing.assert_close(row_products(rows, indices, vectors), (vectors @ rows.T).gather(1, indices))


def test_transposed_row_sums_are_the_transposed_dense_product(case):
    _, indices, weights, vectors, dense = case
    torch.testing.assert_close(transposed_row_sums(vectors, indices, weights, 11), dense.T @ vectors)


def test_latents_that_no_token_names_get_rows_of_zeros():
    sums = transposed_row_sums(torch.ones(2, 3), torch.tensor([[1], [1]]), torch.tensor([[2.0], [3.0]]), 4)
    assert sums.tolist() == [[0.0] * 3, [5.0] * 3, [0.0] * 3, [0.0] * 3]


def test_products_are_the_same_bit_for_bit_when_repeated(case):
    _, indices, weights, vectors, _ = case
    first = transposed_row_sums(vectors, indices, weights, 11)
    assert all(torch.equal(first, transposed_row_sums(vectors, indices, weights, 11)) for _ in range(3))
