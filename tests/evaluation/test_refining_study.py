"""The study of refined activations on a tiny subject: against the pass, resumed, failing, rebatched."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl
import pytest
import torch

from autointerp.config import suite_from_mapping
from autointerp.errors import SubjectError
from autointerp.estimates import estimate
from autointerp.evaluation.inputs import in_memory, placed_all
from autointerp.evaluation.steps import measure
from autointerp.evaluation.studies import refining
from autointerp.evaluation.studies.refining import REFINING
from autointerp.evaluation.work import Clock, Work
from autointerp.metrics.catalogue import definition
from autointerp.progress import SILENT
from autointerp.records import Failed, Measured, Skipped, Undefined
from autointerp.run_store import MemoryStore
from autointerp.sampling.corpus import document_of
from autointerp.testing.planted_autoencoder import (
    constant_autoencoder,
    perfect_autoencoder,
    planted_autoencoder,
)
from autointerp.testing.tiny_subject import tiny_subject

SITE = "blocks.1.hook_resid_post"
NAMES = [metric.name for metric in REFINING.metrics]


class Texts:
    """Some short documents."""

    def documents(self):
        words = (
            "the",
            "reading",
            "of",
            "stations",
            "is",
            "an",
            "order",
            "and",
            "it",
            "rests",
            "on",
            "a",
            "list",
        )
        for place in range(14):
            chosen = [words[(place * 5 + 3 * i + i * i) % len(words)] for i in range(4 + place)]
            yield document_of(" ".join(chosen), name=f"document-{place:02d}")


@cache
def subject():
    return tiny_subject("llama", seed=5)


def dictionaries():
    planted = planted_autoencoder(32, 80, k=6, generator=torch.Generator().manual_seed(1), noise=0.02)
    relu = perfect_autoencoder(32, activation="relu")
    return {
        "planted": planted,
        "perfect": relu,
        "halved": replace(relu, encoder_weight=0.5 * relu.encoder_weight),
        "silent": constant_autoencoder(torch.zeros(32)),
    }


def begun(*, batch_tokens: int = 128, chunk_tokens: int = 200, tokens: int = 10_000, passed: bool = False):
    """A run that is calibrated, and its dictionaries."""
    suite = suite_from_mapping(
        {
            "name": "refining",
            "site": SITE,
            "subject": {"model": "tiny"},
            "corpus": {"context_length": 16, "evaluation_tokens": 10_000, "calibration_tokens": 100},
            "metrics": {"families": ["reconstruction", "downstream", "refinement"]},
            "nulls": {"random_dictionaries": 0},
            "checks": {"largest_normalized_mse": 100.0},
            "sampling": {"enabled": False},
            "refinement": {"tokens": tokens},
            "runtime": {"batch_tokens": batch_tokens, "chunk_tokens": chunk_tokens},
        },
        folder=Path(),
        where="here",
    )
    entries = placed_all(
        [in_memory(name, sae, suite) for name, sae in dictionaries().items()], subject(), suite
    )
    store = MemoryStore()
    work = Work(suite, subject(), Texts(), store, Clock(store), SILENT)
    if not passed:
        for key, frame in passed_run()[0].store.read_all("calibration/").items():
            store.write(key, frame)
    return work, entries


@cache
def passed_run():
    """A run whose pass is done, and what that found."""
    work, entries = begun(passed=True)
    return work, measure(work, entries).observations


def value(frame: pl.DataFrame, name: str, checkpoint: str):
    rows = frame.filter(
        (pl.col("metric") == name) & (pl.col("checkpoint") == checkpoint) & (pl.col("slice") == "{}")
    )
    return estimate(rows, definition(name), resamples=100)


def number(frame: pl.DataFrame, name: str, checkpoint: str) -> float:
    outcome = value(frame, name, checkpoint)
    assert isinstance(outcome, Measured), outcome
    return outcome.estimate.value


@pytest.fixture(scope="module")
def whole():
    work, entries = begun()
    return passed_run()[1], REFINING.observe(work, entries)


@pytest.mark.parametrize("checkpoint", ["planted", "perfect", "halved", "silent"])
@pytest.mark.parametrize(
    ("after", "gain", "own"),
    [
        ("normalized_mse", "gain_normalized_mse", "reconstruction.normalized_mse"),
        ("delta_ce_nats", "gain_delta_ce_nats", "downstream.delta_ce_nats"),
    ],
)
def test_after_and_gain_add_up_to_what_the_pass_found(whole, after, gain, own, checkpoint) -> None:
    observed, studied = whole
    both = sum(number(studied.observations, f"refinement.{name}", checkpoint) for name in (after, gain))
    assert both == pytest.approx(number(observed, own, checkpoint), abs=2e-5)


def test_refinement_helps_where_there_is_something_to_gain(whole) -> None:
    found = whole[1].observations
    assert number(found, "refinement.gain_normalized_mse", "planted") > 0.01
    assert number(found, "refinement.moved", "planted") > 0.05
    assert number(found, "refinement.unsolved_fraction", "planted") == 0.0
    assert 0 <= number(found, "refinement.zeroed_fraction", "planted") < 0.5


def test_halved_values_are_told_as_a_shrinkage_of_two(whole) -> None:
    found = whole[1].observations
    assert number(found, "refinement.shrinkage", "halved") == pytest.approx(2.0, abs=1e-4)
    assert number(found, "refinement.moved", "halved") == pytest.approx(1.0, abs=1e-4)
    assert number(found, "refinement.normalized_mse", "halved") == pytest.approx(0.0, abs=1e-6)


def test_a_perfect_dictionary_gains_nothing(whole) -> None:
    found = whole[1].observations
    assert number(found, "refinement.shrinkage", "perfect") == 1.0
    for name in ("gain_normalized_mse", "gain_delta_ce_nats", "moved", "zeroed_fraction"):
        assert number(found, f"refinement.{name}", "perfect") == 0.0


def test_where_nothing_fires_values_have_no_shrinkage_and_nothing_is_gained(whole) -> None:
    found = whole[1].observations
    for name in ("shrinkage", "moved", "zeroed_fraction"):
        assert isinstance(value(found, f"refinement.{name}", "silent"), Undefined)
    assert number(found, "refinement.gain_normalized_mse", "silent") == 0.0


def test_facts_say_how_it_was_done_and_on_how_much(whole) -> None:
    facts = whole[1].facts
    assert facts["tolerance"] == 1e-6
    assert 50 < facts["token_count"] < 10_000


@pytest.mark.parametrize(("batch_tokens", "chunk_tokens"), [(48, 10_000), (500, 60)])
def test_sizes_of_batches_and_chunks_do_not_matter(whole, batch_tokens: int, chunk_tokens: int) -> None:
    work, entries = begun(batch_tokens=batch_tokens, chunk_tokens=chunk_tokens)
    other = REFINING.observe(work, entries).observations
    for name in NAMES:
        one, two = (value(frame, name, "planted") for frame in (whole[1].observations, other))
        assert isinstance(one, Measured) and isinstance(two, Measured)
        assert two.estimate.value == pytest.approx(one.estimate.value, abs=1e-5)
        assert two.estimate.n == one.estimate.n


def test_fewer_tokens_are_the_first_ones() -> None:
    work, entries = begun(tokens=60)
    found = REFINING.observe(work, entries)
    assert found.facts["token_count"] <= 60
    assert 0 < found.observations["unit"].n_unique() < 8


def test_what_is_done_is_not_done_again_and_what_failed_is(monkeypatch: pytest.MonkeyPatch) -> None:
    work, entries = begun()
    real = refining.refined_reconstruction
    calls: list[int] = []

    def flaky(sae, *args, **options):
        calls.append(sae.latent_count)
        if sae.latent_count == 80:
            raise RuntimeError("not today\nnor tomorrow")
        return real(sae, *args, **options)

    def counting(sae, *args, **options):
        calls.append(sae.latent_count)
        return real(sae, *args, **options)

    monkeypatch.setattr(refining, "refined_reconstruction", flaky)
    first = REFINING.observe(work, entries).observations
    outcome = value(first, "refinement.shrinkage", "planted")
    assert isinstance(outcome, Failed)
    assert "RuntimeError: not today" in outcome.reason and "tomorrow" not in outcome.reason
    assert isinstance(value(first, "refinement.shrinkage", "halved"), Measured)
    calls.clear()
    monkeypatch.setattr(refining, "refined_reconstruction", counting)
    second = REFINING.observe(work, entries).observations
    assert set(calls) == {80}
    assert isinstance(value(second, "refinement.shrinkage", "planted"), Measured)
    calls.clear()
    third = REFINING.observe(work, entries).observations
    assert calls == []
    assert third.equals(second)


def test_a_subject_that_breaks_stops_the_run_in_words() -> None:
    work, entries = begun()
    broken = tiny_subject("llama", seed=5)
    with torch.no_grad():
        broken.model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(SubjectError, match="not finite"):
        REFINING.observe(replace(work, subject=broken), entries)


def test_without_dictionaries_there_is_nothing_to_say() -> None:
    work, _ = begun()
    found = REFINING.observe(work, [])
    assert found.observations.height == 0
    assert found.facts == {}


def test_without_kept_firings_the_densest_latents_are_skipped_with_the_reason() -> None:
    outcome = value(passed_run()[1], "reconstruction.mean_density_of_densest", "planted")
    assert isinstance(outcome, Skipped)
    assert "sampling" in outcome.reason
