"""The steps of a run, in order: calibrate -> add nulls -> one pass over the text -> observations."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import polars as pl
import torch

from autointerp.checkpoints.activation_functions import TopK
from autointerp.checkpoints.random_dictionary import random_dictionary
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import Suite
from autointerp.evaluation.inputs import Measurable, context_options, refuse_misfit, summary_of
from autointerp.metrics.calibration import calibrate, fit_output_scales, own_space_mean
from autointerp.metrics.catalogue import families
from autointerp.metrics.reconstruction import dead_observations, latent_densities
from autointerp.progress import Advance, Progress
from autointerp.records import observation_frame
from autointerp.run_store import MemoryStore, RunStore
from autointerp.sampling.activation_pass import (
    ActivationPass,
    PassCost,
    read_firing,
    read_observations,
    read_tokens,
)
from autointerp.sampling.contexts import CorpusChunk, DocumentSource, Split, corpus_chunks
from autointerp.sampling.latent_firing import total_firing
from autointerp.sampling.readings import Checkpoint, SiteCalibration
from autointerp.subject.subject_model import SubjectModel

__all__ = ["DENSITY", "Clock", "Findings", "Work", "measure"]

DENSITY = "reconstruction.latent_density"
"""Metric of the observations that hold every latent's density; drawn by the report, no single number."""


@dataclass
class Clock:
    """Seconds per step, for the report and the run's events."""

    store: RunStore | MemoryStore
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block, and note it in the run's events."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 3)
        self.store.event("step", name=name, seconds=self.seconds[name])


@dataclass(frozen=True, eq=False)
class Work:
    """What all steps need: the subject, the text and where results are kept."""

    suite: Suite
    subject: SubjectModel
    corpus: DocumentSource
    store: RunStore | MemoryStore
    clock: Clock
    progress: Progress

    def chunks(self, split: Split, token_count: int) -> Iterator[CorpusChunk]:
        """The text of one split, lazily, the same every time."""
        runtime, corpus = self.suite.runtime, self.suite.corpus
        return corpus_chunks(
            self.corpus,
            self.subject.tokenizer,
            context_options(corpus),
            batch_tokens=runtime.batch_tokens,
            chunk_tokens=runtime.chunk_tokens,
            max_tokens=token_count,
            split=split,
            calibration_fraction=corpus.calibration_fraction,
        )


@dataclass(frozen=True, eq=False)
class Findings:
    """What the pass over the text found, before any statistics."""

    measurables: Sequence[Measurable]
    """The checkpoints, and the nulls made for them."""
    calibration: Mapping[str, SiteCalibration]
    cost: PassCost
    observations: pl.DataFrame


def measure(work: Work, entries: Sequence[Measurable]) -> Findings:
    """The steps of a run that need the subject.

    Raises:
        BadInputError: a dictionary does not fit its site, or there is too little text.
    """
    for entry in entries:
        refuse_misfit(entry, work.subject)
    with work.clock.step("calibration"):
        calibration = _calibration(work, entries)
    with work.clock.step("nulls"):
        measurables = [*entries, *_nulls(work, entries, calibration)]
    with work.clock.step("activation pass"):
        cost = _pass(work, [entry.checkpoint for entry in measurables], calibration)
    with work.clock.step("observations"):
        observations = _observations(work, measurables)
    return Findings(measurables, calibration, cost, observations)


def _calibration(work: Work, entries: Sequence[Measurable]) -> dict[str, SiteCalibration]:
    sites = sorted({entry.summary.site for entry in entries})
    token_count = work.suite.corpus.calibration_tokens
    with work.progress.step("calibrating", total=token_count, unit="token") as advance:
        return calibrate(work.subject, sites, _told(work.chunks("calibration", token_count), advance))


def _told(chunks: Iterator[CorpusChunk], advance: Advance) -> Iterator[CorpusChunk]:
    for chunk in chunks:
        yield chunk
        advance(chunk.token_count)


def _nulls(
    work: Work, entries: Sequence[Measurable], calibration: Mapping[str, SiteCalibration]
) -> list[Measurable]:
    """Random dictionaries, shaped like the widest and then densest TopK checkpoint of each site."""
    made = []
    for site in sorted({entry.summary.site for entry in entries}):
        topk = [entry for entry in entries if entry.summary.site == site and _k(entry.checkpoint.sae)]
        if topk:
            like = max(topk, key=lambda entry: (entry.summary.latent_count, _k(entry.checkpoint.sae)))
            made += _random_dictionaries(
                work.suite, like.checkpoint, calibration[site], count_before=len(made)
            )
    if not made:
        return []
    token_count = work.suite.corpus.calibration_tokens
    with work.progress.step("fitting nulls", total=token_count, unit="token") as advance:
        fitted = fit_output_scales(
            work.subject, made, _told(work.chunks("calibration", token_count), advance)
        )
    return [Measurable(null, summary_of(null.name, null.sae, null.site, role="null")) for null in fitted]


def _random_dictionaries(
    suite: Suite, like: Checkpoint, calibration: SiteCalibration, *, count_before: int
) -> list[Checkpoint]:
    mean = own_space_mean(calibration, like.sae.normalization)
    made = []
    for index in range(count_before, count_before + suite.nulls.random_dictionaries):
        generator = torch.Generator().manual_seed(suite.seed * 1_000_003 + index)
        sae = random_dictionary(like.sae, mean, generator=generator)
        note = f"shape and k of {like.name}"
        sae = replace(sae, metadata=replace(sae.metadata, notes=(*sae.metadata.notes, note)))
        made.append(Checkpoint(f"random dictionary {index + 1}", sae, like.site))
    return made


def _k(sae: SparseAutoencoder) -> int:
    return sae.activation.k if isinstance(sae.activation, TopK) else 0


def _pass(
    work: Work, checkpoints: Sequence[Checkpoint], calibration: Mapping[str, SiteCalibration]
) -> PassCost:
    token_count = work.suite.corpus.evaluation_tokens
    activation_pass = ActivationPass(
        work.subject, checkpoints, families(work.suite.metrics.families), calibration
    )
    with work.progress.step("evaluating", total=token_count, unit="token") as advance:
        return activation_pass.run(
            work.chunks("evaluation", token_count),
            work.store,
            progress=lambda chunk, _: advance(chunk.token_count),
        )


def _observations(work: Work, measurables: Sequence[Measurable]) -> pl.DataFrame:
    """Everything the pass saw, with the latents' firing as observations too."""
    firing, documents = total_firing(read_firing(work.store)), read_tokens(work.store)
    latent_counts = {entry.summary.name: entry.summary.latent_count for entry in measurables}
    densities = latent_densities(firing, documents, latent_counts)
    frames = [read_observations(work.store)]
    if "reconstruction" in work.suite.metrics.families:
        frames += [
            dead_observations(firing, documents, latent_counts),
            observation_frame(
                checkpoint=densities["checkpoint"],
                metric=DENSITY,
                unit=densities["latent"].cast(pl.String),
                numerator=densities["tokens_fired"].cast(pl.Float64),
                denominator=float(documents["token_count"].sum()),
            ),
        ]
    return pl.concat(frames)
