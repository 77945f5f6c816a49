"""What the activation pass hands to a metric: clean activations, reconstructions and losses of one batch.

Everything here is flat over the *real* tokens of a batch (padding is gone, a beginning-of-text token is
not), in reading order. Knows nothing of metrics, files or estimates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.errors import SubjectError
from autointerp.sampling.contexts import TokenBatch

Need = Literal["substituted", "zero", "mean"]
"""A pass that re-enters the subject: with the reconstruction, with zeros, with the calibration mean."""

__all__ = [
    "BatchReconstruction",
    "Checkpoint",
    "ChunkMetric",
    "MetricFamily",
    "Need",
    "PredictionTable",
    "SiteCalibration",
    "SiteMeans",
    "SiteReading",
    "SubstitutionLosses",
    "TokenTable",
    "has_direction",
]

_ROUNDING_STEPS = 32
"""Machine epsilons by which the mean of equal numbers may be off: its sum has about log2(d_model) roundings
one after another, some twenty for the widest models."""


def has_direction(x: Float[Tensor, "token d_model"]) -> Bool[Tensor, " token"]:
    """Which tokens have components that differ by more than rounding: `||x - mean(x)|| > 32 eps ||x||`.

    Only these have a place in the paper's space, `(x - mean(x)) / ||x - mean(x)||`. eps is that of x's dtype,
    at least float32's precision.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = x - x.mean(dim=1, keepdim=True)
    least = (_ROUNDING_STEPS * torch.finfo(x.dtype).eps) ** 2 * torch.linalg.vecdot(x, x)
    return torch.linalg.vecdot(centred, centred) > least


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A dictionary with its name in the report and the place where it attaches."""

    name: str
    sae: SparseAutoencoder
    site: str
    """What it reconstructs or predicts, and is judged at: a name that `SubjectModel.read` takes, e.g.
    `blocks.8.hook_resid_post`."""
    input_site: str | None = None
    """What it reads, if that is another place (a transcoder)."""

    @property
    def reads(self) -> str:
        """The name of the site that it reads."""
        return self.input_site or self.site

    @property
    def sites(self) -> frozenset[str]:
        """The sites whose activations it needs."""
        return frozenset((self.reads, self.site))


@dataclass(frozen=True, eq=False)
class SiteCalibration:
    """Averages over a calibration split at one site: scored tokens at positions >= 1, as in the headline."""

    mean: Float[Tensor, " d_model"]
    """Mean activation in raw space; what mean ablation puts in, and the baseline of the raw-space errors."""
    unit_mean: Float[Tensor, " d_model"]
    """Mean of `(x - mean(x)) / ||x - mean(x)||`, the paper's space; the baseline of the normalised error."""
    mean_squared_norm: float
    """Mean of `||x||^2` in raw space."""
    token_count: int


