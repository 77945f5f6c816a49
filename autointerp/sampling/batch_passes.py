"""One batch -> its passes through the subject: clean, with a site ablated, with a reconstruction put in.

Where one distribution stands for all ablated passes (`constant_ablation`) those are not run.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.errors import SubjectError
from autointerp.sampling.constant_ablation import Ablation, ConstantAblations, ablation_vector
from autointerp.sampling.contexts import TokenBatch
from autointerp.sampling.readings import (
    Need,
    PredictionTable,
    SiteCalibration,
    SiteMeans,
    SiteReading,
    SubstitutionLosses,
    TokenTable,
)
from autointerp.sampling.token_losses import (
    CleanPredictions,
    clean_predictions,
    cross_entropy,
    substituted_losses,
)
from autointerp.subject.subject_model import SubjectModel, SubjectPass

__all__ = ["Ablated", "BatchPasses", "PassCost"]


@dataclass
class PassCost:
    """Wall-clock seconds by step, and how much went through. Chunks found in the store cost nothing."""

    seconds: dict[str, float] = field(default_factory=dict)
    token_count: int = 0
    chunk_count: int = 0
    resumed_chunk_count: int = 0
    chunk_names: list[str] = field(default_factory=list)
    """The chunks gone over, in order; the store holds their results under these names."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        begin = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - begin


class Ablated(NamedTuple):
    """Losses with a site replaced by a constant; None where no metric wants them."""

    zero: Float[Tensor, " prediction"] | None
    mean: Float[Tensor, " prediction"] | None


class BatchPasses:
    """One batch on its way: the clean pass, and what is computed from it on demand."""

    def __init__(
        self,
        subject: SubjectModel,
        batch: TokenBatch,
        tables: tuple[TokenTable, PredictionTable],
        *,
        needs: frozenset[Need],
        calibration: Mapping[str, SiteCalibration],
        constants: ConstantAblations,
        name: str,
        cost: PassCost,
    ) -> None:
        self.tokens, self.predictions = tables
        self.cost = cost
        self.context_numbers: Int[Tensor, " batch"] | None = None
        """Number in the chunk of each context of the batch, where they were numbered."""
        self.clean: CleanPredictions | None = None
        self._subject, self._batch, self._needs = subject, batch, needs
        self._calibration, self._constants, self._name = calibration, constants, name
        self._activations: Mapping[str, Float[Tensor, "batch position d_model"]] = {}
        self._pass: SubjectPass | None = None

    def run_clean(self, sites: Sequence[str]) -> None:
        """The clean pass, with logits only where a metric needs losses.

        Raises:
            SubjectError: the loss is not finite.
        """
        batch = self._batch
        with self.cost.step("clean_pass"):
            if not self._needs:
                self._activations = self._subject.read(batch.tokens, sites, batch.attention_mask)
                return
            clean_pass = self._subject.read_with_logits(batch.tokens, sites, batch.attention_mask)
            self._keep(clean_pass)

    def _keep(self, clean_pass: SubjectPass) -> None:
        rows = self.predictions
        self._activations = clean_pass.activations
        self.clean = clean_predictions(_flat(clean_pass.logits), rows.flat_index, rows.target)
        # Its logits are not read again: as the largest tensor of the pass they go before others like it are
        # made.
        self._pass = replace(clean_pass, logits=clean_pass.logits[:, :, :0].clone())
        if not bool(torch.isfinite(self.clean.cross_entropy).all()):
            raise SubjectError(
                "the subject's loss is not finite", where=self._name, remedy="load it in float32"
            )

    def activations(self, site: str) -> Float[Tensor, "token d_model"]:
        """The clean activations of a site at the real tokens, at least in float32."""
        # On the subject's first device, wherever a device map has the site.
        activations = _flat(self._activations[site]).to(self._subject.device)[self.tokens.flat_index]
        return activations.to(torch.promote_types(activations.dtype, torch.float32))

    def reading(self, site: str) -> SiteReading:
        """The clean activations of a site, with what dictionaries judged there share."""
        x = self.activations(site)
        calibration = self._calibration[site]
        means = SiteMeans(calibration.mean.to(x.device, x.dtype), calibration.unit_mean.to(x.device, x.dtype))
        reading = SiteReading(site, x, means)
        reading.check_finite(self._name)
        return reading

    def ablated(self, reading: SiteReading) -> Ablated:
        """Losses with the site replaced by zeros and by the calibration mean, where a metric wants them.

        Raises:
            SubjectError: a loss is not finite.
        """
        with self.cost.step("ablated_passes"):
            zero = self._ablated_loss(reading, "zero") if "zero" in self._needs else None
            mean = self._ablated_loss(reading, "mean") if "mean" in self._needs else None
        return Ablated(zero, mean)

    def _ablated_loss(self, reading: SiteReading, ablation: Ablation) -> Float[Tensor, " prediction"]:
        rows = self.predictions
        loss = self._constants.losses(reading, ablation, rows.target)
        if loss is None:
            logits = self._logits(reading.site, ablation_vector(reading, ablation).expand_as(reading.x))
            loss = cross_entropy(logits, rows.flat_index, rows.target)
        if not bool(torch.isfinite(loss).all()):
            raise SubjectError(
                "loss with the site ablated is not finite", where=f"{reading.site}, {self._name}"
            )
        return loss

    def losses(
        self, reading: SiteReading, x_hat: Float[Tensor, "token d_model"], ablated: Ablated
    ) -> SubstitutionLosses | None:
        """The substituted pass; None where no metric wants one."""
        if self.clean is None:
            return None
        rows = self.predictions
        with self.cost.step("substituted_passes"):
            logits = self._logits(reading.site, x_hat)
            losses = substituted_losses(self.clean, logits, rows.flat_index, rows.target)
        return SubstitutionLosses(
            rows, self.clean.cross_entropy, losses.cross_entropy, losses.kl, ablated.zero, ablated.mean
        )

    def _logits(self, site: str, values: Float[Tensor, "token d_model"]) -> Float[Tensor, "place vocabulary"]:
        """Logits with the site replaced at every real token, position 0 included; padding stays as it was."""
        clean = self._activations[site]
        grid = clean.clone(memory_format=torch.contiguous_format)
        _flat(grid)[self.tokens.flat_index.to(grid.device)] = values.to(grid)
        return _flat(self._subject.logits_from(site, grid, self._pass))


def _flat(grid: Float[Tensor, "batch position width"]) -> Float[Tensor, "place width"]:
    return grid.reshape(-1, grid.shape[-1])
