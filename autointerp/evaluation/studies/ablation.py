"""Some tokens of the evaluated text -> what ablating one active latent of each dictionary does there."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.errors import BadInputError
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.steps import read_calibration
from autointerp.evaluation.studies.ablation_effects import Ablator
from autointerp.evaluation.studies.ablation_places import DrawnPlaces, PlaceGroup, draw_places, groups
from autointerp.evaluation.studies.ablation_readings import failed_readings, readings_of
from autointerp.evaluation.studies.ablation_rows import (
    Subtractions,
    channel_subtractions,
    latent_subtractions,
    random_subtractions,
)
from autointerp.evaluation.studies.study import Studied, failure_reason
from autointerp.evaluation.work import Work
from autointerp.metrics.ablation_observations import ABLATION_METRICS, READINGS, ablation_observations
from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition
from autointerp.sampling.document_sums import failed_observations
from autointerp.sampling.readings import Checkpoint
from autointerp.subject.continued_pass import KeptContexts, Starts

__all__ = ["ABLATION", "AblationStudy"]


class AblationStudy:
    """The family `ablation`: one latent at a time, one token at a time.

    Cost: one pass over the contexts that were drawn from, shared by all; and of each token and dictionary two
    continuations of T positions, see `subject.continued_pass`.
    """

    family = "ablation"
    title = "ablation"

    @property
    def metrics(self) -> Sequence[MetricDefinition]:
        """All that it observes."""
        return ABLATION_METRICS

    @torch.no_grad()
    def observe(self, work: Work, entries: Sequence[Measurable]) -> Studied:
        """Observations of every dictionary, ablated tokens as units, documents as clusters.

        The tokens are the same for all dictionaries. What is done is kept by group of contexts.
        """
        settings = work.suite.ablation
        if not entries:
            return Studied(pl.DataFrame(schema=OBSERVATION_SCHEMA))
        drawn = draw_places(
            work.chunks("evaluation", work.suite.corpus.evaluation_tokens),
            samples=settings.samples,
            horizon=settings.horizon,
            seed=work.suite.seed,
        )
        if not drawn.places:
            return Studied(_nothing(entries, settings.horizon))
        run = _Run(work, entries)
        frames = []
        with work.progress.step("ablating latents", total=len(drawn.places), unit="token") as advance:
            for group in groups(drawn.places):
                frames.append(run.readings(group))
                advance(len(group.places))
        readings = pl.concat(frames)
        return Studied(ablation_observations(readings), _facts(work, drawn, run))


ABLATION = AblationStudy()


def _nothing(entries: Sequence[Measurable], horizon: int) -> pl.DataFrame:
    reason = f"no context of the evaluated text has a token with {horizon - 1} after it"
    names = [metric.name for metric in ABLATION_METRICS]
    return pl.concat(
        [
            failed_observations(entry.summary.name, names, unit="all", reason=reason, status="undefined")
            for entry in entries
        ]
    )


def _facts(work: Work, drawn: DrawnPlaces, run: "_Run") -> dict[str, Any]:
    settings = work.suite.ablation
    return {
        "sample_count": len(drawn.places),
        "document_count": len({place.document for place in drawn.places}),
        "eligible_token_count": drawn.eligible_count,
        "too_late_token_count": drawn.scored_count - drawn.eligible_count,
        "horizon": settings.horizon,
        "subtract_from": settings.subtract_from,
        "precision": str(work.subject.dtype).removeprefix("torch."),
        "whole_contexts": run.whole_contexts(),
    }


class _Run:
    """What all groups of one run have in common."""

    def __init__(self, work: Work, entries: Sequence[Measurable]) -> None:
        self._work, self._entries = work, entries
        self._settings, self._seed = work.suite.ablation, work.suite.seed
        self._sites = sorted({entry.checkpoint.site for entry in entries})
        every = sorted({site for entry in entries for site in entry.checkpoint.sites})
        self._ablator = Ablator(work.subject, every, horizon=self._settings.horizon)
        self._means = {site: read_calibration(work.store, site).mean for site in self._sites}

    def whole_contexts(self) -> dict[str, str]:
        """By site, why whole contexts were run again and again instead of a few positions."""
        found = self._ablator.passes.why_whole
        return {site: found[site] for site in self._sites if found.get(site)}

    def readings(self, group: PlaceGroup) -> pl.DataFrame:
        """READINGS of all dictionaries at the places of a group, from the store where they are whole."""
        store = self._work.store
        names = [
            entry.summary.name for entry in self._entries
        ]  # others, where one comes back that had failed
        content = repr((names, [place.unit for place in group.places]))
        key = f"ablation/{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        if not (store.has(key) and not (store.read(key)["status"] == "failed").any()):
            frame = self._measured(group)
            for entry in self._entries:
                entry.check_unchanged()
            store.write(key, frame)
        return store.read(key)

    def _measured(self, group: PlaceGroup) -> pl.DataFrame:
        kept = self._ablator.passes.keep(group.tokens, group.mask)
        measure = self._in_activations if self._settings.subtract_from == "activation" else self._in_answers
        frames = [frame for site in self._sites for frame in measure(kept, group, site)]
        return pl.concat([pl.DataFrame(schema=READINGS), *frames])

    # ---- what is subtracted from what ---------------------------------------------------------------

    def _in_activations(self, kept: KeptContexts, group: PlaceGroup, site: str) -> list[pl.DataFrame]:
        """All dictionaries of a site at once: they take away from the same activations."""
        found: dict[str, list[Subtractions]] = {}
        frames = []
        for entry in self._at(site):

            def encode(entry: Measurable = entry) -> list[pl.DataFrame]:
                found[entry.summary.name] = self._own(entry, kept, group)
                return []

            frames += _guarded([entry.summary.name], group, encode)
        if found:
            channels = self._channels(kept, group, site)
            frames += _guarded(list(found), group, lambda: self._rows(kept, group, site, found, channels))
        return frames

    def _in_answers(self, kept: KeptContexts, group: PlaceGroup, site: str) -> list[pl.DataFrame]:
        """One dictionary after the other: each takes away from its own reconstruction."""
        frames = []
        for entry in self._at(site):

            def measure(entry: Measurable = entry) -> list[pl.DataFrame]:
                answer = _reconstruction(entry.checkpoint, kept, group)
                answering = self._ablator.passes.keep(group.tokens, group.mask, put=(site, answer))
                found = {entry.summary.name: self._own(entry, kept, group)}
                channels = self._channels(answering, group, site)
                return self._rows(answering, group, site, found, channels)

            frames += _guarded([entry.summary.name], group, measure)
        return frames

    def _at(self, site: str) -> list[Measurable]:
        return [entry for entry in self._entries if entry.checkpoint.site == site]

    def _own(self, entry: Measurable, kept: KeptContexts, group: PlaceGroup) -> list[Subtractions]:
        x = _standing(kept, entry.checkpoint.reads, group)
        latents = latent_subtractions(entry.checkpoint, x, group, seed=self._seed)
        directions = group.directions(latents.vectors.shape[1], seed=self._seed)
        return [latents, random_subtractions(latents, directions)]

    def _channels(self, kept: KeptContexts, group: PlaceGroup, site: str) -> Subtractions:
        return channel_subtractions(_standing(kept, site, group), self._means[site], group, seed=self._seed)

    # ---- what that does -----------------------------------------------------------------------------

    def _rows(
        self,
        kept: KeptContexts,
        group: PlaceGroup,
        site: str,
        found: Mapping[str, Sequence[Subtractions]],
        channels: Subtractions,
    ) -> list[pl.DataFrame]:
        """Run all subtractions, rows of one place side by side; those of channels are everybody's."""
        owned = [([name], each) for name, several in found.items() for each in several]
        owned.append((list(found), channels))
        usable = np.array([[not lack for lack in each.lacking] for _, each in owned]).T
        place, which = (torch.from_numpy(index) for index in np.nonzero(usable))
        effects = None
        if len(place):
            device = kept.activations[site].device
            vectors = torch.stack([each.vectors.to(device) for _, each in owned], dim=1)
            starts = Starts(group.context[place], group.position[place])
            own = vectors[place.to(device), which.to(device)]
            effects = self._ablator.effects(kept, site, starts, own)
        no_direct = self._ablator.no_direct_path(site)
        frames = []
        for number, (names, each) in enumerate(owned):
            own_effects = None if effects is None else effects.only((which == number).numpy())
            frames += [readings_of(name, group, each, own_effects, no_direct=no_direct) for name in names]
        return frames


def _standing(kept: KeptContexts, site: str, group: PlaceGroup) -> Float[Tensor, "row width"]:
    return Starts(group.context, group.position).of(kept.activations[site], 1)[:, 0]


def _reconstruction(
    checkpoint: Checkpoint, kept: KeptContexts, group: PlaceGroup
) -> Float[Tensor, "batch position width"]:
    """What the dictionary answers at every token; on padding what stands there."""
    x = kept.activations[checkpoint.reads]
    answer = kept.activations[checkpoint.site].clone()
    mask = group.mask.to(x.device)
    found = checkpoint.sae.reconstruct_sparse(x[mask].to(checkpoint.sae.encoder_bias))[0]
    answer[mask.to(answer.device)] = found.to(answer)
    return answer


def _guarded(
    names: Sequence[str], group: PlaceGroup, measure: Callable[[], list[pl.DataFrame]]
) -> list[pl.DataFrame]:
    """What `measure` gives, or failed rows of some dictionaries at all places.

    Raises:
        BadInputError: the run as a whole cannot go on.
    """
    try:
        return measure()
    except BadInputError:
        raise
    except Exception as error:  # whatever a dictionary can raise is a row, not the end of the run
        return [failed_readings(name, group, failure_reason(error)) for name in names]
