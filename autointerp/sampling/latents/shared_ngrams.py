"""Examples -> those that would show an explainer text from around a scored peak, and a refusal to store them.

Documents are divided as wholes, but passages are quoted and boilerplate is copied. So a second rule stands
above the division: no 16 tokens around a scored peak of a latent stand in a context kept for explaining it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Int64, UInt64

from autointerp.errors import RunStoreError
from autointerp.sampling.samplers.hashing import hashed
from autointerp.sampling.samplers.sampler import SPLITS
from autointerp.sampling.samplers.sorting import run_starts
from autointerp.sampling.samplers.text_places import TextPlaces

__all__ = ["LEAK_SCHEMA", "NGRAM", "leaks", "ngram_hashes", "refuse_leaks"]

NGRAM = 16
"""Tokens in a row that make two texts share a passage."""

LEAK_SCHEMA = {"latent": pl.UInt32, "split": pl.UInt8, "context": pl.UInt64}
"""Examples to drop: all of this latent in this context, which stands on this side."""

_EXPLAIN, _VALIDATE, _SCORE = range(len(SPLITS))
_BASE = 0x9E3779B97F4A7C13
"""Odd, so it has an inverse; 3 modulo 8, so no two of the powers within an n-gram agree in many low bits."""
_INVERSE = pow(_BASE, -1, 2**64)
_SALT = "ngram"
_BLOCK = 1 << 20
"""Tokens, or matches, that are worked on at a time."""
_SHOWN = 3
_INT_BITS = 63


def ngram_hashes(
    tokens: Int[np.ndarray, " token"], lengths: Int[np.ndarray, " context"], *, length: int = NGRAM
) -> tuple[UInt64[np.ndarray, " ngram"], Int64[np.ndarray, " offset"]]:
    """64-bit hashes of every `length` tokens in a row, context by context.

    h(t_1 .. t_w) = mix(w, sum_k mix(t_k) B^k) modulo 2^64, from prefix sums, so the cost is that of the
    tokens whatever `length` is. Equal n-grams have equal hashes in every process and on every platform, and a
    hash does not depend on which contexts are handed in together. Two different n-grams of at most 16 tokens
    share one with a probability of at most about 2^-58; then an example goes that need not.

    Args:
        tokens: of all contexts, one after another; text only, without BOS.
        lengths: tokens of each context, >= 0; they sum up to all tokens.
        length: tokens of an n-gram, >= 1.

    Returns:
        The hashes in reading order, and where each context's begin, with their number at the end. A context
        of n tokens has n - length + 1 of them. A shorter one has a single one, the whole of it, which equals
        only an equally short whole; an empty one has none. Memory: 8 bytes per token, and 64 MiB of work.

    Raises:
        ValueError: the lengths do not sum up to the number of tokens, or `length` is below 1.
    """
    if length < 1 or int(lengths.sum()) != len(tokens) or (lengths < 0).any():
        raise ValueError(f"{len(tokens)} tokens, contexts of {int(lengths.sum())}, n-grams of {length}")
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    offsets = _offsets(_ngram_counts(lengths, length))
    hashes = np.empty(offsets[-1], dtype=np.uint64)
    for begin, end in _blocks(lengths):
        first = int(ends[begin] - lengths[begin])
        hashes[offsets[begin] : offsets[end]] = _window_hashes(
            tokens[first : int(ends[end - 1])], lengths[begin:end], length
        )
    return hashes, offsets


def leaks(examples: pl.DataFrame, contexts: pl.DataFrame, *, length: int = NGRAM) -> pl.DataFrame:
    """Examples that would give away text around a peak that is scored later.

    A context is dropped for a latent where it shares an n-gram with a later side's example of that latent,
    counting of the example only the n-grams that hold its focus:

    1. validate contexts that share one with a score example;
    2. explain contexts that share one with a score example, or with a validate example that step 1 keeps.

    So no more is dropped than must be, and what is kept has no leaks. The earlier side gives way, since it is
    the later one that a score is computed over: leaving out peaks there because of what an explainer saw
    would make the score that of a biased sample. Text shorter than an n-gram counts as a whole, so a short
    passage quoted within a longer text is not found.

    Args:
        examples: `latent`, `split` (index into SPLITS), `context`, `focus` (position in the context, BOS
            included); other columns and the order of rows do not matter. A focus before the text counts as
            its first token.
        contexts: `context`, `first_scored`, `tokens` and, where some tokens behind the first scored one are
            no text, `unscored`: of at least the contexts of the examples. Rows of equal id are one context.
            What is no text is passed over: a chat template, which all documents share, is no passage.
        length: tokens of an n-gram.

    Returns:
        LEAK_SCHEMA, sorted and without repetition. Memory: about 50 bytes per token of the examples' distinct
        contexts, 200 per example, and 100 MiB. Time: about a second per five million tokens and per million
        examples, up to ten times that where every text is around some peak.

    Raises:
        ValueError: an example's context is not among `contexts`, or its focus lies behind the context's end.
    """
    if examples.height == 0:
        return pl.DataFrame(schema=LEAK_SCHEMA)
    text = _Text.of(contexts.join(examples.select("context").unique(), on="context", how="semi"), length)
    rows = _Rows.of(examples, text)
    shared = _Shared.of(rows, text)
    return pl.concat([_block_leaks(block, shared) for block in rows.blocks(shared)]).sort(*LEAK_SCHEMA)


def refuse_leaks(examples: pl.DataFrame, contexts: pl.DataFrame) -> None:
    """Stop examples from being stored that a score could not be trusted with.

    It raises RunStoreError, not ValueError: whatever let them through, a suite's user must read in one line
    that this run directory was not written to, and why.

    Args:
        examples: as for `leaks`; `split` may also be the name of a side, as in the tables of a run.
        contexts: as for `leaks`, and with `document`, `cluster` and `split` (index or name).

    Raises:
        RunStoreError: a document or cluster stands on two sides, an example on another side than its context,
            or an explainer would see text from around a peak that is scored.
        ValueError: as `leaks`.
    """
    examples, contexts = _by_index(examples), _by_index(contexts)
    for column in ("document", "cluster"):
        sides = contexts.group_by(column).agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
        _refuse(sides.select(column).sort(column), f"a {column} stands on two sides")
    there = contexts.select("context", there="split").unique()
    moved = examples.join(there, on="context").filter(pl.col("split") != pl.col("there"))
    _refuse(
        moved.select("latent", "context").unique().sort("latent", "context"),
        "an example stands on another side than its context",
    )
    _refuse(leaks(examples, contexts), "text around a peak that is scored would be shown")


def _by_index(frame: pl.DataFrame) -> pl.DataFrame:
    if frame.schema["split"] != pl.String:
        return frame
    numbers = {name: number for number, name in enumerate(SPLITS)}
    return frame.with_columns(pl.col("split").replace_strict(numbers, return_dtype=pl.UInt8))


def _refuse(rows: pl.DataFrame, what: str) -> None:
    if rows.height == 0:
        return
    shown = "; ".join(
        ", ".join(f"{name} {value}" for name, value in row.items())
        for row in rows.head(_SHOWN).iter_rows(named=True)
    )
    raise RunStoreError(
        f"{what} ({rows.height} in all): {shown}",
        where="latents",
        remedy="nothing was written; this is an error in the program, please report it",
    )


@dataclass(frozen=True, eq=False)
class _Text:
    """The n-grams of distinct contexts, one context after another."""

    ids: pl.DataFrame
    """`context`, its place here as `row`, its `size` in tokens."""
    places: TextPlaces
    hashes: UInt64[np.ndarray, " ngram"]
    offsets: Int64[np.ndarray, " offset"]
    length: int

    @classmethod
    def of(cls, contexts: pl.DataFrame, length: int) -> "_Text":
        frame = contexts.unique("context", keep="any").sort("context")
        places = TextPlaces.of(frame)
        tokens = frame["tokens"].explode(empty_as_null=False, keep_nulls=False).to_numpy()[places.token]
        ids = frame.select("context", size=pl.col("tokens").list.len()).with_row_index("row")
        return cls(ids, places, *ngram_hashes(tokens, places.count, length=length), length)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Distinct examples, by latent."""

    latent: Int64[np.ndarray, " example"]
    split: Int64[np.ndarray, " example"]
    context: Int64[np.ndarray, " example"]
    """Its place among the contexts."""
    focus: Int64[np.ndarray, " example"]
    """In the text of the context."""

    @classmethod
    def of(cls, examples: pl.DataFrame, text: _Text) -> "_Rows":
        frame = examples.select("latent", "split", "context", "focus").join(
            text.ids, on="context", how="left"
        )
        outside = frame.filter(pl.col("row").is_null() | (pl.col("focus") >= pl.col("size")))
        if outside.height:
            raise ValueError(
                f"{outside.height} examples lie in no context, or behind its end: {outside.row(0)}"
            )
        row, focus = (frame[name].to_numpy().astype(np.int64) for name in ("row", "focus"))
        latent, split = (frame[name].to_numpy().astype(np.int64) for name in ("latent", "split"))
        return cls(*_distinct(latent, split, row, text.places.before(row, focus)))

    def blocks(self, shared: "_Shared") -> "list[_Rows]":
        """Cut between latents, so that a block's matches fit in memory. At least one."""
        cost = 1 + np.diff(shared.of_contexts(self.context)) + np.diff(shared.of_foci(self))
        begins = np.flatnonzero(np.diff(self.latent, prepend=-1))
        cuts = np.append(begins, len(self.latent))
        sizes = np.add.reduceat(cost[:, 0], begins)
        return [self._part(slice(cuts[begin], cuts[end])) for begin, end in _blocks(sizes)]

    def _part(self, rows: slice) -> "_Rows":
        return _Rows(self.latent[rows], self.split[rows], self.context[rows], self.focus[rows])


