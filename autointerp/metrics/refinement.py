"""What a dictionary's reconstructions would gain if its active latents had the values that fit best.

The encoder's choice of latents stays, only their values move: what is gained is what the encoder's amounts
lose, and what is left is due to the choice and to the dictionary. With z the values, z' the refined ones (see
`refinement_values`), |d_j| the length of what one unit of latent j adds, and x^' the refined reconstruction:

| metric (refinement.*)   | sum over tokens of                      | over sum of               |
|-------------------------|-----------------------------------------|---------------------------|
| normalized_mse          | |x^' - x|^2 / |x - mean(x)|^2           | |u(x) - m|^2              |
| gain_normalized_mse     | the same of x^, less that of x^'        | |u(x) - m|^2              |
| delta_ce_nats           | CE with x^' put in - clean CE           | 1                         |
| gain_delta_ce_nats      | CE with x^ put in - CE with x^' put in  | 1                         |
| shrinkage               | sum_j sign(z_j) z'_j |d_j|              | sum_j |z_j| |d_j|         |
| moved                   | |(z' - z) |d|| / |z |d||                | 1, where anything fires   |
| zeroed_fraction         | active latents that are refined to 0    | active latents            |
| unsolved_fraction       | tokens that did not reach the tolerance | 1                         |

Errors and losses before refinement are those of `reconstruction` and `downstream` on the same tokens.
shrinkage is above 1 where the dictionary's values are too small (an L1 penalty's doing; ReLU grows, TopK
hardly moves); it is weighted by what latents add, so that rescaling a latent and its direction changes
nothing.

Source: Gao et al. 2024 (arXiv 2406.04093), section 5.1 and Fig. 9: projected gradient descent on the values,
support and decoder frozen. Not inference-time optimisation, which may choose other latents.
"""

from collections.abc import Sequence

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.metrics.reconstruction import normalized_mse_terms
from autointerp.metrics.refinement_values import RefinedReconstruction
from autointerp.records import MetricDefinition
from autointerp.sampling.document_sums import DocumentSums, Terms
from autointerp.sampling.readings import SiteReading, SubstitutionLosses, TokenTable

__all__ = ["REFINEMENT_METRICS", "RefinementSums", "loss_terms", "value_terms"]

_PREFIX = "refinement."
_OF_TOKENS = (
    "normalized_mse",
    "gain_normalized_mse",
    "shrinkage",
    "moved",
    "zeroed_fraction",
    "unsolved_fraction",
)
_OF_LOSSES = ("delta_ce_nats", "gain_delta_ce_nats")
_GAO = "Gao et al. 2024 (arXiv 2406.04093), section 5.1"

REFINEMENT_METRICS: tuple[MetricDefinition, ...] = (
    MetricDefinition(
        name=_PREFIX + "normalized_mse",
        title="Refined MSE",
        meaning="Normalised MSE with the active latents' values refined: support and decoder stay as they "
        "are, and the values (not below 0 where the dictionary's never are) become those of least squared "
        f"error, token by token. On the first tokens of the evaluated text. {_GAO}.",
        unit="ratio",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        in_summary=False,
    ),
    MetricDefinition(
        name=_PREFIX + "gain_normalized_mse",
        title="MSE gained by refining",
        meaning="Normalised MSE before refinement less that after, on the same tokens: what the encoder's "
        "amounts lose, its choice of latents granted. 0 where the values are the best already.",
        unit="ratio",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
    ),
    MetricDefinition(
        name=_PREFIX + "delta_ce_nats",
        title="Refined delta CE",
        meaning="Rise of the subject's cross entropy with the refined reconstruction put in at all tokens. "
        f"{_GAO} and Fig. 9.",
        unit="nats",
        better="lower",
        functional="ratio",
        sampled="document",
        in_summary=False,
    ),
    MetricDefinition(
        name=_PREFIX + "gain_delta_ce_nats",
        title="Delta CE gained by refining",
        meaning="Cross entropy with the reconstruction put in less that with the refined one, on the same "
        "predictions. May be negative: refinement is for the squared error, not for the loss.",
        unit="nats",
        better="lower",
        functional="ratio",
        sampled="document",
    ),
    MetricDefinition(
        name=_PREFIX + "shrinkage",
        title="Refined over original",
        meaning="Sum of the active latents' refined values over the sum of their own, each times the length "
        "of its direction. Above 1 the dictionary's values are too small (shrinkage), at 1 unbiased. The "
        "paper reports that ReLU's values grow and TopK's hardly move.",
        unit="ratio",
        better="neither",
        functional="ratio",
        sampled="document",
    ),
    MetricDefinition(
        name=_PREFIX + "moved",
        title="Moved by refining",
        meaning="Mean over tokens on which anything fires of the change's length over the values' length, "
        "both in what they add to the reconstruction. 0 where the values are the best already.",
        unit="ratio",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        in_summary=False,
    ),
    MetricDefinition(
        name=_PREFIX + "zeroed_fraction",
        title="Zeroed by refining",
        meaning="Fraction of active latents whose refined value is 0: without them the others fit better.",
        unit="fraction",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        highest=1.0,
        in_summary=False,
    ),
    MetricDefinition(
        name=_PREFIX + "unsolved_fraction",
        title="Not fully refined",
        meaning="Fraction of tokens whose values had not reached the tolerance after the last round; they "
        "keep the best that were found, so the gain is at least what is told.",
        unit="fraction",
        better="lower",
        functional="ratio",
        sampled="document",
        lowest=0.0,
        highest=1.0,
        in_summary=False,
    ),
)
"""All metrics of the family."""


