"""How well, and how sparsely, a dictionary rebuilds the activations of its site.

With x an activation, x^ its reconstruction in the same raw space, u(x) = (x - mean(x)) / ||x - mean(x)|| the
paper's normalisation (mean over d_model, unit norm) and M, m the calibration means of x and u(x):

| metric (reconstruction.*)  | sum over tokens of            | over sum of        |
|----------------------------|-------------------------------|--------------------|
| normalized_mse             | |x^ - x|^2 / |x - mean(x)|^2  | |u(x) - m|^2       |
| normalized_mse_raw         | |x^ - x|^2                    | |x - M|^2          |
| explained_variance         | 1 - normalized_mse_raw        |                    |
| cosine                     | x . x^ / (|x| |x^|)           | 1                  |
| l0                         | number of active latents      | 1                  |
| relative_bias              | |x^|^2                        | x . x^             |
| norm_ratio                 | |x^|                          | |x|                |

normalized_mse maps x^ into the paper's space with the *token's own* mean and norm, so that the error there
is (x^ - x) / ||x - mean(x)||. The part of the error along the all-ones vector is kept: in the paper's space
the target has none, and a reconstruction that adds one is wrong by it. For a dictionary that normalises its
own input this is the paper's number (Gao et al. 2024, arXiv 2406.04093, sections 2.1 and A.6); for one
trained on raw activations it says how it would do if every token weighed the same. normalized_mse_raw is
what most libraries report; there, tokens of large norm decide.

relative_bias is 1 without shrinkage and below 1 where reconstructions are too short: it is the factor by
which x^ should be divided to fit best (Rajamanoharan et al. 2024, arXiv 2404.16014).

A token whose components are all equal, to rounding (`readings.has_direction`), is left out of
normalized_mse; an all-zero token is left out of cosine. A reconstruction of all zeros has cosine 0: leaving
it out would reward it.

The errors by position have a slice for position 0, which no headline, L0 or count of firing contains. It
holds what stands there, be it text or a token that was put in (BOS), which no other slice measures; a token
that was put in is counted with the document of the first text token of its context.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.metrics.density_spectrum import MEAN_DENSITY_OF_DENSEST
from autointerp.records import OBSERVATION_SCHEMA, observation_frame
from autointerp.sampling.document_sums import DocumentSums, Terms
from autointerp.sampling.readings import BatchReconstruction, Need, SiteReading, TokenTable

__all__ = [
    "DEAD_FRACTION",
    "RECONSTRUCTION",
    "ReconstructionFamily",
    "dead_observations",
    "latent_densities",
    "normalized_mse_terms",
    "reconstruction_terms",
]

_PREFIX = "reconstruction."
DEAD_FRACTION = _PREFIX + "dead_fraction"
_BY_POSITION = frozenset({_PREFIX + "normalized_mse", _PREFIX + "normalized_mse_raw"})
_NO_PASS: frozenset[Need] = frozenset()
_AFTER_THE_PASS = frozenset({DEAD_FRACTION, MEAN_DENSITY_OF_DENSEST})


def reconstruction_terms(batch: BatchReconstruction) -> dict[str, Terms]:
    """Every token's share of each ratio in the module's table, by metric name.

    Args:
        batch: x and x^ in raw space, [token d_model], as the activation pass makes them.
    """
    x, x_hat, reading = batch.reading.x, batch.x_hat, batch.reading
    error = x_hat - x
    squared_error = torch.linalg.vecdot(error, error)
    product = torch.linalg.vecdot(x, x_hat)
    hat_squared_norm = torch.linalg.vecdot(x_hat, x_hat)
    is_zero = reading.squared_norm == 0
    tiny = torch.finfo(x.dtype).tiny
    norms = reading.squared_norm.sqrt() * hat_squared_norm.sqrt()
    raw = Terms(squared_error, reading.raw_baseline)
    terms = {
        "normalized_mse": normalized_mse_terms(reading, x_hat),
        "normalized_mse_raw": raw,
        "explained_variance": raw,
        "cosine": Terms((product / norms.clamp_min(tiny)).clamp(-1.0, 1.0), (~is_zero).to(x.dtype)),
        "l0": Terms(batch.latents.active_count_per_token()),
        "relative_bias": Terms(hat_squared_norm, product),
        "norm_ratio": Terms(hat_squared_norm.sqrt(), reading.squared_norm.sqrt()),
    }
    return {_PREFIX + name: term for name, term in terms.items()}


def normalized_mse_terms(reading: SiteReading, x_hat: Float[Tensor, "token d_model"]) -> Terms:
    """Every token's share of the normalised MSE alone; see the module's table."""
    error = x_hat - reading.x
    tiny = torch.finfo(reading.x.dtype).tiny
    unit_error = torch.linalg.vecdot(error, error) / reading.centred_squared_norm.clamp_min(tiny)
    return Terms(torch.where(reading.has_direction, unit_error, 0.0), reading.unit_baseline)


class ReconstructionFamily:
    """All metrics of this module, and two that are observed at the end, when all firings are counted.

    These are `dead_fraction`, by `dead_observations`, and `mean_density_of_densest`, by
    `density_spectrum.densest_observations`.
    """

    metrics: ClassVar[Mapping[str, frozenset[Need]]] = MappingProxyType(
        {
            _PREFIX + "normalized_mse": _NO_PASS,
            _PREFIX + "normalized_mse_raw": _NO_PASS,
            _PREFIX + "explained_variance": _NO_PASS,
            _PREFIX + "cosine": _NO_PASS,
            _PREFIX + "l0": _NO_PASS,
            _PREFIX + "relative_bias": _NO_PASS,
            _PREFIX + "norm_ratio": _NO_PASS,
            DEAD_FRACTION: _NO_PASS,
            MEAN_DENSITY_OF_DENSEST: _NO_PASS,
        }
    )

    def start(self, checkpoint: str, documents: Sequence[str], wanted: frozenset[str]) -> "_ChunkState":
        """Sums at zero."""
        return _ChunkState(checkpoint, documents, sorted(wanted - _AFTER_THE_PASS))


RECONSTRUCTION = ReconstructionFamily()


class _ChunkState:
    """Sums over the scored tokens of one chunk, and over what stands at position 0."""

    def __init__(self, checkpoint: str, documents: Sequence[str], metrics: Sequence[str]) -> None:
        self._checkpoint = checkpoint
        self._sums = DocumentSums(documents, metrics)

    def update(self, batch: BatchReconstruction) -> None:
        """Add a batch's scored tokens, and the tokens at position 0 that were put in."""
        document = _owner(batch.tokens)
        counted = document >= 0
        terms = {name: _where(counted, term) for name, term in reconstruction_terms(batch).items()}
        self._sums.add(document[counted], batch.tokens.position[counted], terms)

    def observations(self) -> pl.DataFrame:
        """A row per metric and document; for the normalised errors also per range of positions."""
        return self._sums.observations(self._checkpoint, by_position=_BY_POSITION)