@dataclass(frozen=True, eq=False)
class _Shared:
    """The n-grams that can make a leak at all: around a later side's peak, and on an earlier side."""

    text: _Text
    numbers: Int64[np.ndarray, " entry"]
    """Which n-gram, wherever one of them occurs, in the order of the text."""
    before: Int64[np.ndarray, " place"]
    """How many of them begin before each place of the text, its end included."""
    count: int
    """Of different ones."""

    @classmethod
    def of(cls, rows: _Rows, text: _Text) -> "_Shared":
        found = [np.empty(0, dtype=np.uint64)]
        sizes = np.diff(text.offsets)
        for later in (_VALIDATE, _SCORE):
            is_earlier = np.zeros(len(sizes), dtype=bool)
            is_earlier[rows.context[rows.split < later]] = True
            peaks = np.unique(text.hashes[_is_around(rows, rows.split == later, text)])
            found.append(peaks[np.unique(_numbers(text.hashes[np.repeat(is_earlier, sizes)], peaks)[1])])
        hashes = np.unique(np.concatenate(found))
        is_shared, numbers = _numbers(text.hashes, hashes)
        return cls(text, numbers, _offsets(is_shared), len(hashes))

    def of_contexts(self, context: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, "row 2"]:
        """Where the entries of each context begin and end."""
        return self.before[self.text.offsets[np.stack([context, context + 1], axis=1)]]

    def of_foci(self, rows: _Rows) -> Int64[np.ndarray, "row 2"]:
        """Where the entries of the n-grams that hold each focus begin and end."""
        return self.before[_around(rows.context, rows.focus, self.text)]


