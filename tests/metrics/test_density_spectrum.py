"""The densest latents against dense counting, document by document."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.errors import RunStoreError
from autointerp.estimates import estimate
from autointerp.metrics.calibration import calibrate
from autointerp.metrics.catalogue import definition, families
from autointerp.metrics.density_spectrum import (
    MEAN_DENSITY_OF_DENSEST,
    densest_latents,
    densest_observations,
    firings_by_document,
)
from autointerp.metrics.reconstruction import latent_densities
from autointerp.records import Measured
from autointerp.run_store import MemoryStore
from autointerp.sampling.activation_pass import ActivationPass, read_firing_totals, read_tokens
from autointerp.sampling.readings import Checkpoint
from autointerp.sampling.spill import SpillPlan
from autointerp.testing.planted_autoencoder import planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject
from autointerp.testing.token_chunks import BOS, random_chunk, random_documents

SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def subject():
    return tiny_subject("gpt2", seed=2)


@pytest.fixture(scope="module")
def texts(subject) -> dict[str, list[int]]:
    return random_documents([5, 9, 22, 1, 13], vocabulary_size=subject.vocabulary_size)


def dictionary() -> SparseAutoencoder:
    return planted_autoencoder(32, 90, k=6, generator=torch.Generator().manual_seed(0))


def ran(subject, texts, sae, *, cuts=(0, 5)):
    """A store with all firings, in as many chunks as asked for."""
    store, items = MemoryStore(), list(texts.items())
    chunks = [
        random_chunk(dict(items[first:last]), index=index)
        for index, (first, last) in enumerate(pairwise(cuts))
    ]
    run = ActivationPass(
        subject,
        [Checkpoint("it", sae, SITE)],
        families(["reconstruction"]),
        calibrate(subject, [SITE], chunks),
        spill=SpillPlan(),
    )
    return store, run.run(chunks, store).chunk_names


def observed(subject, texts, sae, width, **options) -> pl.DataFrame:
    store, names = ran(subject, texts, sae, **options)
    documents = read_tokens(store, names)
    densities = latent_densities(read_firing_totals(store, names), documents, {"it": sae.latent_count})
    return densest_observations(store, names, densities, documents, {"it": width})


def by_hand(subject, texts, sae, width):
    """{document: firings of the densest / width}, from dense latents of whole documents."""
    fired = {}
    for document, ids in texts.items():
        counts = np.zeros(sae.latent_count)
        for start in range(0, len(ids), 15):
            tokens = torch.tensor([[BOS, *ids[start : start + 15]]])
            x = subject.read(tokens, [SITE])[SITE][0, 1:]
            counts += (sae.encode(x) != 0).sum(dim=0).numpy()
        fired[document] = counts
    total = sum(fired.values())
    chosen = np.argsort(-total, kind="stable")[:width]
    return {document: counts[chosen].sum() / len(chosen) for document, counts in fired.items()}


@pytest.mark.parametrize("width", [1, 32, 500])
@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5)])
def test_every_document_has_what_counting_by_hand_gives(subject, texts, width: int, cuts) -> None:
    sae = dictionary()
    frame = observed(subject, texts, sae, width, cuts=cuts)
    expected = by_hand(subject, texts, sae, width)
    found = dict(zip(frame["unit"], frame["numerator"], strict=True))
    assert found == pytest.approx(expected)
    lengths = {document: float(len(ids)) for document, ids in texts.items()}
    assert dict(zip(frame["unit"], frame["denominator"], strict=True)) == lengths
    assert frame["cluster"].equals(frame["unit"].alias("cluster"))


def test_it_lies_between_l0_over_all_latents_and_l0_over_the_width(subject, texts) -> None:
    sae = dictionary()
    values = []
    for width in (1, 8, 32, 90):
        outcome = estimate(
            observed(subject, texts, sae, width), definition(MEAN_DENSITY_OF_DENSEST), resamples=100
        )
        assert isinstance(outcome, Measured)
        values.append(outcome.estimate.value)
        assert 6 / 90 - 1e-9 <= outcome.estimate.value <= min(1.0, 6 / width) + 1e-9
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(6 / 90)


def test_where_only_the_densest_fire_it_is_l0_over_the_width(subject, texts) -> None:
    sae = dictionary()
    bias = torch.full_like(sae.encoder_bias, -1e6)
    bias[10:20] = 1e6
    dense = SparseAutoencoder(
        sae.encoder_weight,
        bias,
        sae.decoder_weight,
        sae.decoder_bias,
        None,
        sae.activation,
        sae.normalization,
    )
    outcome = estimate(
        observed(subject, texts, dense, 10), definition(MEAN_DENSITY_OF_DENSEST), resamples=100
    )
    assert isinstance(outcome, Measured)
    assert outcome.estimate.value == pytest.approx(0.6)


def test_ties_go_to_the_lower_latent() -> None:
    rows = pl.DataFrame({"latent": [3, 0, 2, 1], "tokens_fired": [5, 5, 9, 0]})
    assert densest_latents(rows, 2).to_list() == [2, 0]
    assert densest_latents(rows, 9).to_list() == [2, 0, 3, 1]


def test_latents_that_never_fire_are_found_in_no_document(subject, texts) -> None:
    store, names = ran(subject, texts, dictionary())
    assert firings_by_document(store, "it", names, pl.Series([], dtype=pl.Int64)).height == 0


def test_firings_that_were_not_kept_are_missed_in_words(subject, texts) -> None:
    _, names = ran(subject, texts, dictionary())
    with pytest.raises(RunStoreError, match="missing"):
        firings_by_document(MemoryStore(), "it", names, pl.Series([1]))