def value_terms(reading: SiteReading, found: RefinedReconstruction) -> dict[str, Terms]:
    """Every token's share of the ratios that need no losses, by metric name."""
    before, after = (
        normalized_mse_terms(reading, each.to(reading.x)) for each in (found.before, found.after)
    )
    latents, refined = found.latents, found.refined
    token = latents.token_indices()
    own = latents.values.double() * refined.lengths.double()
    new = refined.latents.values.double() * refined.lengths.double()

    def per_token(values: Float[Tensor, " active"]) -> Float[Tensor, " token"]:
        return values.new_zeros(latents.token_count).index_add_(0, token, values)

    size, change = per_token(own.square()).sqrt(), per_token((new - own).square()).sqrt()
    fires = size > 0
    terms = {
        "normalized_mse": after,
        "gain_normalized_mse": Terms(before.numerator - after.numerator, before.denominator),
        "shrinkage": Terms(per_token(own.sign() * new), per_token(own.abs())),
        "moved": Terms(torch.where(fires, change / torch.where(fires, size, 1.0), 0.0), fires.double()),
        "zeroed_fraction": Terms(
            per_token((refined.latents.values == 0).double()), latents.active_count_per_token().double()
        ),
        "unsolved_fraction": Terms((~refined.is_solved).double()),
    }
    return {_PREFIX + name: term for name, term in terms.items()}


def loss_terms(before: SubstitutionLosses, after: SubstitutionLosses) -> dict[str, Terms]:
    """Every prediction's share of the ratios of losses, by metric name."""
    return {
        _PREFIX + "delta_ce_nats": Terms(after.substituted - after.clean),
        _PREFIX + "gain_delta_ce_nats": Terms(before.substituted - after.substituted),
    }


class RefinementSums:
    """One dictionary's sums over a chunk, by document. Memory: as `DocumentSums`."""

    def __init__(self, checkpoint: str, documents: Sequence[str]) -> None:
        """Start at zero."""
        self._checkpoint = checkpoint
        self._tokens = DocumentSums(documents, [_PREFIX + name for name in _OF_TOKENS])
        self._losses = DocumentSums(documents, [_PREFIX + name for name in _OF_LOSSES])

    def add_tokens(self, tokens: TokenTable, terms: dict[str, Terms]) -> None:
        """Add a batch's scored tokens; `terms` as of `value_terms`."""
        kept = tokens.is_scored
        chosen = {
            name: Terms(term.numerator[kept], None if term.denominator is None else term.denominator[kept])
            for name, term in terms.items()
        }
        self._tokens.add(tokens.document[kept], tokens.position[kept], chosen)

    def add_losses(self, losses: SubstitutionLosses, terms: dict[str, Terms]) -> None:
        """Add a batch's predictions; `terms` as of `loss_terms`."""
        rows = losses.predictions
        self._losses.add(rows.document, rows.position, terms)

    def observations(self) -> pl.DataFrame:
        """A row per metric and document, over positions >= 1."""
        return pl.concat([sums.observations(self._checkpoint) for sums in (self._tokens, self._losses)])
