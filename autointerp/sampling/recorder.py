"""One dictionary, batch by batch -> its observations and firings; what goes wrong is a row with a reason."""

from collections.abc import Iterable, Sequence

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.errors import AutointerpError, CheckpointError, SubjectError
from autointerp.records import OBSERVATION_SCHEMA
from autointerp.sampling.batch_passes import Ablated, BatchPasses
from autointerp.sampling.document_sums import failed_observations
from autointerp.sampling.latent_firing import LatentFiring
from autointerp.sampling.readings import (
    BatchReconstruction,
    Checkpoint,
    ChunkMetric,
    MetricFamily,
    SiteReading,
)
from autointerp.sampling.spill import DictionarySpill

__all__ = ["FIRINGS", "Recorder"]

FIRINGS = "sampling.firings"
"""What stands in the column `metric` of the row that says why a dictionary's firings could not be kept."""


class Recorder:
    """What one dictionary leaves behind in one chunk: its metrics, its firing, or why it failed."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        wanted: frozenset[str],
        metrics: Sequence[tuple[MetricFamily, ChunkMetric]],
        firing: LatentFiring,
        chunk_name: str,
        *,
        spill: DictionarySpill | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self._wanted = wanted if spill is None else wanted | {FIRINGS}
        """Metrics, and the firings where they are kept."""
        self._spill = spill
        self._metrics = metrics
        self._firing = firing
        self._chunk_name = chunk_name
        self._failures: dict[str, str] = {}

    @property
    def has_failed(self) -> bool:
        """Whether nothing is left to be measured."""
        return self._failures.keys() >= self._wanted

    def update(self, work: BatchPasses, reading: SiteReading | None, ablated: Ablated | None) -> None:
        """Encode, keep what fires and let every family look; what goes wrong is kept as a reason.

        Args:
            work: the batch.
            reading: of the site where the dictionary is judged; None where no family looks.
            ablated: losses with that site ablated; None where no family looks.
        """
        try:
            x = self._input(work)
            batch = None
            if reading is not None and ablated is not None:
                batch = self._reconstructed(work, x, reading, ablated)
            self._note(work, x, self._encoded(work, x) if batch is None else batch.latents)
        except (AutointerpError, ValueError, RuntimeError) as error:
            self._fail(self._wanted, error)
            return
        if batch is None:
            return
        with work.cost.step("metrics"):
            for family, metric in self._metrics:
                try:
                    metric.update(batch)
                except (AutointerpError, ValueError, RuntimeError) as error:
                    self._fail(self._wanted.intersection(family.metrics), error)

    def _input(self, work: BatchPasses) -> Float[Tensor, "token d_model"]:
        sae, reads = self.checkpoint.sae, self.checkpoint.reads
        x = work.activations(reads)
        if sae.d_model != x.shape[1]:
            raise CheckpointError(f"d_model is {sae.d_model}, the site's width {x.shape[1]}")
        if not bool(torch.isfinite(x).all()):
            raise SubjectError("activations are not finite", where=f"site {reads}")
        return x

    def _encoded(self, work: BatchPasses, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        """What fires, without a reconstruction, which nobody wants."""
        with work.cost.step("encoding"):
            latents = self.checkpoint.sae.encode_sparse(x)
        if not bool(torch.isfinite(latents.values).all()):
            raise CheckpointError("its latents are not finite")
        return latents

    def _note(self, work: BatchPasses, x: Float[Tensor, "token d_model"], latents: SparseLatents) -> None:
        with work.cost.step("metrics"):
            self._firing.update(work.tokens, latents)
        if self._spill is not None:
            with work.cost.step("firings"):
                self._spill.update(x, work.tokens, latents, _numbers(work))

    def _reconstructed(
        self, work: BatchPasses, x: Float[Tensor, "token d_model"], reading: SiteReading, ablated: Ablated
    ) -> BatchReconstruction:
        sae = self.checkpoint.sae
        if sae.d_out != reading.x.shape[1]:
            raise CheckpointError(f"d_out is {sae.d_out}, the output site's width {reading.x.shape[1]}")
        with work.cost.step("reconstruction"):
            x_hat, latents = sae.reconstruct_sparse(x)
        if not bool(torch.isfinite(x_hat).all()):
            raise CheckpointError("its reconstruction is not finite")
        losses = work.losses(reading, x_hat, ablated)
        if losses is not None and not bool(torch.isfinite(losses.substituted + losses.kl).all()):
            raise CheckpointError("the loss with its reconstruction put in is not finite")
        x_hat = x_hat.to(reading.x)
        return BatchReconstruction(self.checkpoint.name, work.tokens, reading, x_hat, latents, losses)

    def _fail(self, metrics: Iterable[str], error: Exception) -> None:
        for metric in metrics:
            self._failures.setdefault(metric, f"{self._chunk_name}: {error}")

    def observations(self) -> pl.DataFrame:
        """Rows of what was measured, and one failed row for each metric that was not."""
        frames = [pl.DataFrame(schema=OBSERVATION_SCHEMA)]
        for _, metric in self._metrics:
            frame = metric.observations()
            frames.append(frame.filter(~pl.col("metric").is_in(list(self._failures))))
        for metric, reason in sorted(self._failures.items()):
            frames.append(
                failed_observations(self.checkpoint.name, [metric], unit=self._chunk_name, reason=reason)
            )
        return pl.concat(frames)

    def firing(self) -> pl.DataFrame:
        """Rows of the latents that fired."""
        return self._firing.frame(self.checkpoint.name)

    def shards(self, chunk: str) -> dict[str, pl.DataFrame]:
        """Every firing, to be kept under these keys; none where something went wrong."""
        if self._spill is None or FIRINGS in self._failures:
            return {}
        return self._spill.shards(chunk)


def _numbers(work: BatchPasses) -> Int[Tensor, " batch"]:
    assert work.context_numbers is not None  # the pass numbers contexts where it keeps firings
    return work.context_numbers