def _around(
    context: Int64[np.ndarray, " row"], focus: Int64[np.ndarray, " row"], text: _Text
) -> Int64[np.ndarray, "row 2"]:
    """First n-gram that holds the focus, and the one behind the last. None where the context has no text."""
    size = np.diff(text.offsets)[context]
    bounds = np.stack(
        [np.minimum(np.maximum(focus - text.length + 1, 0), size), np.minimum(focus + 1, size)], axis=1
    )
    return text.offsets[context][:, None] + bounds


def _is_around(rows: _Rows, chosen: Bool[np.ndarray, " example"], text: _Text) -> Bool[np.ndarray, " ngram"]:
    """Whether each n-gram of the text holds the focus of a chosen row."""
    first, end = _around(rows.context[chosen], rows.focus[chosen], text).T
    places = len(text.hashes) + 1
    return np.cumsum(np.bincount(first, minlength=places) - np.bincount(end, minlength=places))[:-1] > 0


def _block_leaks(rows: _Rows, shared: _Shared) -> pl.DataFrame:
    """The two steps of `leaks`, for some latents."""
    split = rows.split
    is_leak = np.zeros(len(split), dtype=bool)
    for earlier in (_VALIDATE, _EXPLAIN):
        below = split == earlier
        is_leak[below] = _touches(rows, shared, below, (split > earlier) & ~is_leak)
    context = pl.Series(rows.context[is_leak], dtype=pl.UInt32)
    columns = {
        "latent": rows.latent[is_leak],
        "split": split[is_leak],
        "context": shared.text.ids["context"].gather(context),
    }
    return pl.DataFrame(columns, schema=LEAK_SCHEMA).unique()


