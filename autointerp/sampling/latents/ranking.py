"""A matrix -> the largest entries of each row in order, ties to the lowest column."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from autointerp.checkpoints.topk_functions import largest_indices

__all__ = ["Largest", "largest_of"]


class Largest(NamedTuple):
    """Per row the largest entries, the largest first; equal ones by column."""

    values: Float[Tensor, "row rank"]
    columns: Int[Tensor, "row rank"]


def largest_of(matrix: Float[Tensor, "row column"], count: int) -> Largest:
    """The `count` largest entries of each row, or all of them where a row is shorter."""
    columns = largest_indices(matrix, min(count, matrix.shape[1]))
    values, order = matrix.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return Largest(values, columns.gather(1, order))
