"""What the subject's predictions lose when a site is replaced by its reconstruction.

The reconstruction (its normalisation undone) is put in at all tokens, position 0 and beginning of text
included. Losses count where the next token is a scored token of the same document; the position of a loss
is that of the token that predicts.

| metric (downstream.*)        | sum over predictions of       | over sum of           |
|------------------------------|-------------------------------|-----------------------|
| kl_nats                      | KL(clean || substituted)      | 1                     |
| delta_ce_nats                | CE_sub - CE_clean             | 1                     |
| fraction_recovered_zero      | CE_zero - CE_sub              | CE_zero - CE_clean    |
| fraction_recovered_mean      | CE_mean - CE_sub              | CE_mean - CE_clean    |
| compute_equivalent_fraction  | CE_sub - CE_clean             | 1, through a curve    |

Source: Gao et al. 2024 (arXiv 2406.04093), section 4.1. The fractions recovered are shown because others
report them; the paper calls the one against zeros too lenient, since zeros destroy so much that poor
reconstructions score high (98.2 % for a dictionary that costs 90 % of the training compute). Neither is
bounded by 0 or 1.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import polars as pl

from autointerp.sampling.document_sums import DocumentSums, Terms
from autointerp.sampling.readings import BatchReconstruction, Need, SubstitutionLosses

__all__ = ["COMPUTE_EQUIVALENT", "DOWNSTREAM", "DownstreamFamily", "downstream_terms"]

_PREFIX = "downstream."
DELTA = _PREFIX + "delta_ce_nats"
COMPUTE_EQUIVALENT = _PREFIX + "compute_equivalent_fraction"
_BY_POSITION = frozenset({DELTA})
_SUBSTITUTED: frozenset[Need] = frozenset({"substituted"})


def downstream_terms(losses: SubstitutionLosses) -> dict[str, Terms]:
    """Every prediction's share of each ratio in the module's table, by metric name.

    A fraction recovered is absent where its ablated pass was not made.
    """
    delta = losses.substituted - losses.clean
    terms = {"kl_nats": Terms(losses.kl), "delta_ce_nats": Terms(delta)}
    terms["compute_equivalent_fraction"] = Terms(delta)
    for name, ablated in (("zero", losses.zero_ablated), ("mean", losses.mean_ablated)):
        if ablated is not None:
            terms[f"fraction_recovered_{name}"] = Terms(ablated - losses.substituted, ablated - losses.clean)
    return {_PREFIX + name: term for name, term in terms.items()}


class DownstreamFamily:
    """All metrics of this module, with the passes that each needs."""

    metrics: ClassVar[Mapping[str, frozenset[Need]]] = MappingProxyType(
        {
            _PREFIX + "kl_nats": _SUBSTITUTED,
            DELTA: _SUBSTITUTED,
            _PREFIX + "fraction_recovered_zero": _SUBSTITUTED | {"zero"},
            _PREFIX + "fraction_recovered_mean": _SUBSTITUTED | {"mean"},
            COMPUTE_EQUIVALENT: _SUBSTITUTED,
        }
    )

    def start(self, checkpoint: str, documents: Sequence[str], wanted: frozenset[str]) -> "_ChunkState":
        """Sums at zero."""
        return _ChunkState(checkpoint, documents, sorted(wanted))


DOWNSTREAM = DownstreamFamily()


class _ChunkState:
    """Sums over the predictions of one chunk."""

    def __init__(self, checkpoint: str, documents: Sequence[str], metrics: Sequence[str]) -> None:
        self._checkpoint = checkpoint
        self._sums = DocumentSums(documents, metrics)

    def update(self, batch: BatchReconstruction) -> None:
        """Add a batch's predictions."""
        if batch.losses is None:
            raise ValueError("downstream metrics need a pass with losses")
        rows = batch.losses.predictions
        self._sums.add(rows.document, rows.position, downstream_terms(batch.losses))

    def observations(self) -> pl.DataFrame:
        """A row per metric and document; for the loss difference also per range of positions."""
        return self._sums.observations(self._checkpoint, by_position=_BY_POSITION)