def _touches(
    rows: _Rows, shared: _Shared, below: Bool[np.ndarray, " example"], above: Bool[np.ndarray, " example"]
) -> Bool[np.ndarray, " below"]:
    """Whether the context of each row below holds an n-gram around a focus above, of the same latent."""
    latent = np.cumsum(
        np.diff(rows.latent, prepend=rows.latent[:1]) > 0
    )  # by number, so that keys stay small
    owner, entry = _ranges(shared.of_foci(rows)[above])
    peaks = np.unique(latent[above][owner] * shared.count + shared.numbers[entry])
    owner, entry = _ranges(shared.of_contexts(rows.context[below]))
    is_peak = _numbers(latent[below][owner] * shared.count + shared.numbers[entry], peaks)[0]
    is_touched = np.zeros(int(below.sum()), dtype=bool)
    is_touched[owner[is_peak]] = True
    return is_touched


def _ranges(
    bounds: Int64[np.ndarray, "row 2"],
) -> tuple[Int64[np.ndarray, " entry"], Int64[np.ndarray, " entry"]]:
    """All numbers from each row's first to before its second, and the row of each."""
    begin, end = bounds.T
    counts = end - begin
    owner = np.repeat(np.arange(len(begin)), counts)
    return owner, np.arange(len(owner)) + (begin - _offsets(counts)[:-1])[owner]


def _distinct(*columns: Int64[np.ndarray, " row"]) -> list[Int64[np.ndarray, " distinct"]]:
    """Distinct rows of numbers from 0 on, sorted: each row as one number, where that has enough bits."""
    widths = [int(column.max(initial=0)).bit_length() for column in columns]
    if sum(widths) >= _INT_BITS:
        rows = np.unique(np.stack(columns, axis=1), axis=0)
        return list(rows.T)
    packed = np.zeros(len(columns[0]), dtype=np.int64)
    for column, width in zip(columns, widths, strict=True):
        packed = packed << width | column
    packed.sort()
    packed = packed[run_starts(packed)]
    found = []
    for width in reversed(widths):
        found.append(packed & (2**width - 1))
        packed = packed >> width
    return found[::-1]


def _numbers(
    values: np.ndarray, known: np.ndarray
) -> tuple[Bool[np.ndarray, " value"], Int64[np.ndarray, " found"]]:
    """Whether each value is among the known ones, which ascend; and of those that are, which it is."""
    is_known = np.zeros(len(values), dtype=bool)
    found = [np.empty(0, dtype=np.int64)]
    for begin in range(0, len(values) if len(known) else 0, _BLOCK):
        part = values[begin : begin + _BLOCK]
        place = np.minimum(np.searchsorted(known, part), len(known) - 1)
        is_known[begin : begin + _BLOCK] = hit = known[place] == part
        found.append(place[hit])
    return is_known, np.concatenate(found)


def _ngram_counts(lengths: Int64[np.ndarray, " context"], length: int) -> Int64[np.ndarray, " context"]:
    return np.maximum(lengths - length + 1, np.minimum(lengths, 1))


def _window_hashes(
    tokens: np.ndarray, lengths: Int64[np.ndarray, " context"], length: int
) -> UInt64[np.ndarray, " ngram"]:
    """Those of contexts that are handled together."""
    begin = np.cumsum(lengths) - lengths
    owner, start = _ranges(np.stack([begin, begin + _ngram_counts(lengths, length)], axis=1))
    width = np.minimum(lengths, length)[owner]
    prefix = np.zeros(len(tokens) + 1, dtype=np.uint64)
    np.cumsum(hashed(0, _SALT, tokens) * _powers(_BASE, len(tokens)), out=prefix[1:])
    sums = (prefix[start + width] - prefix[start]) * _powers(_INVERSE, len(tokens))[start]
    return hashed(0, _SALT, width, sums)


def _powers(base: int, count: int) -> UInt64[np.ndarray, " power"]:
    """1, base, base^2 .. modulo 2^64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)


def _offsets(counts: np.ndarray) -> Int64[np.ndarray, " offset"]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _blocks(sizes: Int64[np.ndarray, " row"]) -> list[tuple[int, int]]:
    """Rows in a row whose sizes sum up to less than two blocks; one that is larger stands alone with few."""
    if not len(sizes):
        return []
    block = (np.cumsum(sizes) - sizes) // _BLOCK
    cuts = [*np.flatnonzero(np.diff(block, prepend=-1)).tolist(), len(sizes)]
    return list(pairwise(cuts))
