"""The steps of a run, in order: calibrate -> add nulls -> one pass over the text -> observations."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import polars as pl
import torch

from autointerp.checkpoints.activation_functions import TopK
from autointerp.checkpoints.random_dictionary import random_dictionary, with_output_scale
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import Suite
from autointerp.evaluation.inputs import Measurable, context_options, summary_of
from autointerp.metrics.calibration import calibrate, mean_active_count, output_scales, own_space_mean
from autointerp.metrics.catalogue import families
from autointerp.metrics.reconstruction import DEAD_FRACTION, dead_observations, latent_densities
from autointerp.progress import Advance, Progress
from autointerp.records import observation_frame
from autointerp.run_store import MemoryStore, RunStore
from autointerp.sampling.activation_pass import (
    ActivationPass,
    PassCost,
    read_firing_totals,
    read_observations,
    read_tokens,
)
from autointerp.sampling.contexts import CorpusChunk, DocumentSource, Split, corpus_chunks
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
        """Time the block, and note it."""
        begun = time.perf_counter()
        yield
        self.note(name, time.perf_counter() - begun)

    def note(self, name: str, seconds: float) -> None:
        """Keep a step's seconds for the report, and write them to the run's events."""
        self.seconds[name] = round(seconds, 3)
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
        BadInputError: there is too little text, or the subject's activations are not finite.
    """
    with work.clock.step("calibration"):
        calibration = _calibration(work, entries)
    with work.clock.step("nulls"):
        measurables = [*entries, *_nulls(work, entries, calibration)]
    with work.clock.step("activation pass"):
        cost = _pass(work, [entry.checkpoint for entry in measurables], calibration)
    with work.clock.step("observations"):
        observations = _observations(work, measurables, cost)
    return Findings(measurables, calibration, cost, observations)


def _calibration(work: Work, entries: Sequence[Measurable]) -> dict[str, SiteCalibration]:
    """Averages per site; kept as shards, so that a resumed run goes on with the very same ones."""
    sites = sorted({entry.summary.site for entry in entries})
    if not all(work.store.has(_calibration_key(site)) for site in sites):
        token_count = work.suite.corpus.calibration_tokens
        with work.progress.step("calibrating", total=token_count, unit="token") as advance:
            found = calibrate(work.subject, sites, _told(work.chunks("calibration", token_count), advance))
        for site, calibration in found.items():
            work.store.write(_calibration_key(site), _calibration_frame(calibration))
    return {site: _read_calibration(work.store.read(_calibration_key(site))) for site in sites}


def _calibration_key(site: str) -> str:
    return f"calibration/{site}"


def _calibration_frame(calibration: SiteCalibration) -> pl.DataFrame:
    """One row; float64 values, so that nothing is lost."""
    return pl.DataFrame(
        {
            "mean": [calibration.mean.tolist()],
            "unit_mean": [calibration.unit_mean.tolist()],
            "mean_squared_norm": [calibration.mean_squared_norm],
            "token_count": [calibration.token_count],
        }
    )


def _read_calibration(frame: pl.DataFrame) -> SiteCalibration:
    row = frame.row(0, named=True)
    mean, unit_mean = (torch.tensor(row[name], dtype=torch.float64) for name in ("mean", "unit_mean"))
    return SiteCalibration(mean, unit_mean, row["mean_squared_norm"], row["token_count"])


def _told(chunks: Iterator[CorpusChunk], advance: Advance) -> Iterator[CorpusChunk]:
    for chunk in chunks:
        yield chunk
        advance(chunk.token_count)


