"""A calibration split of the text -> averages per site, and the output scale of random dictionaries.

Both look at scored tokens at positions >= 1, the same set as the headline numbers: position 0 has a norm
several times that of the others in many subjects and would bend the mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.null_dictionaries import with_output_scale
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.errors import CorpusError, SubjectError
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.readings import Checkpoint, SiteCalibration, TokenTable, has_direction
from autointerp.subject.subject_model import SubjectModel

__all__ = [
    "calibrate",
    "fit_output_scales",
    "mean_active_count",
    "output_scales",
    "own_space_mean",
    "principal_components",
]


@torch.no_grad()
def calibrate(
    subject: SubjectModel, sites: Sequence[str], chunks: Iterable[CorpusChunk]
) -> dict[str, SiteCalibration]:
    """Mean activation per site, in raw space and in the paper's (centred over d_model, unit norm).

    Sums are float64. Memory: one batch, and two vectors per site. Tokens without direction (all components
    equal) count in the raw mean only.

    Args:
        subject: the language model.
        sites: names as `SubjectModel.read` takes them.
        chunks: of the calibration split, which shares no document with what is evaluated.

    Raises:
        CorpusError: no token to average over.
        SubjectError: an activation is not finite.
    """
    sums = {site: _Sums.zero(subject.width(site)) for site in sites}
    for activations in _activations(subject, sites, chunks):
        for site, x in activations.items():
            sums[site].add(x)
    return {site: total.finished(site) for site, total in sums.items()}


def own_space_mean(
    calibration: SiteCalibration, normalization: InputNormalization
) -> Float[Tensor, " d_model"]:
    """The calibration mean in the space that a dictionary with this normalisation works in, float64.

    `none`: the raw mean. `layer_norm`: the mean of (x - mean) / std, i.e. the paper's unit vectors times
    sqrt(d_model - 1); the eps that some libraries add to std (1e-5 of it or less) is left out.

    Raises:
        ValueError: another kind of normalisation.
    """
    if normalization.kind == "none":
        return calibration.mean
    if normalization.kind == "layer_norm":
        return calibration.unit_mean * (len(calibration.unit_mean) - 1) ** 0.5
    raise ValueError(f"no calibration mean for the normalisation {normalization.kind!r}")


@torch.no_grad()
def output_scales(
    subject: SubjectModel, dictionaries: Sequence[Checkpoint], chunks: Iterable[CorpusChunk]
) -> list[float]:
    """The factor by which each dictionary's decoder would fit the calibration tokens best.

    With y the judged site's activation in a dictionary's own space, b its decoder bias and d(x) =
    decode(encode(x)) - b,
    it is the s that makes the sum of ||y - b - s d(x)||^2 least: sum((y - b) . d) / sum(d . d). 1 for a
    dictionary that answers b everywhere (d = 0).

    Raises:
        SubjectError: an activation is not finite.
    """
    sites = sorted({site for dictionary in dictionaries for site in dictionary.sites})
    products = torch.zeros(len(dictionaries), 2, dtype=torch.float64)
    for activations in _activations(subject, sites, chunks):
        for index, dictionary in enumerate(dictionaries):
            read, judged = activations[dictionary.reads], activations[dictionary.site]
            products[index] += _scale_products(dictionary.sae, read, judged)
    return [cross / square if square > 0 else 1.0 for cross, square in products.tolist()]


def fit_output_scales(
    subject: SubjectModel, dictionaries: Sequence[Checkpoint], chunks: Iterable[CorpusChunk]
) -> list[Checkpoint]:
    """The same dictionaries, each with its decoder scaled to fit the calibration tokens: `output_scales`."""
    scales = output_scales(subject, dictionaries, chunks)
    return [
        replace(dictionary, sae=with_output_scale(dictionary.sae, scale))
        for dictionary, scale in zip(dictionaries, scales, strict=True)
    ]


@torch.no_grad()
def mean_active_count(subject: SubjectModel, dictionary: Checkpoint, chunks: Iterable[CorpusChunk]) -> float:
    """Mean L0 of a dictionary over the calibration tokens: what a null for it may spend per token.

    Raises:
        SubjectError: an activation is not finite.
    """
    active = token_count = 0
    for activations in _activations(subject, [dictionary.reads], chunks):
        latents = dictionary.sae.encode_sparse(activations[dictionary.reads])
        active += len(latents.indices)
        token_count += latents.token_count
    return active / max(token_count, 1)


@torch.no_grad()
def principal_components(
    subject: SubjectModel, site: str, mean: Float[Tensor, " d_model"], chunks: Iterable[CorpusChunk]
) -> Float[Tensor, "component d_model"]:
    """Orthonormal directions of falling variance about `mean`, over the calibration tokens; float64.

    Eigenvectors of the covariance, each with its largest entry positive, so that one text gives one answer.
    Cost: d_model^2 flops a token and one eigendecomposition; memory: two matrices of d_model^2.

    Raises:
        SubjectError: an activation is not finite.
    """
    width = len(mean)
    covariance = torch.zeros(width, width, dtype=torch.float64)
    for activations in _activations(subject, [site], chunks):
        centred = activations[site].double().cpu() - mean
        covariance += centred.T @ centred
    _, vectors = torch.linalg.eigh(covariance)
    directions = vectors.T.flip(0)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return directions * largest.sign()


def _scale_products(
    sae: SparseAutoencoder, x: Float[Tensor, "token d_model"], judged: Float[Tensor, "token d_out"]
) -> Float[Tensor, " two"]:
    """sum((y - b) . d) and sum(d . d), y being what was to be answered, in the dictionary's own space.

    That is the judged activation less the skip connection's share, with the statistics of the token that was
    read taken out, as the reconstruction has them put back. A token that has no size (std 0) says nothing.
    """
    judged = judged.to(sae.encoder_bias) - sae.skipped(x)
    _, statistics = sae.normalization.apply(x.to(sae.encoder_bias))
    counts = (statistics.std > 0).double()
    own = (judged - statistics.mean) / torch.where(statistics.std > 0, statistics.std, 1.0)
    target = (own - sae.decoder_bias).double() * counts
    answer = (sae.decode_sparse(sae.encode_sparse(x)) - sae.decoder_bias).double() * counts
    return torch.stack([(target * answer).sum(), (answer * answer).sum()]).cpu()


def _activations(
    subject: SubjectModel, sites: Sequence[str], chunks: Iterable[CorpusChunk]
) -> Iterator[dict[str, Float[Tensor, "token d_model"]]]:
    """Activations at scored tokens at positions >= 1, batch by batch."""
    for chunk in chunks:
        for index, batch in enumerate(chunk.batches):
            batch = batch.to(subject.device)  # noqa: PLW2901 - the same batch, elsewhere
            table = TokenTable.of(batch)
            places = table.flat_index[table.is_scored & (table.position >= 1)]
            grids = subject.read(batch.tokens, sites, batch.attention_mask)
            found = {
                site: grid.to(subject.device).reshape(-1, grid.shape[-1])[places]
                for site, grid in grids.items()
            }
            for site, x in found.items():
                if not bool(torch.isfinite(x).all()):
                    raise SubjectError(
                        "activations are not finite",
                        where=f"site {site}, calibration chunk {chunk.index}, batch {index}",
                        remedy="load the subject in float32 or bfloat16, or look for a damaged weight file",
                    )
            yield found


@dataclass
class _Sums:
    """Running sums of one site, float64."""

    raw: Float[Tensor, " d_model"]
    unit: Float[Tensor, " d_model"]
    squared_norm: float = 0.0
    token_count: int = 0
    direction_count: int = 0

    @classmethod
    def zero(cls, width: int) -> "_Sums":
        return cls(torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))

    def add(self, x: Float[Tensor, "token d_model"]) -> None:
        is_directed = has_direction(x).unsqueeze(1)
        x = x.double()
        centred = x - x.mean(dim=1, keepdim=True)
        norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        unit = torch.where(is_directed, centred / norm.clamp_min(torch.finfo(x.dtype).tiny), 0.0)
        self.raw += x.sum(dim=0).cpu()
        self.unit += unit.sum(dim=0).cpu()
        self.squared_norm += float((x * x).sum())
        self.token_count += len(x)
        self.direction_count += int(is_directed.sum())

    def finished(self, site: str) -> SiteCalibration:
        if self.token_count == 0:
            raise CorpusError(
                "the calibration split has no token",
                where=f"site {site}",
                remedy="raise calibration_fraction or give more text",
            )
        return SiteCalibration(
            self.raw / self.token_count,
            self.unit / max(self.direction_count, 1),
            self.squared_norm / self.token_count,
            self.token_count,
        )
