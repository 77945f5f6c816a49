"""One dictionary, batch by batch -> its observations of a chunk; what goes wrong is a row with a reason."""

from collections.abc import Iterable, Sequence

import polars as pl
import torch

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

__all__ = ["Recorder"]


class Recorder:
    """What one dictionary leaves behind in one chunk: its metrics, its firing, or why it failed."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        wanted: frozenset[str],
        metrics: Sequence[tuple[MetricFamily, ChunkMetric]],
        firing: LatentFiring,
        chunk_name: str,
    ) -> None:
        self.checkpoint = checkpoint
        self._wanted = wanted
        self._metrics = metrics
        self._firing = firing
        self._chunk_name = chunk_name
        self._failures: dict[str, str] = {}

    @property
    def has_failed(self) -> bool:
        """Whether nothing is left to be measured."""
        return self._failures.keys() >= self._wanted

    def update(self, work: BatchPasses, reading: SiteReading, ablated: Ablated) -> None:
        """Reconstruct, substitute and let every family look; what goes wrong is kept as a reason."""
        try:
            batch = self._reconstructed(work, reading, ablated)
            with work.cost.step("metrics"):
                self._firing.update(batch)
        except (AutointerpError, ValueError, RuntimeError) as error:
            self._fail(self._wanted, error)
            return
        with work.cost.step("metrics"):
            for family, metric in self._metrics:
                try:
                    metric.update(batch)
                except (AutointerpError, ValueError, RuntimeError) as error:
                    self._fail(self._wanted.intersection(family.metrics), error)

    def _reconstructed(
        self, work: BatchPasses, reading: SiteReading, ablated: Ablated
    ) -> BatchReconstruction:
        sae, reads = self.checkpoint.sae, self.checkpoint.reads
        x = reading.x if reads == reading.site else work.activations(reads)
        if (sae.d_model, sae.d_out) != (x.shape[1], reading.x.shape[1]):
            raise CheckpointError(
                f"d_model is {sae.d_model}, the site's width {x.shape[1]}"
                if sae.d_model != x.shape[1]
                else f"d_out is {sae.d_out}, the output site's width {reading.x.shape[1]}"
            )
        if not bool(torch.isfinite(x).all()):
            raise SubjectError("activations are not finite", where=f"site {reads}")
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
