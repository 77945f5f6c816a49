"""Laws that hold for every metric of the catalogue; one that stands in none of the sets below fails.

These are the metrics of the pass over the text. Those of explanations are made from predictions:
test_every_score.py has their laws. Families with steps of their own have theirs in tests/evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import polars as pl
import pytest
import torch

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.errors import SubjectError
from autointerp.estimates import FUNCTIONALS, estimate
from autointerp.metrics.calibration import calibrate, own_space_mean
from autointerp.metrics.catalogue import FAMILIES, METRICS, definition, definitions, families
from autointerp.metrics.compute_equivalent import with_curve
from autointerp.metrics.density_spectrum import MEAN_DENSITY_OF_DENSEST, densest_observations
from autointerp.metrics.downstream_loss import COMPUTE_EQUIVALENT
from autointerp.metrics.reconstruction import DEAD_FRACTION, dead_observations, latent_densities
from autointerp.records import Estimate, Measured, MetricDefinition, Undefined
from autointerp.run_store import MemoryStore
from autointerp.sampling.activation_pass import (
    CLEAN_LOSS,
    SUBJECT,
    ActivationPass,
    read_firing_totals,
    read_observations,
    read_tokens,
)
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.readings import Checkpoint, SiteCalibration
from autointerp.sampling.spill import SpillPlan
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_autoencoder import (
    constant_autoencoder,
    perfect_autoencoder,
    planted_autoencoder,
)
from autointerp.testing.tiny_subject import tiny_subject
from autointerp.testing.token_chunks import BOS, random_chunk, random_documents

SITE = "blocks.1.hook_resid_post"
NAMES = [metric.name for metric in METRICS if metric.name.partition(".")[0] in FAMILIES]

PERFECT_SCORES: Mapping[str, float] = {
    "reconstruction.normalized_mse": 0.0,
    "reconstruction.normalized_mse_raw": 0.0,
    "reconstruction.explained_variance": 1.0,
    "reconstruction.cosine": 1.0,
    "reconstruction.relative_bias": 1.0,
    "reconstruction.norm_ratio": 1.0,
    "downstream.delta_ce_nats": 0.0,
    "downstream.kl_nats": 0.0,
    "downstream.compute_equivalent_fraction": 1.0,
    "downstream.fraction_recovered_zero": 1.0,
    "downstream.fraction_recovered_mean": 1.0,
}
"""What a dictionary that returns its input scores, to rounding."""
WITHOUT_PERFECT_SCORE = {
    "reconstruction.l0",
    "reconstruction.dead_fraction",
    "reconstruction.mean_density_of_densest",
    CLEAN_LOSS,
}
"""Perfection says nothing of these."""

SCORES_OF_THE_RAW_MEAN: Mapping[str, float] = {
    "reconstruction.normalized_mse_raw": 1.0,
    "reconstruction.explained_variance": 0.0,
    "downstream.fraction_recovered_mean": 0.0,
    "reconstruction.l0": 0.0,
    "reconstruction.dead_fraction": 1.0,
    "reconstruction.mean_density_of_densest": 0.0,
}
"""What always answering the calibration mean scores."""
SCORES_OF_THE_UNIT_MEAN: Mapping[str, float] = {"reconstruction.normalized_mse": 1.0}
"""The same for a dictionary that works on normalised inputs."""
NOT_FIXED_BY_THE_MEAN = {
    "reconstruction.cosine",
    "reconstruction.relative_bias",
    "reconstruction.norm_ratio",
    "downstream.delta_ce_nats",
    "downstream.kl_nats",
    "downstream.compute_equivalent_fraction",
    "downstream.fraction_recovered_zero",
    CLEAN_LOSS,
}

WORSE_WITH_NOISE = {
    "reconstruction.normalized_mse",
    "reconstruction.normalized_mse_raw",
    "reconstruction.explained_variance",
    "reconstruction.cosine",
    "downstream.delta_ce_nats",
    "downstream.kl_nats",
    "downstream.compute_equivalent_fraction",
    "downstream.fraction_recovered_zero",
    "downstream.fraction_recovered_mean",
}
"""These fall in the declared direction when noise is added to the decoder."""
WORSE_WITH_SILENT_LATENTS = {"reconstruction.dead_fraction"}
WITHOUT_DIRECTION = {
    "reconstruction.l0",
    "reconstruction.mean_density_of_densest",
    "reconstruction.relative_bias",
    "reconstruction.norm_ratio",
    CLEAN_LOSS,
}


@cache
def subject(dtype: torch.dtype = torch.float32) -> SubjectModel:
    return tiny_subject("llama", seed=5, dtype=dtype)


@cache
def documents() -> dict[str, list[int]]:
    """The subject's own greedy continuations: text that it predicts well, so that damage raises the loss."""
    starts = random_documents([3] * 9, vocabulary_size=subject().vocabulary_size)
    found = {}
    for place, (document, start) in enumerate(starts.items()):
        found[document] = [*start]
        while len(found[document]) < 5 + place:
            logits = subject().read_with_logits(torch.tensor([[BOS, *found[document]]]), []).logits
            found[document].append(int(logits[0, -1, 3:].argmax()) + 3)
    return found


