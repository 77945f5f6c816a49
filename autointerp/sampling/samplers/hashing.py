"""(seed, salt, integer columns) -> 64-bit hashes and uniform numbers, the same in every process.

The chain is the finaliser of splitmix64 (Steele, Lea, Flood 2014; constants of Stafford's variant 13), once
per column. It scatters well; it is no cryptographic hash.
"""

import hashlib

import numpy as np
from jaxtyping import Float64, Integer, UInt64

__all__ = ["hashed", "text_hash", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def text_hash(text: str) -> int:
    """The first 64 bits of BLAKE2b over the text in UTF-8: 0 <= hash < 2**64, stable across processes."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def hashed(seed: int, salt: str, *columns: Integer[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """One hash per row of the columns, h <- mix((h xor column) + golden ratio) from left to right.

    The first h comes from the seed and the salt, which is the sampler's name, so that neither two samplers
    nor two seeds draw alike. Columns broadcast against each other: `latent[:, None], context[None, :]` gives
    all pairs at the price of one mix each. Negative numbers count modulo 2**64. Cost: about ten passes over
    the result; memory: twice the result.
    """
    state = np.full(1, text_hash(f"{seed}\0{salt}"), dtype=np.uint64)
    for column in columns:
        state = _mixed(np.bitwise_xor(state, np.atleast_1d(column).astype(np.uint64, copy=False)))
    return state


def _mixed(state: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Change the array in place. uint64 arrays wrap around, which is what is wanted."""
    state += np.uint64(_GOLDEN)
    state ^= state >> np.uint64(30)
    state *= np.uint64(_FIRST)
    state ^= state >> np.uint64(27)
    state *= np.uint64(_SECOND)
    state ^= state >> np.uint64(31)
    return state


def uniform(hashes: UInt64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """The upper 52 bits as a number in the open interval (0, 1): (h >> 12 + 1/2) / 2**52.

    With 53 bits the largest would round to 1.
    """
    numbers = (hashes >> np.uint64(12)).astype(np.float64)
    numbers += 0.5
    numbers *= 2.0**-52
    return numbers
