"""Documents -> MinHash signatures -> clusters of near-duplicates, which a division must not cut through.

Two documents are near-duplicates where their sets of 5-token shingles are similar in the sense of Jaccard,
|A and B| / |A or B|. A signature is 64 minima of the set, each under another order of all shingles; two
signatures agree in an entry with probability equal to that similarity (Broder 1997, "On the resemblance and
containment of documents").
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int64, UInt32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from autointerp.sampling.latents.shared_ngrams import ngram_hashes

__all__ = ["CLUSTER_SCHEMA", "PERMUTATIONS", "SHINGLE", "clusters", "signatures"]

SHINGLE = 5
"""Tokens in a row that are one element of a document's set."""
PERMUTATIONS = 64
"""Entries of a signature. A similarity s is estimated within sqrt(s (1 - s) / 64), so about 0.06."""

CLUSTER_SCHEMA = {"document": pl.String, "cluster": pl.String}
"""Every document once, with the smallest id among its near-duplicates, itself included."""

_ROWS = 2
_BANDS = PERMUTATIONS // _ROWS
_NEIGHBOURS = 8
_PAIRS_AT_ONCE = 1 << 15
_NO_TEXT = np.uint32(2**32 - 1)


def signatures(
    tokens: Int64[np.ndarray, " token"], document: Int64[np.ndarray, " token"], document_count: int
) -> UInt32[np.ndarray, "document 64"]:
    """MinHash signatures of documents over their sets of 5-token shingles.

    Entry i is the smallest floor(((a_i h + b_i) mod 2^64) / 2^32) over the 64-bit hashes h of the shingles,
    for fixed odd a_i and fixed b_i. So it is the same in every process and on every platform, and does not
    depend on the documents that are handed in together.

    Args:
        tokens: text of all documents, in reading order.
        document: number of each token's document, 0 <= number < document_count; it never descends.
        document_count: rows of the result.

    Returns:
        One row per document. A document shorter than a shingle has one shingle, all of it. One without tokens
        has all entries 2^32 - 1, the minimum of nothing, and is a near-duplicate of no other. Memory: 256
        bytes per document, 16 per token, and 64 MiB. Time: about 0.2 s per million tokens.
    """
    lengths = np.bincount(document, minlength=document_count)
    hashes, offsets = ngram_hashes(tokens, lengths, length=SHINGLE)
    found = np.full((document_count, PERMUTATIONS), _NO_TEXT, dtype=np.uint32)
    has_text = lengths > 0
    if has_text.any():
        begins = offsets[:-1][has_text]
        permuted = np.empty_like(hashes)
        for column, (factor, shift) in enumerate(_permutations()):
            np.multiply(hashes, factor, out=permuted)
            permuted += shift
            # The upper half of the smallest is the smallest upper half.
            found[has_text, column] = np.minimum.reduceat(permuted, begins) >> np.uint64(32)
    return found


def clusters(
    frame: pl.DataFrame, *, linked: pl.DataFrame | None = None, least_similarity: float = 0.5
) -> pl.DataFrame:
    """Documents joined with their near-duplicates, and with theirs in turn.

    Candidates are documents whose signatures agree in one of 32 bands of 2 entries, so a pair of similarity s
    is one with probability 1 - (1 - s^2)^32. A candidate is joined where a share of at least
    `least_similarity` of all 64 entries agrees, which for 0.5 decides nearly alone:

        similarity    .2     .3     .4     .5      .6      .7      .8
        a candidate  .729   .951   .996   .9999   1       1       1
        joined       8e-8   6e-4   .067   .55     .960    .9997   1

    In a bucket of up to 9 documents all pairs are looked at. In a larger one each document is looked at with
    the one of smallest id and with the 8 before it by id, so that the work does not grow with the square of
    the bucket. What is given up: two similar documents stay apart if in each bucket that they share (about
    32 s^2 of them) more than 9 documents are, with 8 or more of them between the two by id, and no chain of
    similar documents leads from one to the other. That takes much boilerplate in much text.

    Args:
        frame: `document` (id) and `signature` (Array or List of 64 UInt32, see `signatures`), in any order.
            Rows of one id are one document, of all their shingles.
        linked: pairs `document`, `other` that are always joined, such as of documents that share a context;
            they need not be in `frame`.
        least_similarity: in (0, 1]; share of equal entries from which on two documents are joined.

    Returns:
        CLUSTER_SCHEMA, sorted by document. Memory: about 0.6 KiB per document beside the frame. Time: about
        10 s per million documents.

    Raises:
        ValueError: `least_similarity` is not in (0, 1].
    """
    if not 0 < least_similarity <= 1:
        raise ValueError(f"least_similarity = {least_similarity} does not lie in (0, 1]")
    pairs = pl.DataFrame(schema={"document": pl.String, "other": pl.String}) if linked is None else linked
    named = pl.concat([frame["document"], pairs["document"], pairs["other"]]).unique().sort()
    documents = named.rename("document").to_frame().with_row_index("number")
    number, signature = _merged(_numbers(frame["document"], documents), frame["signature"])
    least = math.ceil(least_similarity * PERMUTATIONS)  # exact, as 64 is a power of two
    joining = _Joining(np.arange(len(named)), number, signature, least)
    joining.join(_numbers(pairs["document"], documents), _numbers(pairs["other"], documents))
    for band in range(_BANDS):
        joining.join_band(band)
    first = np.unique(joining.label, return_index=True)[1]  # ids ascend, so the first is the smallest
    cluster = named.gather(pl.Series(first[joining.label], dtype=pl.UInt32))
    return pl.DataFrame({"document": named, "cluster": cluster}, schema=CLUSTER_SCHEMA)


