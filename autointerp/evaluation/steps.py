"""The steps of a run: calibrate -> look once -> add nulls -> one pass over the text -> observations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import torch

from autointerp.evaluation.first_look import first_look
from autointerp.evaluation.inputs import Measurable, computing
from autointerp.evaluation.nulls import nulls
from autointerp.evaluation.sampling import spill_plan
from autointerp.evaluation.work import Work, told
from autointerp.metrics.calibration import calibrate
from autointerp.metrics.catalogue import families
from autointerp.metrics.density_spectrum import MEAN_DENSITY_OF_DENSEST, densest_observations
from autointerp.metrics.reconstruction import DEAD_FRACTION, dead_observations, latent_densities
from autointerp.records import OBSERVATION_SCHEMA, observation_frame
from autointerp.sampling.activation_pass import (
    ActivationPass,
    PassCost,
    ShardStore,
    read_firing_totals,
    read_observations,
    read_tokens,
)
from autointerp.sampling.document_sums import failed_observations
from autointerp.sampling.readings import SiteCalibration
from autointerp.sampling.recorder import FIRINGS

__all__ = ["DENSITY", "Findings", "measure", "read_calibration"]

DENSITY = "reconstruction.latent_density"
"""Metric of the observations that hold every latent's density; drawn by the report, no single number."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What the pass over the text found, before any statistics."""

    measurables: Sequence[Measurable]
    """The checkpoints, and the nulls made for them."""
    calibration: Mapping[str, SiteCalibration]
    cost: PassCost
    observations: pl.DataFrame
    without_firings: Mapping[str, tuple[str, str]]
    """By name, (status, reason) of the dictionaries whose firings are not whole."""


def measure(work: Work, entries: Sequence[Measurable]) -> Findings:
    """The steps of a run that need the subject.

    Raises:
        BadInputError: there is too little text, or the subject's activations are not finite.
    """
    with work.clock.step("calibration"):
        calibration = _calibration(work, entries)
    with work.clock.step("first look"):
        stopped = first_look(work, entries, calibration)
    with work.clock.step("nulls"):
        sound = [entry for entry in entries if entry.summary.name not in stopped]
        made, skipped = nulls(work, sound, calibration)
        made = [_computing(entry, work) for entry in made]
    with work.clock.step("activation pass"):
        going = [entry for entry in made if entry.summary.name not in skipped]
        cost = _pass(work, [*sound, *going], calibration)
    measurables = [*entries, *made]
    with work.clock.step("observations"):
        observed = read_observations(work.store, cost.chunk_names)
        is_firings = pl.col("metric") == FIRINGS
        lost = {row["checkpoint"]: row["reason"] for row in observed.filter(is_firings).iter_rows(named=True)}
        left_out = {"failed": stopped, "skipped": skipped}
        observations = _observations(work, measurables, cost, observed.filter(~is_firings), left_out)
    reasons = {
        name: (status, reason)
        for status, found in [*left_out.items(), ("failed", lost)]
        for name, reason in found.items()
    }
    return Findings(measurables, calibration, cost, observations, reasons)


def _calibration(work: Work, entries: Sequence[Measurable]) -> dict[str, SiteCalibration]:
    """Averages per site; kept as shards, so that a resumed run goes on with the very same ones."""
    sites = sorted({site for entry in entries for site in entry.checkpoint.sites})
    if not all(work.store.has(_calibration_key(site)) for site in sites):
        token_count = work.suite.corpus.calibration_tokens
        with work.progress.step("calibrating", total=token_count, unit="token") as advance:
            found = calibrate(work.subject, sites, told(work.chunks("calibration", token_count), advance))
        for site, calibration in found.items():
            work.store.write(_calibration_key(site), _calibration_frame(calibration))
    return {site: read_calibration(work.store, site) for site in sites}


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


