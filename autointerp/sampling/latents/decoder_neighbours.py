"""A dictionary -> for chosen latents the others whose decoder directions point most nearly the same way."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import isqrt

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.sampling.latents.ranking import Entries, Shortlist, largest_of, places_by_row

__all__ = ["DECODER_NEIGHBOURS_SCHEMA", "decoder_directions", "nearest_latents"]

DECODER_NEIGHBOURS_SCHEMA = {
    "latent": pl.UInt32,
    "rank": pl.UInt32,  # from 0
    "other": pl.UInt32,
    "value": pl.Float64,  # cosine, in [-1, 1]
}

_BLOCK_BYTES = 4 * 2**20
_CROWDED = 8  # one in so many entries of a block passes: then all its cosines are computed exactly
_LEAST_LIMIT = 2**20  # candidates
_LEAST_LOWERED = 4096  # latents: with fewer, more candidates cost more than faster products save
_LOWERED_RESULT = 1.01 * 2.0**-8  # of a number in bfloat16: by how much rounding to it changed it, at most
_LEAST_SIDE, _LEAST_WIDTH = 256, 64  # of a product in bfloat16


def decoder_directions(sae: SparseAutoencoder, latents: Sequence[int]) -> Float[Tensor, "chosen d_out"]:
    """What a unit of activation of each latent adds to the reconstruction: its decoder's row over its scale.

    In float32 where the dictionary computes, and in the space of the site (of a transcoder the one that it
    predicts), where one factor leads there: normalisation `scale` is undone. A factor that differs by token
    (layer_norm, constant_norm) has no one value to divide by, and stays. Memory: the result.

    Raises:
        ValueError: there is no such latent.
    """
    chosen = _checked(sae, latents)
    rows = sae.decoder_weight[chosen.to(sae.decoder_weight.device)].detach().to(sae.device, torch.float32)
    if sae.latent_scale is not None:
        rows = rows / sae.latent_scale[chosen.to(sae.device), None].float()
    return rows / sae.normalization.output_scale


@torch.no_grad()
def nearest_latents(
    sae: SparseAutoencoder, latents: Sequence[int], *, count: int = 10, block_bytes: int = _BLOCK_BYTES
) -> pl.DataFrame:
    """The latents with the largest cosine between their decoder's direction and each chosen one's.

        cos(i, j) = <W_dec[i], W_dec[j]> / (|W_dec[i]| |W_dec[j]|),  in [-1, 1]

    All pairs are looked at, none is approximated; the latent itself is left out. Scales of latents make no
    difference. A direction that is zero, or not finite, has no neighbours and is nobody's neighbour. For a
    transcoder these are the directions that it writes, at the site it predicts, not those that it reads.

    Products in float32 find the candidates: all pairs that can be among the first `count` by a bound on the
    error of such a product (`_error`). Among very many chosen ones products in bfloat16 come first where the
    processor has units for that, with their wider bound: they are several times as fast. Only the cosines of
    candidates are summed in float64, each on its own, and rounded to float32, so that equal directions tie
    wherever they lie in a block; ties go to the lowest index.

    Cost: 2 chosen x latents x d_out flops in float32, and half of that among the chosen themselves; a little
    over `count` sums in float64 per chosen latent, or more where more directions are nearly equal. A decoder
    in a file is read once from end to end, chosen rows first, and then the rows of candidates. Memory: chosen
    x d_out in float32, and half as much in bfloat16, 20 to 60 bytes per candidate (at most 2 chosen x count
    and 2**20 of them, and a block's), and a few arrays of `block_bytes` and of a block's rows of directions
    in float64.

    Args:
        sae: the dictionary.
        latents: the chosen ones.
        count: how many neighbours of each; there are fewer where the dictionary has no more.
        block_bytes: of a square block of cosines in float32.

    Returns:
        By chosen latent, in the order given, and rank: DECODER_NEIGHBOURS_SCHEMA.

    Raises:
        ValueError: there is no such latent, or `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}, it must be at least 1")
    chosen = _checked(sae, latents)
    search = _Search(sae, chosen.unique(), count, side=max(1, isqrt(block_bytes // 4)))
    return _frame(chosen, search.nearest())


def _checked(sae: SparseAutoencoder, latents: Sequence[int]) -> Int[Tensor, " chosen"]:
    chosen = torch.tensor(list(latents), dtype=torch.long)
    outside = chosen[(chosen < 0) | (chosen >= sae.latent_count)]
    if outside.numel():
        raise ValueError(f"there is no latent {int(outside[0])} among {sae.latent_count}")
    return chosen


class _Search:
    """For some distinct latents the nearest ones."""

    def __init__(
        self, sae: SparseAutoencoder, latents: Int[Tensor, " chosen"], count: int, *, side: int
    ) -> None:
        self._sae, self._count, self._side = sae, count, side
        blocks = [_directions(sae, block) for block in latents.split(side)]
        self._latents = torch.cat([latents[:0], *(found for found, _ in blocks)])
        self._rough = torch.cat([torch.zeros(0, sae.d_out), *(unit.float().cpu() for _, unit in blocks)])
        self._rough = self._rough.to(_device(sae))
        is_other = torch.ones(sae.latent_count, dtype=torch.bool)
        is_other[latents] = False
        self._others = is_other.nonzero().squeeze(1)
        row_count = len(self._latents)
        self._limit = 2 * row_count * count + _LEAST_LIMIT
        self._low = self._rough.bfloat16() if self._is_lowered() else None
        if self._low is None:
            self._shortlist = self._new_shortlist(_error(sae.d_out))
        else:
            error = _error(sae.d_out) + _lowering_error(self._rough.split(side), self._low.split(side))
            self._shortlist = self._new_shortlist(error, relative=_LOWERED_RESULT)

    def _new_shortlist(self, error: float, *, relative: float = 0.0) -> Shortlist:
        return Shortlist(
            len(self._latents),
            count=self._count,
            error=error,
            relative=relative,
            limit=self._limit,
            device=self._rough.device,
        )

    def _is_lowered(self) -> bool:
        is_large = self._side >= _LEAST_SIDE and self._rough.shape[1] >= _LEAST_WIDTH
        return is_large and len(self._latents) >= _LEAST_LOWERED and _has_bfloat16(self._rough.device)

    def nearest(self) -> Entries:
        """At most `count` entries of each latent, the nearest first: rows and columns are latents."""
        if not len(self._latents):  # and so no block either
            none = torch.zeros(0, dtype=torch.long)
            return Entries(none, none, torch.zeros(0))
        self._compare_chosen()
        if self._low is not None:
            self._refine()
        self._compare_others()
        rows, columns, values = (part.cpu() for part in self._settled())
        return Entries(self._latents[rows], columns, values)

    def _compare_chosen(self) -> None:
        """With one another: a block of cosines serves the latents of its rows and those of its columns."""
        starts = range(0, len(self._latents), self._side)
        for start in starts:  # these first, as they give each row something to beat
            block = self._products_of_chosen(start, start)
            self._take(block.fill_diagonal_(-3.0), start, self._latents[start : start + self._side])
        # Neighbouring blocks first: each row then gets more to beat before most blocks are gone through.
        for start, other in sorted(combinations(starts, 2), key=lambda pair: pair[1] - pair[0]):
            block = self._products_of_chosen(start, other)
            self._take(block, start, self._latents[other : other + self._side])
            self._take(block.T, other, self._latents[start : start + self._side])

    def _refine(self) -> None:
        """Candidates among the chosen by products in bfloat16 -> those by products in float32."""
        entries, self._low = self._shortlist.shortened(), None
        order = np.argsort((entries.rows * self._sae.latent_count + entries.columns).numpy())
        entries = entries.at(torch.from_numpy(order))
        places = torch.searchsorted(self._latents, entries.columns)
        values = _products_at(self._rough, entries.rows, places)
        self._shortlist = self._new_shortlist(_error(self._rough.shape[1]))
        self._shortlist.add(entries._replace(values=values))

    def _compare_others(self) -> None:
        for others in self._others.split(self._side):
            latents, unit = _directions(self._sae, others)
            for start in range(0, len(self._latents), self._side) if len(latents) else ():
                self._take(self._products(start, unit.float()), start, latents)

    def _products(
        self, start: int, directions: Float32[Tensor, "column d_out"]
    ) -> Float32[Tensor, "row column"]:
        return self._rough[start : start + self._side] @ directions.T

    def _products_of_chosen(self, start: int, other: int) -> Float[Tensor, "row column"]:
        """Of two blocks; in bfloat16 where that is fast, for which they must be large."""
        if self._low is None:
            return self._products(start, self._rough[other : other + self._side])
        rows, columns = (self._low[first : first + self._side] for first in (start, other))
        if min(len(rows), len(columns)) < _LEAST_SIDE:
            return rows.float() @ columns.float().T
        return rows @ columns.T

    def _take(self, block: Float[Tensor, "row column"], start: int, columns: Int[Tensor, " column"]) -> None:
        """Note what can be among the first of the rows that begin at `start`."""
        row, column = self._shortlist.passing(block, start)
        if len(row) * _CROWDED > block.numel():
            row, column = self._largest(start, columns)
        values = block[row, column].float()
        self._shortlist.add(Entries(row + start, columns.to(column.device)[column], values))
        if self._shortlist.is_full() and len(self._shortlist.shortened().rows) > self._limit * 3 // 4:
            self._shortlist.replace(self._settled())

    def _largest(
        self, start: int, columns: Int[Tensor, " column"]
    ) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
        """Row and column of the first `count` of each row of a block, where very many are nearly equal."""
        latents = self._latents[start : start + self._side]
        _, rows = _directions(self._sae, latents)
        _, others = _directions(self._sae, columns)
        is_itself = (latents[:, None] == columns).to(rows.device)
        cosines = (rows @ others.T).float().masked_fill_(is_itself, -torch.inf)
        best = largest_of(cosines, self._count)
        row, rank = best.values.isfinite().nonzero(as_tuple=True)
        return row, best.columns[row, rank]

    def _settled(self) -> Entries:
        """The shortlist with exact cosines, cut to the first `count` of each row."""
        rough = self._shortlist.shortened()
        values = [self._cosines(rows, columns) for rows, columns in self._parts(rough)]
        order = rough.columns.argsort()
        exact = Entries(rough.rows, rough.columns, torch.cat([rough.values[:0], *values])).at(order)
        exact = exact.in_order()
        return exact.at(places_by_row(exact.rows, len(self._latents)) < self._count)

    def _parts(self, entries: Entries) -> Iterator[tuple[Int[Tensor, " part"], Int[Tensor, " part"]]]:
        # No more, so that what is made of them stays in the cache.
        parts = (indices.cpu().split(self._side) for indices in (entries.rows, entries.columns))
        return zip(*parts, strict=True)

    def _cosines(self, rows: Int[Tensor, " pair"], columns: Int[Tensor, " pair"]) -> Float32[Tensor, " pair"]:
        """Each summed on its own, so that it does not depend on what it is computed with."""
        left, right = self._gathered(self._latents[rows]), self._gathered(columns)
        if left.is_cpu:
            return torch.from_numpy(np.einsum("ij,ij->i", left.numpy(), right.numpy()).astype(np.float32))
        return left.mul_(right).sum(dim=1).float()

    def _gathered(self, latents: Int[Tensor, " pair"]) -> Float64[Tensor, "pair d_out"]:
        distinct, place = latents.unique(return_inverse=True)
        _, unit = _directions(self._sae, distinct)
        return torch.from_numpy(unit.numpy()[place.numpy()]) if unit.is_cpu else unit[place.to(unit.device)]


def _directions(
    sae: SparseAutoencoder, latents: Int[Tensor, " latent"]
) -> tuple[Int[Tensor, " found"], Float64[Tensor, "found d_out"]]:
    """Those latents that have a direction, and the decoder's rows over their lengths."""
    rows, length = _rows_and_lengths(sae, latents)
    has_direction = length.isfinite() & (length > 0)
    if has_direction.all():
        return latents, rows
    return latents[has_direction.cpu()], rows[has_direction]


def _rows_and_lengths(
    sae: SparseAutoencoder, latents: Int[Tensor, " latent"]
) -> tuple[Float64[Tensor, "latent d_out"], Float64[Tensor, " latent"]]:
    """The decoder's rows over their lengths, and these.

    In main memory by NumPy's single thread: the pieces are small, and torch's threads wait for one another
    at each step, above all on a busy machine.
    """
    weight = sae.decoder_weight.detach()
    if not (weight.is_cpu and _device(sae).type == "cpu"):
        rows = weight[latents.to(weight.device)].to(_device(sae), torch.float64)
        length = rows.norm(dim=1)
        return rows.div_(length[:, None]), length
    if weight.dtype == torch.bfloat16:  # which NumPy has not
        numbers = weight[latents].to(torch.float64).numpy()
    else:
        numbers = weight.numpy()[latents.numpy()].astype(np.float64)
    with np.errstate(all="ignore"):  # directions that are zero or not finite are left out
        length = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
        numbers /= length[:, None]
    return torch.from_numpy(numbers), torch.from_numpy(length)


def _device(sae: SparseAutoencoder) -> torch.device:
    # Apple's GPUs have no float64.
    return torch.device("cpu") if sae.device.type == "mps" else sae.device


def _error(width: int) -> float:
    """By how much a float32 product of two unit vectors can be off, in whatever order it is summed.

    With u = 2**-24: width u |a| |b| for the sum (Higham, "Accuracy and stability of numerical algorithms",
    section 3.1), and a few u for the rounding of the vectors and of the exact cosine. Where the process lets
    float32 products run in bfloat16 or TF32, inputs are off by a relative 2**-9 each.
    """
    rounding = (1.01 * width + 8) * 2.0**-24
    return rounding if torch.get_float32_matmul_precision() == "highest" else rounding + 2.0**-7


def _lowering_error(rough: Sequence[Tensor], low: Sequence[Tensor]) -> float:
    """By how much rounding unit vectors a and b to bfloat16 can change their product, at most.

    With errors d and e of the two it is |<d, b> + <a + d, e>| <= |d| + (1 + |d|) |e|. The lengths of the
    errors are known: that of the longest counts for all.
    """
    lengths = [(b.float() - a).norm(dim=1).max().item() for a, b in zip(rough, low, strict=True)]
    longest = 1.001 * max(lengths)
    return longest + (1 + longest) * longest


def _products_at(
    vectors: Float32[Tensor, "vector d_out"], rows: Int[Tensor, " pair"], columns: Int[Tensor, " pair"]
) -> Float32[Tensor, " pair"]:
    """Products of some pairs, sorted by row and column, without copies of the vectors."""
    count = len(vectors)
    begin = torch.zeros(count + 1, dtype=torch.long)
    begin[1:] = torch.bincount(rows, minlength=count).cumsum(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        zeros = torch.zeros(len(rows))
        wanted = torch.sparse_csr_tensor(begin, columns, zeros, (count, count), check_invariants=True)
        return torch.sparse.sampled_addmm(wanted, vectors, vectors.T, beta=0.0).values()


def _has_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are summed in float32, and fast."""
    able = torch.cpu.get_capabilities()
    is_able = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and is_able


def _frame(chosen: Int[Tensor, " chosen"], found: Entries) -> pl.DataFrame:
    """By chosen latent as given; one that is given twice comes twice."""
    latents, others, values = (part.numpy() for part in found)
    begin = np.searchsorted(latents, chosen.numpy(), side="left")
    lengths = np.searchsorted(latents, chosen.numpy(), side="right") - begin
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = np.repeat(begin, lengths) + place
    columns = {"latent": latents[at], "rank": place, "other": others[at], "value": values[at]}
    return pl.DataFrame(columns).cast(DECODER_NEIGHBOURS_SCHEMA)  # type: ignore[arg-type]