@dataclass
class _Joining:
    """Documents with text, and which of all documents are joined so far."""

    label: Int64[np.ndarray, " all"]
    """By number of the document; the same for joined ones, from 0 without gaps."""
    number: Int64[np.ndarray, " document"]
    """Of the documents with text; ascends, as ids do."""
    signature: UInt32[np.ndarray, "document 64"]
    least: int
    """Equal entries from which on two are joined."""

    def join_band(self, band: int) -> None:
        """Join documents that agree in one band, and then in enough entries."""
        key = np.ascontiguousarray(self.signature[:, band * _ROWS : (band + 1) * _ROWS]).view(np.uint64)[:, 0]
        order = np.argsort(key, kind="stable")
        key = key[order]
        place = np.arange(len(key))
        head = np.searchsorted(key, key)
        for back in range(1, min(_NEIGHBOURS, len(key) - 1) + 1):
            here = place[back:][key[back:] == key[:-back]]
            self._join_similar(order[here], order[here - back])
        here = place[place - head > _NEIGHBOURS]
        self._join_similar(order[here], order[head[here]])

    def _join_similar(self, one: Int64[np.ndarray, " pair"], other: Int64[np.ndarray, " pair"]) -> None:
        """Join the pairs of documents with text that agree in enough entries."""
        for begin in range(0, len(one), _PAIRS_AT_ONCE):
            pair = np.stack([one[begin : begin + _PAIRS_AT_ONCE], other[begin : begin + _PAIRS_AT_ONCE]])
            label = self.label[self.number[pair]]
            first, second = pair[:, label[0] != label[1]]
            equal = np.count_nonzero(self.signature[first] == self.signature[second], axis=1)
            self.join(self.number[first[equal >= self.least]], self.number[second[equal >= self.least]])

    def join(self, one: Int64[np.ndarray, " pair"], other: Int64[np.ndarray, " pair"]) -> None:
        """Join the two of each pair, by number."""
        if not len(one):
            return
        count = int(self.label.max()) + 1
        graph = coo_array((np.ones(len(one)), (self.label[one], self.label[other])), shape=(count, count))
        self.label = connected_components(graph, directed=False)[1].astype(np.int64)[self.label]


def _merged(
    number: Int64[np.ndarray, " row"], signature: pl.Series
) -> tuple[Int64[np.ndarray, " document"], UInt32[np.ndarray, "document 64"]]:
    """The documents with text and one signature of each: the minimum of several is that of all their text."""
    rows = signature.cast(pl.Array(pl.UInt32, PERMUTATIONS)).to_numpy().reshape(-1, PERMUTATIONS)
    has_text = (rows != _NO_TEXT).any(axis=1)
    order = np.flatnonzero(has_text)[np.argsort(number[has_text], kind="stable")]
    number, begins = np.unique(number[order], return_index=True)
    if not len(begins):
        return number, np.empty((0, PERMUTATIONS), dtype=np.uint32)
    return number, np.minimum.reduceat(rows[order], begins, axis=0)


def _numbers(ids: pl.Series, documents: pl.DataFrame) -> Int64[np.ndarray, " row"]:
    """The place of each id among the documents."""
    found = (
        ids.rename("document").to_frame().join(documents, on="document", how="left", maintain_order="left")
    )
    return found["number"].to_numpy().astype(np.int64)


def _permutations() -> list[tuple[np.uint64, np.uint64]]:
    """Factors, odd, and shifts: fixed numbers that nobody chose."""
    stream = hashlib.shake_128(b"orders of shingles").digest(16 * PERMUTATIONS)
    numbers = np.frombuffer(stream, dtype="<u8").astype(np.uint64).reshape(PERMUTATIONS, 2)
    return [(factor | np.uint64(1), shift) for factor, shift in numbers]
