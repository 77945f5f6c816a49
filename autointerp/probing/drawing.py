"""Draws by hash: the same seed and names give the same choice in every run, order and process."""

import hashlib

import numpy as np
from jaxtyping import Bool, Int, Shaped

__all__ = ["TEST_FRACTION", "hash_of", "is_test_group", "mixed", "ranks_within"]

TEST_FRACTION = 0.4
"""Share of groups that test: so many that a loss is told well, so few that a probe is fitted well."""


def hash_of(*parts: object) -> int:
    """63 bits of the SHA-256 of the parts."""
    content = "\0".join(str(part) for part in parts).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def is_test_group(group: str) -> bool:
    """Whether a group tests: by its hash alone, so for all tasks and seeds alike; about 40 % do."""
    return hash_of("probe split", group) / 2**63 < TEST_FRACTION


def mixed(
    keys: Int[np.ndarray, " candidate"], further: Int[np.ndarray, " candidate"]
) -> Shaped[np.ndarray, " candidate"]:
    """A pseudo-random 64-bit number for every pair of integers (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        state = keys.astype(np.uint64) + (further.astype(np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def ranks_within(
    columns: tuple[Int[np.ndarray, " candidate"] | Bool[np.ndarray, " candidate"], ...],
    order: Shaped[np.ndarray, " candidate"],
) -> Int[np.ndarray, " candidate"]:
    """Each candidate's place, from 0, among those that agree with it in all columns, by `order`."""
    count = len(order)
    rank = np.zeros(count, dtype=np.int64)
    if not count:
        return rank
    by = np.lexsort((order, *columns))
    is_new = np.zeros(count, dtype=bool)
    is_new[0] = True
    for column in columns:
        placed = column[by]
        is_new[1:] |= placed[1:] != placed[:-1]
    starts = np.flatnonzero(is_new)
    rank[by] = np.arange(count) - np.repeat(starts, np.diff([*starts, count]))
    return rank