def _nulls(
    work: Work, entries: Sequence[Measurable], calibration: Mapping[str, SiteCalibration]
) -> list[Measurable]:
    """Random dictionaries for each site, their output scales fitted on the calibration tokens."""
    made: list[Checkpoint] = []
    for site in sorted({entry.summary.site for entry in entries}):
        model = _model_of_null([entry for entry in entries if entry.summary.site == site])
        made += _random_dictionaries(work, model, calibration[site], count_before=len(made))
    if not made:
        return []
    if not work.store.has(_SCALES):
        token_count = work.suite.corpus.calibration_tokens
        with work.progress.step("fitting nulls", total=token_count, unit="token") as advance:
            scales = output_scales(
                work.subject, made, _told(work.chunks("calibration", token_count), advance)
            )
        work.store.write(_SCALES, pl.DataFrame({"name": [null.name for null in made], "scale": scales}))
    fitted = dict(work.store.read(_SCALES).select("name", "scale").iter_rows())
    nulls = [replace(null, sae=with_output_scale(null.sae, fitted[null.name])) for null in made]
    return [Measurable(null, summary_of(null.name, null.sae, null.site, role="null")) for null in nulls]


_SCALES = "nulls/scales"


def _model_of_null(entries: Sequence[Measurable]) -> Checkpoint:
    """The widest and then densest TopK checkpoint of a site; without TopK the widest of all."""
    topk = [entry for entry in entries if _k(entry.checkpoint.sae)]
    chosen = max(topk or entries, key=lambda entry: (entry.summary.latent_count, _k(entry.checkpoint.sae)))
    return chosen.checkpoint


def _random_dictionaries(
    work: Work, like: Checkpoint, calibration: SiteCalibration, *, count_before: int
) -> list[Checkpoint]:
    mean = own_space_mean(calibration, like.sae.normalization)
    k, note = _k(like.sae), f"shape and k of {like.name}"
    count = work.suite.nulls.random_dictionaries
    if not k and count:
        k = _borrowed_k(work, like)
        note = f"shape of {like.name}, k = its mean L0 on calibration text, rounded"
    made = []
    for index in range(count_before, count_before + count):
        generator = torch.Generator().manual_seed(work.suite.seed * 1_000_003 + index)
        sae = random_dictionary(like.sae, mean, generator=generator, k=k)
        sae = replace(sae, metadata=replace(sae.metadata, notes=(*sae.metadata.notes, note)))
        made.append(Checkpoint(f"random dictionary {index + 1}", sae, like.site))
    return made


def _borrowed_k(work: Work, like: Checkpoint) -> int:
    """The mean L0 of a dictionary without k, rounded; kept, so that a resumed run has the very same null."""
    key = f"nulls/k/{like.site}"
    if not work.store.has(key):
        token_count = min(_L0_TOKENS, work.suite.corpus.calibration_tokens)
        active = mean_active_count(work.subject, like, work.chunks("calibration", token_count))
        k = min(max(1, round(active)), like.sae.latent_count)
        work.store.write(key, pl.DataFrame({"k": [k]}))
    return int(work.store.read(key)["k"].item())


_L0_TOKENS = 8192
"""Calibration tokens over which the L0 of a dictionary without k is taken for its null."""


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


def _observations(work: Work, measurables: Sequence[Measurable], cost: PassCost) -> pl.DataFrame:
    """Everything the pass saw, with the latents' firing as observations too."""
    observed = read_observations(work.store, cost.chunk_names)
    if "reconstruction" not in work.suite.metrics.families:
        return observed
    documents = read_tokens(work.store, cost.chunk_names)
    firing = read_firing_totals(work.store, cost.chunk_names)
    failed = observed.filter((pl.col("metric") == DEAD_FRACTION) & (pl.col("status") == "failed"))
    whole = {
        entry.summary.name: entry.summary.latent_count
        for entry in measurables
        if entry.summary.name not in failed["checkpoint"]
    }
    return pl.concat(
        [
            observed,
            dead_observations(firing, documents, whole),
            _density_observations(latent_densities(firing, documents, whole), documents),
            # What fired in the chunks before a dictionary failed says nothing of all tokens.
            failed.with_columns(metric=pl.lit(DENSITY)),
        ]
    )


def _density_observations(densities: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    return observation_frame(
        checkpoint=densities["checkpoint"],
        metric=DENSITY,
        unit=densities["latent"].cast(pl.String),
        numerator=densities["tokens_fired"].cast(pl.Float64),
        denominator=float(documents["token_count"].sum()),
    )
