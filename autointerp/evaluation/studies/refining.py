"""The first tokens of the evaluated text -> what refined activations gain, chunk by chunk."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import torch

from autointerp.errors import CheckpointError, SubjectError
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.steps import read_calibration
from autointerp.evaluation.studies.study import Studied, failure_reason
from autointerp.evaluation.work import Work
from autointerp.metrics.refinement import REFINEMENT_METRICS, RefinementSums, loss_terms, value_terms
from autointerp.metrics.refinement_values import refined_reconstruction
from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition
from autointerp.sampling.batch_passes import Ablated, BatchPasses, PassCost
from autointerp.sampling.constant_ablation import ConstantAblations
from autointerp.sampling.contexts import CorpusChunk, TokenBatch
from autointerp.sampling.document_sums import failed_observations
from autointerp.sampling.readings import Need, PredictionTable, SiteCalibration, SiteReading, TokenTable
from autointerp.sampling.spill import slug

__all__ = ["REFINING", "Refining"]

_NAMES = tuple(metric.name for metric in REFINEMENT_METRICS)
_NEEDS: frozenset[Need] = frozenset({"substituted"})
_NOT_ABLATED = Ablated(None, None)


class Refining:
    """The family `refinement`: two substituted passes a dictionary, and the refinement between them."""

    family = "refinement"
    title = "refining activations"

    @property
    def metrics(self) -> Sequence[MetricDefinition]:
        """All that it observes."""
        return REFINEMENT_METRICS

    @torch.no_grad()
    def observe(self, work: Work, entries: Sequence[Measurable]) -> Studied:
        """Observations of every dictionary, documents as units; a chunk that is done is not done again."""
        settings = work.suite.refinement
        sites = {entry.checkpoint.site for entry in entries}
        pass_ = _Pass(work, {site: read_calibration(work.store, site) for site in sites})
        frames = [pl.DataFrame(schema=OBSERVATION_SCHEMA)]
        token_count = 0
        with work.progress.step(self.title, total=settings.tokens, unit="token") as advance:
            for chunk in work.chunks("evaluation", settings.tokens):
                frames += pass_.measured(chunk, entries)
                token_count += chunk.token_count
                advance(chunk.token_count)
        return Studied(pl.concat(frames), self._facts(work, token_count) if entries else {})

    def _facts(self, work: Work, token_count: int) -> dict[str, Any]:
        settings = work.suite.refinement
        return {
            "token_count": token_count,
            "tolerance": settings.tolerance,
            "rounds": settings.rounds,
            "error": "squared error in the dictionary's own normalised space, token by token",
            "support": "frozen; values not below 0 where the activation function's never are",
        }


REFINING = Refining()


class _Pass:
    """What all chunks have in common."""

    def __init__(self, work: Work, calibration: Mapping[str, SiteCalibration]) -> None:
        self._work, self._calibration = work, calibration
        self._constants = ConstantAblations(work.subject)
        self._cost = PassCost()

    def measured(self, chunk: CorpusChunk, entries: Sequence[Measurable]) -> list[pl.DataFrame]:
        """Observations of a chunk by dictionary, from the store where they are whole."""
        store = self._work.store
        keys = {entry.summary.name: _key(entry.summary.name, chunk) for entry in entries}
        missing = [entry for entry in entries if not self._is_done(keys[entry.summary.name])]
        if missing:
            for name, frame in self._chunk(chunk, missing).items():
                store.write(keys[name], frame)
        return [store.read(key) for key in keys.values()]

    def _is_done(self, key: str) -> bool:
        """A failure may have been the machine's fault: it is tried again."""
        store = self._work.store
        return store.has(key) and not (store.read(key)["status"] == "failed").any()

    def _chunk(self, chunk: CorpusChunk, entries: Sequence[Measurable]) -> dict[str, pl.DataFrame]:
        recorders = [_Recorder(self._work, entry, chunk) for entry in entries]
        sites = sorted({site for entry in entries for site in entry.checkpoint.sites})
        for index, batch in enumerate(chunk.batches):
            passes = self._clean(batch, sites, f"chunk {chunk.index}, batch {index}")
            for site in sorted({entry.checkpoint.site for entry in entries}):
                reading = passes.reading(site)
                for recorder in recorders:
                    if recorder.entry.checkpoint.site == site:
                        recorder.update(passes, reading)
            del passes  # its clean log-probabilities go before the next batch's are made
        for entry in entries:
            entry.check_unchanged()
        return {recorder.entry.summary.name: recorder.observations() for recorder in recorders}

    def _clean(self, batch: TokenBatch, sites: Sequence[str], name: str) -> BatchPasses:
        batch = batch.to(self._work.subject.device)
        passes = BatchPasses(
            self._work.subject,
            batch,
            (TokenTable.of(batch), PredictionTable.of(batch)),
            needs=_NEEDS,
            calibration=self._calibration,
            constants=self._constants,
            name=name,
            cost=self._cost,
        )
        passes.run_clean(sites)
        return passes


class _Recorder:
    """One dictionary's way through one chunk: sums, or why there are none."""

    def __init__(self, work: Work, entry: Measurable, chunk: CorpusChunk) -> None:
        self.entry = entry
        self._settings = work.suite.refinement
        self._sums = RefinementSums(entry.summary.name, chunk.document_ids)
        self._index = chunk.index
        self._failure = ""

    def update(self, passes: BatchPasses, reading: SiteReading) -> None:
        """Refine a batch; after a failure there is nothing more to do in this chunk."""
        if self._failure:
            return
        try:
            self._measure(passes, reading)
        except Exception as error:  # whatever a dictionary can raise is a row, not the end of the run
            self._failure = failure_reason(error)

    def _measure(self, passes: BatchPasses, reading: SiteReading) -> None:
        checkpoint, settings = self.entry.checkpoint, self._settings
        x = passes.activations(checkpoint.reads)
        if not bool(torch.isfinite(x).all()):
            raise SubjectError("activations are not finite", where=f"site {checkpoint.reads}")
        found = refined_reconstruction(
            checkpoint.sae, x, reading.x, tolerance=settings.tolerance, rounds=settings.rounds
        )
        if not bool(torch.isfinite(found.before + found.after).all()):
            raise CheckpointError("its reconstruction is not finite")
        self._sums.add_tokens(passes.tokens, value_terms(reading, found))
        before, after = (
            passes.losses(reading, each.to(reading.x), _NOT_ABLATED) for each in (found.before, found.after)
        )
        assert before is not None and after is not None  # the clean pass was made for them
        if not bool(torch.isfinite(before.substituted + after.substituted).all()):
            raise CheckpointError("the loss with its reconstruction put in is not finite")
        self._sums.add_losses(after, loss_terms(before, after))

    def observations(self) -> pl.DataFrame:
        """The chunk's rows."""
        if self._failure:
            name, unit = self.entry.summary.name, f"chunk {self._index}"
            return failed_observations(name, _NAMES, unit=unit, reason=f"{unit}: {self._failure}")
        return self._sums.observations()


def _key(name: str, chunk: CorpusChunk) -> str:
    """Holds the documents' hash, so that another text's chunk is never taken for this one."""
    return f"refinement/{slug(name)}/{chunk.index:06d}-{chunk.sha256[:12]}"
