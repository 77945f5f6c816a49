"""Sums whose bits do not depend on the order of what is summed."""

import math

import numpy as np
from jaxtyping import Float
from scipy import sparse

__all__ = ["exact_group_sums", "fixed_point", "sum_by"]


def fixed_point(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Values rounded to multiples of one power of two, so coarse that sums of them are exact.

    A bootstrap sums each of n values at most n times in all, so 53 bits less log2 n remain for the largest of
    them (43 for a thousand documents). Exact sums do not depend on order, on threads, nor on how a matrix
    product blocks its work: that is what makes intervals repeatable to the bit.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return values
    bits = 52 - math.ceil(math.log2(len(values) + 1)) - math.frexp(largest)[1]
    return np.ldexp(np.rint(np.ldexp(values, bits)), -bits)


def sum_by(
    values: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    """Matrix of the sums of values that share a row and a column; exact for fixed-point values."""
    matrix = sparse.coo_array((values, (row, column)), shape=shape).tocsr()
    matrix.sum_duplicates()
    return matrix


def exact_group_sums(values: np.ndarray, group: np.ndarray, group_count: int) -> np.ndarray:
    """Correctly rounded sum of each group; groups are numbered from 0 and none is empty."""
    order = np.argsort(group, kind="stable")
    parts = np.split(values[order], np.searchsorted(group[order], np.arange(1, group_count)))
    return np.array([math.fsum(part) for part in parts])