def chunk(*, rows_per_batch: int | None = 4, is_reversed: bool = False) -> CorpusChunk:
    order = list(documents().items())
    return random_chunk(dict(order[::-1] if is_reversed else order), rows_per_batch=rows_per_batch)


@cache
def calibration(dtype: torch.dtype = torch.float32) -> dict[str, SiteCalibration]:
    return calibrate(subject(dtype), [SITE], [chunk()])


def noisy(noise: float) -> SparseAutoencoder:
    """A perfect dictionary, then spoilt."""
    sae = perfect_autoencoder(32, activation="relu")
    generator = torch.Generator().manual_seed(0)
    disturbance = torch.randn(sae.decoder_weight.shape, generator=generator)
    return replace(sae, decoder_weight=sae.decoder_weight + noise * disturbance)


def silenced(sae: SparseAutoencoder, count: int) -> SparseAutoencoder:
    bias = sae.encoder_bias.clone()
    bias[:count] = -1e6
    return replace(sae, encoder_bias=bias)


def planted() -> SparseAutoencoder:
    return planted_autoencoder(32, 80, k=6, generator=torch.Generator().manual_seed(1), noise=0.02)


def constant(kind: str) -> SparseAutoencoder:
    normalization = replace(planted().normalization, kind=kind)
    answer = own_space_mean(calibration()[SITE], normalization).float()
    return constant_autoencoder(answer, normalization=kind)


def curved(metric: MetricDefinition) -> MetricDefinition:
    """The compute metric needs a curve; this one is wide enough for every dictionary here."""
    if metric.name != COMPUTE_EQUIVALENT:
        return metric
    points = [(c, 1.0 + 0.5 * c**-0.5) for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)]
    return with_curve(metric, points, clean_ce_nats=None)


def observed(
    dictionaries: Mapping[str, SparseAutoencoder],
    chunks: Sequence[CorpusChunk],
    dtype: torch.dtype = torch.float32,
) -> pl.DataFrame:
    store = MemoryStore()
    placed = [Checkpoint(name, sae.to(dtype=dtype), SITE) for name, sae in dictionaries.items()]
    spill = SpillPlan() if any(chunk.batches for chunk in chunks) else None
    run = ActivationPass(subject(dtype), placed, families(FAMILIES), calibration(dtype), spill=spill)
    names = run.run(chunks, store).chunk_names
    counts = {name: sae.latent_count for name, sae in dictionaries.items()}
    firing, tokens = read_firing_totals(store, names), read_tokens(store, names)
    widths = {name: sae.d_out for name, sae in dictionaries.items()}
    densities = latent_densities(firing, tokens, counts)
    densest = densest_observations(store, names, densities, tokens, widths)
    return pl.concat([read_observations(store, names), dead_observations(firing, tokens, counts), densest])


def score(frame: pl.DataFrame, name: str, checkpoint: str) -> Estimate:
    owner = SUBJECT if name == CLEAN_LOSS else checkpoint
    rows = frame.filter(
        (pl.col("metric") == name) & (pl.col("checkpoint") == owner) & (pl.col("slice") == "{}")
    )
    outcome = estimate(rows, curved(definition(name)), resamples=100)
    assert isinstance(outcome, Measured), outcome
    return outcome.estimate


@cache
def scores(
    *, rows_per_batch: int | None = 4, is_reversed: bool = False, dtype: torch.dtype = torch.float32
) -> Any:
    dictionaries = {
        "planted": planted(),
        "perfect": perfect_autoencoder(32),
        "perfect relu": perfect_autoencoder(32, activation="relu"),
        "raw mean": constant("none"),
        "unit mean": constant("layer_norm"),
        "noise 1": noisy(0.02),
        "noise 2": noisy(0.08),
        "noise 3": noisy(0.3),
        "silent 1": silenced(planted(), 20),
        "silent 2": silenced(planted(), 50),
    }
    return observed(dictionaries, [chunk(rows_per_batch=rows_per_batch, is_reversed=is_reversed)], dtype)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_stands_in_one_set_of_each_kind(name: str) -> None:
    kinds: list[list[Any]] = [
        [PERFECT_SCORES, WITHOUT_PERFECT_SCORE],
        [SCORES_OF_THE_RAW_MEAN, SCORES_OF_THE_UNIT_MEAN, NOT_FIXED_BY_THE_MEAN],
        [WORSE_WITH_NOISE, WORSE_WITH_SILENT_LATENTS, WITHOUT_DIRECTION],
    ]
    for sets in kinds:
        assert sum(name in members for members in sets) == 1


