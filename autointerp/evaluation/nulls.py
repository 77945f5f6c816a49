"""Checkpoints and what their sites' activations look like -> the nulls that the suite asks for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.null_dictionaries import (
    basis_dictionary,
    random_dictionary,
    with_output_scale,
    with_shuffled_decoder,
)
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import AbsTopK, TopK
from autointerp.evaluation.inputs import Measurable, summary_of
from autointerp.evaluation.work import Work, told
from autointerp.metrics.calibration import (
    mean_active_count,
    output_scales,
    own_space_mean,
    principal_components,
)
from autointerp.sampling.readings import Checkpoint, SiteCalibration

__all__ = ["Nulls", "nulls"]

_SCALES = "nulls/scales"
_L0_TOKENS = 8192
"""Calibration tokens over which the L0 of a dictionary without k is taken for its null."""


@dataclass(frozen=True, eq=False)
class _Model:
    """The checkpoint that the nulls of one place are shaped like."""

    checkpoint: Checkpoint
    k: int
    k_note: str
    number: int
    """Of the place, from 1."""

    def generator(self, work: Work, index: int) -> torch.Generator:
        """One seed a null of a place, so that a null does not depend on what else the run measures."""
        return torch.Generator().manual_seed(work.suite.seed * 1_000_003 + index)


class Nulls(NamedTuple):
    """What was made, and what was asked for and would say nothing."""

    made: list[Measurable]
    skipped: dict[str, str]
    """Names of those of `made` that are not to be measured, with the reason."""


def nulls(work: Work, entries: Sequence[Measurable], calibration: Mapping[str, SiteCalibration]) -> Nulls:
    """The nulls of every place that checkpoints are judged at, shaped like the widest, densest one there.

    Checkpoints that read one site and predict another have nulls of their own: random dictionaries and
    shuffled decoders do the same, while channels and components see the very site that is judged. The output
    scales of random dictionaries and shuffled decoders are fitted on the calibration tokens.
    """
    made: list[Checkpoint] = []
    scaled: list[Checkpoint] = []
    for number, place in enumerate(_places(entries), start=1):
        here = [entry for entry in entries if _place(entry) == place]
        model = _model(work, here, number)
        if model is not None:
            scaled += _random_dictionaries(work, model, calibration)
            scaled += _shuffled(work, model)
            made += _bases(work, model, calibration)
    skipped = {
        null.name: f"k is {null.sae.latent_count}, all of its directions: its answer is the activation itself"
        for null in made
        if isinstance(null.sae.activation, AbsTopK) and null.sae.activation.k == null.sae.latent_count
    }
    return Nulls([_measurable(null) for null in [*_fitted(work, scaled), *made]], skipped)


def _place(entry: Measurable) -> tuple[str, str]:
    return entry.checkpoint.site, entry.checkpoint.reads


def _places(entries: Sequence[Measurable]) -> list[tuple[str, str]]:
    return sorted({_place(entry) for entry in entries})


def _measurable(null: Checkpoint) -> Measurable:
    return Measurable(null, summary_of(null.name, null.sae, null, role="null"))


def _model(work: Work, entries: Sequence[Measurable], number: int) -> _Model | None:
    """The widest and then densest TopK checkpoint of a place; without TopK the widest of all."""
    options = work.suite.nulls
    if not (
        options.random_dictionaries
        or options.channels
        or options.principal_components
        or options.shuffled_decoder
    ):
        return None
    topk = [entry for entry in entries if _k(entry.checkpoint.sae)]
    chosen = max(topk or entries, key=lambda entry: (entry.summary.latent_count, _k(entry.checkpoint.sae)))
    checkpoint = chosen.checkpoint
    if k := _k(checkpoint.sae):
        return _Model(checkpoint, k, f"k of {checkpoint.name}", number)
    k = _borrowed_k(work, checkpoint)
    return _Model(checkpoint, k, f"k = the mean L0 of {checkpoint.name} on calibration text, rounded", number)


def _k(sae: SparseAutoencoder) -> int:
    return sae.activation.k if isinstance(sae.activation, TopK) else 0


def _borrowed_k(work: Work, like: Checkpoint) -> int:
    """The mean L0 of a dictionary without k, rounded; kept, so that a resumed run has the very same null."""
    key = f"nulls/k/{like.reads}" if like.reads == like.site else f"nulls/k/{like.reads}-{like.site}"
    if not work.store.has(key):
        token_count = min(_L0_TOKENS, work.suite.corpus.calibration_tokens)
        active = mean_active_count(work.subject, like, work.chunks("calibration", token_count))
        k = min(max(1, round(active)), like.sae.latent_count)
        work.store.write(key, pl.DataFrame({"k": [k]}))
    return int(work.store.read(key)["k"].item())


def _random_dictionaries(
    work: Work, model: _Model, calibration: Mapping[str, SiteCalibration]
) -> Iterator[Checkpoint]:
    like = _like(model.checkpoint)
    reads, judged = calibration[model.checkpoint.reads], calibration[model.checkpoint.site]
    mean = own_space_mean(reads, like.normalization)
    count = work.suite.nulls.random_dictionaries
    for index in range(count):
        sae = random_dictionary(
            like,
            mean,
            generator=model.generator(work, index),
            k=model.k,
            output_mean=None if model.checkpoint.input_site is None else judged.mean,
        )
        note = f"shape of {model.checkpoint.name}, {model.k_note}"
        sae = replace(sae, metadata=replace(sae.metadata, notes=(*sae.metadata.notes, note)))
        yield replace(
            model.checkpoint, name=f"random dictionary {(model.number - 1) * count + index + 1}", sae=sae
        )


def _like(checkpoint: Checkpoint) -> SparseAutoencoder:
    """What a random dictionary copies; means are known in raw space and after a layer_norm only."""
    sae = checkpoint.sae
    known = sae.normalization.kind in ("none", "layer_norm") and checkpoint.input_site is None
    return sae if known else replace(sae, normalization=InputNormalization())


def _shuffled(work: Work, model: _Model) -> Iterator[Checkpoint]:
    if work.suite.nulls.shuffled_decoder:
        checkpoint = model.checkpoint
        sae = with_shuffled_decoder(checkpoint.sae, generator=model.generator(work, 500_000))
        yield replace(checkpoint, name=f"{checkpoint.name}, decoder shuffled", sae=sae)


def _bases(work: Work, model: _Model, calibration: Mapping[str, SiteCalibration]) -> Iterator[Checkpoint]:
    """The judged site in a fixed basis: its own channels, its principal components."""
    checkpoint, options = model.checkpoint, work.suite.nulls
    mean = calibration[checkpoint.site].mean
    bases = []
    if options.channels:
        note = f"null: the site's own channels, of each token the k farthest from their mean; {model.k_note}"
        bases.append(("channels", torch.eye(len(mean)), note))
    if options.principal_components:
        note = f"null: principal components of the site on calibration text; {model.k_note}"
        bases.append(("principal components", _components(work, checkpoint.site, mean), note))
    for name, directions, note in bases:
        sae = basis_dictionary(directions, mean, k=model.k, like=checkpoint.sae, note=note)
        yield Checkpoint(f"{name} {model.number}", sae, checkpoint.site)


def _components(work: Work, site: str, mean: Float[Tensor, " d_model"]) -> Float[Tensor, "component d_model"]:
    key = f"nulls/components/{site}"
    if not work.store.has(key):
        token_count = work.suite.corpus.calibration_tokens
        with work.progress.step("principal components", total=token_count, unit="token") as advance:
            chunks = told(work.chunks("calibration", token_count), advance)
            found = principal_components(work.subject, site, mean, chunks)
        work.store.write(key, pl.DataFrame({"direction": found.tolist()}))
    return torch.tensor(work.store.read(key)["direction"].to_list(), dtype=torch.float64)


def _fitted(work: Work, unscaled: Sequence[Checkpoint]) -> list[Checkpoint]:
    if not unscaled:
        return []
    if not work.store.has(_SCALES):
        token_count = work.suite.corpus.calibration_tokens
        with work.progress.step("fitting nulls", total=token_count, unit="token") as advance:
            chunks = told(work.chunks("calibration", token_count), advance)
            scales = output_scales(work.subject, unscaled, chunks)
        work.store.write(_SCALES, pl.DataFrame({"name": [null.name for null in unscaled], "scale": scales}))
    fitted = dict(work.store.read(_SCALES).select("name", "scale").iter_rows())
    return [replace(null, sae=with_output_scale(null.sae, fitted[null.name])) for null in unscaled]