def read_calibration(store: ShardStore, site: str) -> SiteCalibration:
    """A site's averages as the run made and kept them; KeyError where it did not."""
    row = store.read(_calibration_key(site)).row(0, named=True)
    mean, unit_mean = (torch.tensor(row[name], dtype=torch.float64) for name in ("mean", "unit_mean"))
    return SiteCalibration(mean, unit_mean, row["mean_squared_norm"], row["token_count"])


def _computing(entry: Measurable, work: Work) -> Measurable:
    """A null in the precision of what it is compared with."""
    sae = computing(entry.checkpoint.sae, work.suite)
    return replace(entry, checkpoint=replace(entry.checkpoint, sae=sae))


def _pass(work: Work, entries: Sequence[Measurable], calibration: Mapping[str, SiteCalibration]) -> PassCost:
    token_count = work.suite.corpus.evaluation_tokens
    checkpoints = [entry.checkpoint for entry in entries]
    activation_pass = ActivationPass(
        work.subject,
        checkpoints,
        families(work.suite.metrics.families),
        calibration,
        spill=spill_plan(work.suite.seed, work.suite.sampling, entries),
    )

    def check() -> None:
        for entry in entries:
            entry.check_unchanged()

    with work.progress.step("evaluating", total=token_count, unit="token") as advance:
        return activation_pass.run(
            work.chunks("evaluation", token_count),
            work.store,
            before_keeping=check,
            progress=lambda chunk, _: advance(chunk.token_count),
        )


def _observations(
    work: Work,
    measurables: Sequence[Measurable],
    cost: PassCost,
    seen: pl.DataFrame,
    left_out: Mapping[str, Mapping[str, str]],
) -> pl.DataFrame:
    """Everything the pass saw, the latents' firing as observations too, and rows for what it left out."""
    skipped = left_out["skipped"]
    wanted = sorted(name for family in families(work.suite.metrics.families) for name in family.metrics)
    missing = [
        failed_observations(name, wanted, unit="first look", reason=reason, status=status)
        for status, reasons in left_out.items()
        for name, reason in reasons.items()
    ]
    observed = pl.concat([seen, *missing])
    if "reconstruction" not in work.suite.metrics.families:
        return observed
    documents = read_tokens(work.store, cost.chunk_names)
    firing = read_firing_totals(work.store, cost.chunk_names)
    failed = observed.filter((pl.col("metric") == DEAD_FRACTION) & (pl.col("status") == "failed"))
    whole = [
        entry
        for entry in measurables
        if entry.summary.name not in failed["checkpoint"] and entry.summary.name not in skipped
    ]
    latent_counts = {entry.summary.name: entry.summary.latent_count for entry in whole}
    densities = latent_densities(firing, documents, latent_counts)
    return pl.concat(
        [
            observed,
            dead_observations(firing, documents, latent_counts),
            _density_observations(densities, documents),
            _densest(work, whole, cost, densities, documents),
            # What fired in the chunks before a dictionary failed says nothing of all tokens.
            failed.with_columns(metric=pl.lit(DENSITY)),
        ]
    )


def _densest(
    work: Work,
    entries: Sequence[Measurable],
    cost: PassCost,
    densities: pl.DataFrame,
    documents: pl.DataFrame,
) -> pl.DataFrame:
    """Of the densest latents by document, which only kept firings tell."""
    if not work.suite.sampling.enabled:
        reason = "how often a latent fires in each document is known only where sampling is enabled"
        names = [entry.summary.name for entry in entries]
        rows = [
            failed_observations(name, [MEAN_DENSITY_OF_DENSEST], unit="all", reason=reason, status="skipped")
            for name in names
        ]
        return pl.concat([pl.DataFrame(schema=OBSERVATION_SCHEMA), *rows])
    widths = {entry.summary.name: entry.summary.d_model for entry in entries}
    return densest_observations(work.store, cost.chunk_names, densities, documents, widths)


def _density_observations(densities: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    return observation_frame(
        checkpoint=densities["checkpoint"],
        metric=DENSITY,
        unit=densities["latent"].cast(pl.String),
        numerator=densities["tokens_fired"].cast(pl.Float64),
        denominator=float(documents["token_count"].sum()),
    )