class SiteMeans(NamedTuple):
    """A calibration's vectors in the dtype and on the device of the activations beside them."""

    raw: Float[Tensor, " d_model"]
    unit: Float[Tensor, " d_model"]


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Where each real token of a batch comes from."""

    flat_index: Int[Tensor, " token"]
    """Place in the flattened `(batch position)` grid."""
    document: Int[Tensor, " token"]
    """Place in the chunk's list of documents; -1 where the token belongs to none."""
    position: Int[Tensor, " token"]
    """Place in its context, the first being 0."""
    is_scored: Bool[Tensor, " token"]
    """Whether it is a token of the text, not one that was put in."""
    row: Int[Tensor, " token"]
    """Place of its context in the batch."""

    @classmethod
    def of(cls, batch: TokenBatch) -> "TokenTable":
        """The table of a batch."""
        flat_index = batch.attention_mask.reshape(-1).nonzero().squeeze(1)
        document = batch.document_index.reshape(-1)[flat_index].long()
        scored = batch.is_scored.reshape(-1)[flat_index] & (document >= 0)
        width = batch.tokens.shape[1]
        return cls(flat_index, document, flat_index % width, scored, flat_index // width)


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """The positions whose next token counts towards a loss: a scored token of the same document."""

    flat_index: Int[Tensor, " prediction"]
    target: Int[Tensor, " prediction"]
    """Id of the token that follows."""
    document: Int[Tensor, " prediction"]
    position: Int[Tensor, " prediction"]
    """Position of the token that predicts, not of the one predicted."""

    @classmethod
    def of(cls, batch: TokenBatch) -> "PredictionTable":
        """The table of a batch. What a beginning-of-text token predicts does not count."""
        document = batch.document_index.long()
        counts = torch.zeros_like(batch.attention_mask)
        counts[:, :-1] = (
            batch.is_scored[:, 1:]
            & batch.attention_mask[:, 1:]
            & (document[:, 1:] == document[:, :-1])
            & (document[:, 1:] >= 0)
        )
        flat_index = counts.reshape(-1).nonzero().squeeze(1)
        return cls(
            flat_index,
            batch.tokens.reshape(-1)[flat_index + 1],
            document.reshape(-1)[flat_index],
            flat_index % batch.tokens.shape[1],
        )


@dataclass(frozen=True, eq=False)
class SiteReading:
    """Clean activations of one site, and what all dictionaries on it share."""

    site: str
    x: Float[Tensor, "token d_model"]
    means: SiteMeans

    def check_finite(self, batch_name: str) -> None:
        """Refuse activations that are not numbers.

        Raises:
            SubjectError: any is NaN or infinite; names the site and the batch.
        """
        if not bool(torch.isfinite(self.x).all()):
            raise SubjectError(
                "activations are not finite",
                where=f"site {self.site}, {batch_name}",
                remedy="load the subject in float32 or bfloat16, or look for a damaged weight file",
            )

    @cached_property
    def squared_norm(self) -> Float[Tensor, " token"]:
        """`||x||^2`."""
        return torch.linalg.vecdot(self.x, self.x)

    @cached_property
    def centred_squared_norm(self) -> Float[Tensor, " token"]:
        """`||x - mean(x)||^2`, the square of what the paper divides a token by."""
        centred = self.x - self.x.mean(dim=1, keepdim=True)
        return torch.linalg.vecdot(centred, centred)

    @cached_property
    def has_direction(self) -> Bool[Tensor, " token"]:
        """Whether the components differ by more than rounding; see the function of this name."""
        return has_direction(self.x)

    @cached_property
    def raw_baseline(self) -> Float[Tensor, " token"]:
        """Squared error of always answering the calibration mean, in raw space."""
        error = self.x - self.means.raw
        return torch.linalg.vecdot(error, error)

    @cached_property
    def unit_baseline(self) -> Float[Tensor, " token"]:
        """The same in the paper's space; 0 for a token without direction (all its components equal)."""
        centred = self.x - self.x.mean(dim=1, keepdim=True)
        norm = self.centred_squared_norm.sqrt().unsqueeze(1)
        error = centred / norm.clamp_min(torch.finfo(norm.dtype).tiny) - self.means.unit
        return torch.where(self.has_direction, torch.linalg.vecdot(error, error), 0.0)


@dataclass(frozen=True, eq=False)
class SubstitutionLosses:
    """Next-token losses of one batch, each over the rows of its `predictions`, in nats."""

    predictions: PredictionTable
    clean: Float[Tensor, " prediction"]
    substituted: Float[Tensor, " prediction"]
    """Cross entropy with the site replaced by the reconstruction at every token."""
    kl: Float[Tensor, " prediction"]
    """KL(clean || substituted) over the vocabulary."""
    zero_ablated: Float[Tensor, " prediction"] | None
    """Cross entropy with the site replaced by zeros; None when no metric needs it."""
    mean_ablated: Float[Tensor, " prediction"] | None
    """Cross entropy with the site replaced by the calibration mean; None when no metric needs it."""


@dataclass(frozen=True, eq=False)
class BatchReconstruction:
    """One dictionary's answer to one batch."""

    checkpoint: str
    tokens: TokenTable
    reading: SiteReading
    x_hat: Float[Tensor, "token d_model"]
    """Reconstruction in the raw space of `reading.x`, any normalisation undone."""
    latents: SparseLatents
    losses: SubstitutionLosses | None
    """None when no metric asked for substituted passes."""


@runtime_checkable
class ChunkMetric(Protocol):
    """What a metric keeps while one chunk goes by, for one dictionary. Made afresh for every chunk."""

    def update(self, batch: BatchReconstruction) -> None:
        """Take in one batch; keep sums, not tokens."""

    def observations(self) -> pl.DataFrame:
        """The chunk's rows, in `records.OBSERVATION_SCHEMA`."""


@runtime_checkable
class MetricFamily(Protocol):
    """Metrics that share their work; the catalogue lists them."""

    @property
    def metrics(self) -> Mapping[str, frozenset[Need]]:
        """Names of what it can observe, each with the passes through the subject that it costs."""

    def start(self, checkpoint: str, documents: Sequence[str], wanted: frozenset[str]) -> ChunkMetric:
        """A fresh state for one dictionary and one chunk with these documents; only `wanted` is reported."""
