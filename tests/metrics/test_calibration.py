"""Calibration means and the null's scale against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.null_dictionaries import random_dictionary
from autointerp.errors import CorpusError, SubjectError
from autointerp.metrics.calibration import (
    calibrate,
    fit_output_scales,
    mean_active_count,
    own_space_mean,
)
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.readings import Checkpoint
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_autoencoder import constant_autoencoder, planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject
from autointerp.testing.token_chunks import random_chunk, random_documents

SITE, OTHER = "blocks.1.hook_resid_post", "blocks.0.hook_resid_pre"


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return tiny_subject("llama", seed=1, dtype=torch.float64)


@pytest.fixture(scope="module")
def chunks(subject: SubjectModel) -> list[CorpusChunk]:
    return [
        random_chunk(
            random_documents([20, 1, 13], vocabulary_size=subject.vocabulary_size, seed=seed),
            index=seed,
            context_length=9,
            prepend_bos=False,
        )
        for seed in range(2)
    ]


def activations(subject: SubjectModel, chunks: list[CorpusChunk], site: str) -> np.ndarray:
    """Every scored token at positions >= 1, context by context, without padding."""
    rows = []
    for chunk in chunks:
        for batch in chunk.batches:
            for tokens, scored in zip(batch.tokens, batch.is_scored, strict=True):
                length = int(scored.sum())
                rows.append(subject.read(tokens[None, :length], [site])[site][0, 1:].numpy())
    return np.concatenate(rows)


@pytest.mark.parametrize("site", [SITE, OTHER])
def test_means_are_those_of_scored_tokens_after_position_zero(
    subject: SubjectModel, chunks: list[CorpusChunk], site: str
) -> None:
    found = calibrate(subject, [SITE, OTHER], chunks)[site]
    x = activations(subject, chunks, site)
    centred = x - x.mean(1, keepdims=True)
    np.testing.assert_allclose(found.mean.numpy(), x.mean(0), atol=1e-12)
    unit = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).mean(0)
    np.testing.assert_allclose(found.unit_mean.numpy(), unit, atol=1e-12)
    assert found.mean_squared_norm == pytest.approx((x**2).sum(1).mean())
    assert found.token_count == len(x)


def test_a_split_without_tokens_is_refused(subject: SubjectModel) -> None:
    with pytest.raises(CorpusError, match="calibration split has no token"):
        calibrate(subject, [SITE], [])


def test_activations_that_are_not_finite_are_refused(chunks: list[CorpusChunk]) -> None:
    broken = tiny_subject("llama", seed=1)
    with torch.no_grad():
        broken.model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(SubjectError, match=r"site blocks\.1\.hook_resid_post, calibration chunk 0, batch 0"):
        calibrate(broken, [SITE], chunks)


@pytest.mark.parametrize("kind", ["none", "layer_norm"])
def test_the_mean_in_a_dictionarys_own_space_is_that_of_what_it_sees(
    subject: SubjectModel, chunks: list[CorpusChunk], kind: str
) -> None:
    normalization = InputNormalization(kind, eps=0.0)
    x = torch.from_numpy(activations(subject, chunks, SITE))
    own, _ = normalization.apply(x)
    found = own_space_mean(calibrate(subject, [SITE], chunks)[SITE], normalization)
    torch.testing.assert_close(found, own.mean(0))


@pytest.mark.parametrize("kind", ["none", "layer_norm"])
def test_the_scale_is_the_least_squares_one(
    subject: SubjectModel, chunks: list[CorpusChunk], kind: str
) -> None:
    like = planted_autoencoder(
        32, 48, k=5, generator=torch.Generator().manual_seed(0), normalization=kind
    ).to(dtype=torch.float64)
    calibration = calibrate(subject, [SITE], chunks)[SITE]
    mean = own_space_mean(calibration, like.normalization)
    null = random_dictionary(like, mean, generator=torch.Generator().manual_seed(1))
    (fitted,) = fit_output_scales(subject, [Checkpoint("null", null, SITE)], chunks)

    x = torch.from_numpy(activations(subject, chunks, SITE))
    own = x
    if kind == "layer_norm":  # as the reconstruction undoes it: without eps
        own = (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True)
    answer = null.decode(null.encode(x)) - null.decoder_bias
    scale, *_ = np.linalg.lstsq(answer.numpy().reshape(-1, 1), (own - mean).numpy().reshape(-1), rcond=None)
    torch.testing.assert_close(fitted.sae.decoder_weight, null.decoder_weight * float(scale[0]))
    torch.testing.assert_close(fitted.sae.encoder_weight, null.encoder_weight)
    torch.testing.assert_close(fitted.sae.decoder_bias, null.decoder_bias)


def test_a_dictionary_that_never_fires_keeps_its_decoder(
    subject: SubjectModel, chunks: list[CorpusChunk]
) -> None:
    silent = Checkpoint("silent", constant_autoencoder(torch.zeros(32)), SITE)
    (fitted,) = fit_output_scales(subject, [silent], chunks)
    assert torch.equal(fitted.sae.decoder_weight, silent.sae.decoder_weight)


def test_the_mean_active_count_is_that_of_the_dense_latents(
    subject: SubjectModel, chunks: list[CorpusChunk]
) -> None:
    sae = planted_autoencoder(subject.d_model, 64, k=5, generator=torch.Generator().manual_seed(3))
    sae = replace(sae.to(dtype=torch.float64), activation=ReLU())
    x = torch.from_numpy(activations(subject, chunks, SITE))
    expected = float((sae.encode(x) != 0).sum(dim=1).double().mean())
    assert mean_active_count(subject, Checkpoint("relu", sae, SITE), chunks) == pytest.approx(expected)