def test_the_sets_name_no_metric_that_does_not_exist() -> None:
    named = {
        *PERFECT_SCORES,
        *WITHOUT_PERFECT_SCORE,
        *SCORES_OF_THE_RAW_MEAN,
        *SCORES_OF_THE_UNIT_MEAN,
        *NOT_FIXED_BY_THE_MEAN,
        *WORSE_WITH_NOISE,
        *WORSE_WITH_SILENT_LATENTS,
        *WITHOUT_DIRECTION,
    }
    assert named == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_its_definition_is_whole(name: str) -> None:
    metric = definition(name)
    assert metric.functional in FUNCTIONALS
    assert metric.title and metric.meaning.endswith(".") and metric.unit and metric.sampled
    assert (metric.better == "neither") == (name in WITHOUT_DIRECTION)


def test_names_are_unique_and_every_one_is_observed_by_its_family() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for family_name, family in FAMILIES.items():
        own = {metric.name for metric in definitions([family_name])} - {CLEAN_LOSS}
        assert own == set(family.metrics)


@pytest.mark.parametrize("dictionary", ["perfect", "perfect relu"])
@pytest.mark.parametrize("name", PERFECT_SCORES)
def test_a_perfect_dictionary_scores_the_best(name: str, dictionary: str) -> None:
    assert score(scores(), name, dictionary).value == pytest.approx(PERFECT_SCORES[name], abs=1e-6)


@pytest.mark.parametrize("rows_per_batch", [1, 3, None])
@pytest.mark.parametrize("name", [*SCORES_OF_THE_RAW_MEAN, *SCORES_OF_THE_UNIT_MEAN])
def test_answering_the_mean_scores_what_it_must_at_any_batch_size(
    name: str, rows_per_batch: int | None
) -> None:
    found = scores(rows_per_batch=rows_per_batch)
    if name in SCORES_OF_THE_RAW_MEAN:
        expected, dictionary = SCORES_OF_THE_RAW_MEAN[name], "raw mean"
    else:
        expected, dictionary = SCORES_OF_THE_UNIT_MEAN[name], "unit mean"
    assert score(found, name, dictionary).value == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("rows_per_batch", [1, 3, None])
@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_contexts_in_a_batch_does_not_matter(name: str, rows_per_batch: int | None) -> None:
    one, other = scores(), scores(rows_per_batch=rows_per_batch)
    found, expected = score(other, name, "planted"), score(one, name, "planted")
    assert found.value == pytest.approx(expected.value, rel=1e-4, abs=1e-5)
    assert found.n == expected.n


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_documents_does_not_matter(name: str) -> None:
    one, other = score(scores(), name, "planted"), score(scores(is_reversed=True), name, "planted")
    for field in ("value", "low", "high"):
        assert getattr(other, field) == pytest.approx(getattr(one, field), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_agrees_with_double(name: str) -> None:
    single = score(scores(), name, "planted").value
    assert single == pytest.approx(
        score(scores(dtype=torch.float64), name, "planted").value, rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_lies_in_its_range(name: str) -> None:
    metric = definition(name)
    for dictionary in ("planted", "perfect", "raw mean", "noise 2"):
        value = score(scores(), name, dictionary).value
        assert metric.lowest is None or value >= metric.lowest
        assert metric.highest is None or value <= metric.highest


@pytest.mark.parametrize("name", sorted(WORSE_WITH_NOISE | WORSE_WITH_SILENT_LATENTS))
def test_a_worse_dictionary_gets_a_worse_number(name: str) -> None:
    sequence = (
        ["noise 1", "noise 2", "noise 3"] if name in WORSE_WITH_NOISE else ["planted", "silent 1", "silent 2"]
    )
    values = [score(scores(), name, dictionary).value for dictionary in sequence]
    rising = definition(name).better == "lower"
    assert values == sorted(values, reverse=not rising)
    assert len(set(values)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_measure_is_undefined(name: str) -> None:
    empty = random_chunk({})
    frame = observed({"planted": planted()}, [empty])
    rows = frame.filter(pl.col("metric") == name)
    assert rows.height == 0
    assert isinstance(estimate(rows, curved(definition(name))), Undefined)


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_that_are_no_numbers_raise_and_say_where(family: str) -> None:
    broken = tiny_subject("llama", seed=5)
    with torch.no_grad():
        broken.model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    run = ActivationPass(broken, [Checkpoint("it", planted(), SITE)], families([family]), calibration())
    with pytest.raises(SubjectError, match=r"chunk 0, batch 0: .*not finite"):
        run.measure(chunk())


def test_one_token_documents_have_no_loss_and_no_headline() -> None:
    """At position 0 there is nothing but the document's only token, and nothing follows it."""
    single = random_chunk({"a": [5], "b": [7]}, prepend_bos=False)
    frame = observed({"planted": planted()}, [single])
    of_all_tokens = [DEAD_FRACTION, MEAN_DENSITY_OF_DENSEST]
    headline = frame.filter((pl.col("slice") == "{}") & ~pl.col("metric").is_in(of_all_tokens))
    assert headline.height == 0
    assert set(frame["slice"]) == {"{}", '{"position":"0"}'}