def _owner(tokens: TokenTable) -> Int[Tensor, " token"]:
    """The document that a token is counted with, -1 for none.

    A scored token has its own; one that was put in at position 0 has that of the next scored token, which
    stands in the same context, since every context holds text.
    """
    scored = tokens.is_scored.nonzero().squeeze(1)
    owner = torch.where(tokens.is_scored, tokens.document, -1)
    first = (~tokens.is_scored & (tokens.position == 0)).nonzero().squeeze(1)
    following = torch.searchsorted(scored, first)
    first, following = first[following < len(scored)], following[following < len(scored)]
    owner[first] = tokens.document[scored[following]]
    return owner


def _where(counted: Bool[Tensor, " token"], term: Terms) -> Terms:
    numerator, denominator = term
    return Terms(numerator[counted], None if denominator is None else denominator[counted])


def dead_observations(
    firing: pl.DataFrame, documents: pl.DataFrame, latent_counts: Mapping[str, int]
) -> pl.DataFrame:
    """A row per dictionary and latent: in how many of the D documents it fired.

    These go to the functional `unseen_fraction`: the fraction that fired nowhere. It is the fraction *not
    seen in this run's tokens*; the paper calls a latent dead after 10 million tokens (section 2.4), so on
    fewer tokens this number is higher. A latent not seen in D documents fires in fewer than 3 / D of all
    documents (95 %), which is said of documents, since tokens of one text are not independent.

    Args:
        firing: totals over the run, from `latent_firing.total_firing`.
        documents: what was evaluated, from `activation_pass.read_tokens`.
        latent_counts: by dictionary.

    Returns: unit = latent, numerator = documents in which it fired, denominator = D, cluster = the
        document's id when it fired in exactly one. No rows when there are no documents.
    """
    if documents.height == 0:
        return pl.DataFrame(schema=OBSERVATION_SCHEMA)
    frames = [
        _dead_rows(
            firing.filter(pl.col("checkpoint") == checkpoint), checkpoint, latent_count, documents.height
        )
        for checkpoint, latent_count in latent_counts.items()
    ]
    return pl.concat([pl.DataFrame(schema=OBSERVATION_SCHEMA), *frames])


def _dead_rows(firing: pl.DataFrame, checkpoint: str, latent_count: int, document_count: int) -> pl.DataFrame:
    latents = pl.DataFrame({"latent": range(latent_count)}, schema={"latent": pl.Int64})
    rows = latents.join(firing, on="latent", how="left", maintain_order="left")
    return observation_frame(
        checkpoint=checkpoint,
        metric=DEAD_FRACTION,
        unit=rows["latent"].cast(pl.String),
        cluster=rows["only_document"].fill_null(""),
        numerator=rows["documents_fired"].fill_null(0).cast(pl.Float64),
        denominator=float(document_count),
    )


def latent_densities(
    firing: pl.DataFrame, documents: pl.DataFrame, latent_counts: Mapping[str, int]
) -> pl.DataFrame:
    """The density of every latent: the fraction of all scored tokens (position 0 included) on which it fired.

    Returns: checkpoint, latent, tokens_fired, documents_fired, density in [0, 1]; also the latents that
        never fired. No rows when there are no tokens.
    """
    token_count = int(documents["token_count"].sum())
    frames = [
        pl.DataFrame({"checkpoint": checkpoint, "latent": range(latent_count)}, strict=False).with_columns(
            pl.col("latent").cast(pl.Int64)
        )
        for checkpoint, latent_count in latent_counts.items()
        if token_count
    ]
    columns = {"checkpoint": pl.String, "latent": pl.Int64}
    every = pl.concat([pl.DataFrame(schema=columns), *frames])
    counts = firing.select("checkpoint", "latent", "tokens_fired", "documents_fired")
    return (
        every.join(counts, on=["checkpoint", "latent"], how="left", maintain_order="left")
        .with_columns(pl.col("tokens_fired", "documents_fired").fill_null(0))
        .with_columns(density=pl.col("tokens_fired") / max(token_count, 1))
    )
