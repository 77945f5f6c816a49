"""Refined values against SciPy, token by token, and what holds whatever the values are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from autointerp.checkpoints.activation_functions import Identity, JumpReLU, ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.matching_pursuit import MatchingPursuit
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import AbsTopK, TopK
from autointerp.metrics import refinement_values
from autointerp.metrics.refinement_values import can_be_negative, refine, refined_reconstruction
from autointerp.testing.planted_autoencoder import (
    constant_autoencoder,
    perfect_autoencoder,
    planted_autoencoder,
)

D_MODEL, LATENTS, TOKENS = 12, 40, 60


def dictionary(activation, *, normalization="none", seed=0, width=D_MODEL, latents=LATENTS, bias=0.0):
    """Random directions of unequal lengths that are not the encoder's."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return SparseAutoencoder(
        encoder_weight=normal(latents, width) / width**0.5,
        encoder_bias=0.1 * normal(latents) + bias,
        decoder_weight=normal(latents, width) * (0.3 + torch.rand(latents, 1, generator=generator).double()),
        decoder_bias=0.2 * normal(width),
        pre_bias=None,
        activation=activation,
        normalization=InputNormalization(normalization),
    )


def activations(seed: int = 3, width: int = D_MODEL) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(TOKENS, width, generator=generator, dtype=torch.float64) + 0.4


KINDS = {
    "topk": TopK(5),
    "relu": ReLU(),
    "jumprelu": JumpReLU(torch.full((LATENTS,), 0.7, dtype=torch.float64)),
    "absolute topk": AbsTopK(5),
    "topk of any sign": TopK(30, postact="identity"),
}


def best_by_scipy(directions: np.ndarray, wanted: np.ndarray, *, is_signed: bool) -> np.ndarray:
    if is_signed:
        return np.linalg.lstsq(directions.T, wanted, rcond=None)[0]
    return nnls(directions.T, wanted, maxiter=1000)[0]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_the_values_that_scipy_finds(kind: str, scaled: bool) -> None:
    sae = dictionary(KINDS[kind], bias=-1.5 if kind == "relu" else 0.0)
    if scaled:
        sae = replace(sae, latent_scale=torch.linspace(0.2, 3.0, LATENTS, dtype=torch.float64))
    x = activations()
    latents = sae.encode_sparse(x)
    found = refine(sae, latents, x, tolerance=1e-9)
    assert bool(found.is_solved.all())
    directions = (
        sae.decoder_weight if sae.latent_scale is None else sae.decoder_weight / sae.latent_scale[:, None]
    )
    is_signed = "absolute" in kind or "sign" in kind
    unique = 0
    for token in range(TOKENS):
        part = slice(int(latents.offsets[token]), int(latents.offsets[token + 1]))
        rows = directions[latents.indices[part]].numpy()
        wanted = (x[token] - sae.decoder_bias).numpy()
        best = best_by_scipy(rows, wanted, is_signed=is_signed)
        ours = found.latents.values[part].numpy()
        error = np.sum((ours @ rows - wanted) ** 2)
        assert error == pytest.approx(np.sum((best @ rows - wanted) ** 2), rel=1e-9, abs=1e-12)
        if len(rows) <= D_MODEL:  # else several values are best
            unique += 1
            np.testing.assert_allclose(ours, best, rtol=1e-5, atol=1e-6)
        assert is_signed or (ours >= 0).all()
    assert unique > 10 or kind == "topk of any sign"


@pytest.mark.parametrize("kind", ["jumprelu", "absolute topk"])
def test_rounding_of_the_error_does_not_hide_the_end(kind: str) -> None:
    """Near it f is flat to its own rounding, while gradients of 1e-8 are still followed."""
    for seed in range(12):
        sae, x = dictionary(KINDS[kind], seed=seed), activations(seed)
        assert bool(refine(sae, sae.encode_sparse(x), x, tolerance=1e-9).is_solved.all())


def squared_error(x: torch.Tensor, x_hat: torch.Tensor) -> torch.Tensor:
    return (x_hat - x).square().sum(dim=1)


@pytest.mark.parametrize("rounds", [1, 50])
@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_no_token_grows_in_raw_space(kind: str, normalization: str, rounds: int) -> None:
    sae, x = dictionary(KINDS[kind], normalization=normalization), activations()
    found = refined_reconstruction(sae, x, x, rounds=rounds)
    torch.testing.assert_close(found.before, sae.reconstruct(x))
    before, after = squared_error(x, found.before), squared_error(x, found.after)
    assert bool((after <= before * (1 + 1e-12)).all())
    assert float(after.sum()) < 0.99 * float(before.sum())
    torch.testing.assert_close(found.refined.latents.indices, found.latents.indices, rtol=0, atol=0)


def test_a_transcoder_is_refined_towards_its_output_less_its_skip() -> None:
    sae = dictionary(ReLU())
    generator = torch.Generator().manual_seed(8)
    wider = torch.randn(LATENTS, 9, generator=generator, dtype=torch.float64)
    skip = torch.randn(9, D_MODEL, generator=generator, dtype=torch.float64)
    bias = torch.randn(9, generator=generator, dtype=torch.float64)
    transcoder = replace(sae, decoder_weight=wider, decoder_bias=bias, skip_weight=skip)
    x = activations()
    y = torch.randn(TOKENS, 9, generator=generator, dtype=torch.float64)
    found = refined_reconstruction(transcoder, x, y)
    for token in range(5):
        part = slice(int(found.latents.offsets[token]), int(found.latents.offsets[token + 1]))
        rows = wider[found.latents.indices[part]].numpy()
        wanted = (y[token] - skip @ x[token] - bias).numpy()
        best = nnls(rows.T, wanted, maxiter=1000)[0]
        error = float(squared_error(y[token : token + 1], found.after[token : token + 1]))
        assert error == pytest.approx(np.sum((best @ rows - wanted) ** 2), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_a_perfect_dictionary_does_not_move_by_a_bit(activation: str) -> None:
    sae, x = perfect_autoencoder(D_MODEL, activation=activation), activations().float()
    found = refined_reconstruction(sae, x, x)
    assert torch.equal(found.refined.latents.values, found.latents.values)
    assert torch.equal(found.after, found.before)


def test_what_is_refined_once_does_not_move_again() -> None:
    sae, x = dictionary(TopK(5)), activations()
    once = refine(sae, sae.encode_sparse(x), x, tolerance=1e-8)
    again = refine(sae, once.latents, x, tolerance=2e-8)
    assert torch.equal(again.latents.values, once.latents.values)


def test_halved_values_are_doubled_again() -> None:
    """The shrinkage that refinement is for: orthogonal directions, every value half of what it should be."""
    perfect = perfect_autoencoder(D_MODEL, activation="relu")
    shrunk = replace(perfect, encoder_weight=0.5 * perfect.encoder_weight)
    x = activations().float()
    found = refined_reconstruction(shrunk, x, x)
    torch.testing.assert_close(found.refined.latents.values, 2 * found.latents.values)
    torch.testing.assert_close(found.after, x)


def test_where_nothing_fires_nothing_changes() -> None:
    sae = constant_autoencoder(torch.arange(D_MODEL, dtype=torch.float32))
    x = activations().float()
    found = refined_reconstruction(sae, x, x)
    assert found.latents.values.numel() == 0
    assert torch.equal(found.after, found.before)
    assert bool(found.refined.is_solved.all())


def test_latents_without_a_direction_keep_their_values() -> None:
    sae = dictionary(ReLU())
    sae = replace(sae, decoder_weight=sae.decoder_weight.clone().index_fill_(0, torch.arange(20), 0.0))
    x = activations()
    latents = sae.encode_sparse(x)
    found = refine(sae, latents, x)
    silent = latents.indices < 20
    assert bool(silent.any())
    assert torch.equal(found.latents.values[silent], latents.values[silent])
    assert bool((found.lengths[silent] == 0).all())


def test_a_token_that_was_scaled_to_nothing_keeps_its_values() -> None:
    sae = dictionary(ReLU(), normalization="layer_norm")
    x = torch.cat([activations(), torch.full((1, D_MODEL), 3.0, dtype=torch.float64)])
    found = refined_reconstruction(sae, x, x)
    last = slice(int(found.latents.offsets[-2]), None)
    assert last.start < found.latents.values.numel()
    assert torch.equal(found.refined.latents.values[last], found.latents.values[last])
    torch.testing.assert_close(found.after[-1], x[-1])


@pytest.mark.parametrize("room", [1, 20_000])
def test_neither_blocks_nor_batches_nor_order_matter(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = dictionary(ReLU()), activations()
    whole = refined_reconstruction(sae, x, x, tolerance=1e-9)
    monkeypatch.setattr(refinement_values, "_BLOCK_BYTES", room)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    halves = [refined_reconstruction(sae, part, part, tolerance=1e-9) for part in x[order].split(17)]
    torch.testing.assert_close(
        torch.cat([half.after for half in halves]), whole.after[order], rtol=0, atol=1e-7
    )


def test_single_precision_agrees_with_double() -> None:
    sae, x = dictionary(TopK(5)), activations()
    double = refined_reconstruction(sae, x, x)
    single = refined_reconstruction(sae.to(dtype=torch.float32), x.float(), x.float())
    torch.testing.assert_close(single.after.double(), double.after, rtol=1e-4, atol=1e-4)


def test_a_matrix_in_another_precision_and_streamed_gives_the_same() -> None:
    sae, x = (
        planted_autoencoder(32, 80, k=6, generator=torch.Generator().manual_seed(1), noise=0.05),
        torch.randn(50, 32, generator=torch.Generator().manual_seed(2)),
    )
    stored = replace(sae, decoder_weight=sae.decoder_weight.bfloat16(), is_streamed=True)
    resident = replace(sae, decoder_weight=sae.decoder_weight.bfloat16().float())
    torch.testing.assert_close(
        refined_reconstruction(stored, x, x).after, refined_reconstruction(resident, x, x).after
    )


def test_more_directions_than_dimensions_fit_a_target_in_their_cone_exactly() -> None:
    sae = dictionary(Identity(), width=4)
    x = activations(width=4)
    found = refined_reconstruction(sae, x, x, tolerance=1e-9)
    assert bool(found.refined.is_solved.all())
    torch.testing.assert_close(found.after, x, rtol=0, atol=1e-6)


def test_a_token_that_needs_more_rounds_is_counted_and_no_worse() -> None:
    """Directions within some degrees of one another, where which values are zero is hard to find."""
    sae = dictionary(ReLU(), latents=200, width=40)
    alike = 1.0 + 0.2 * sae.decoder_weight
    sae, x = replace(sae, decoder_weight=alike), activations(width=40)
    latents = sae.encode_sparse(x)
    short, long = (refine(sae, latents, x, rounds=rounds) for rounds in (1, 50))
    assert not bool(short.is_solved.all())
    assert bool(long.is_solved.all())
    errors = [squared_error(x, sae.decode_sparse(each)) for each in (latents, short.latents, long.latents)]
    assert bool((errors[1] <= errors[0] * (1 + 1e-12)).all())
    assert bool((errors[2] <= errors[1] * (1 + 1e-12)).all())


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (ReLU(), False),
        (TopK(3), False),
        (JumpReLU(torch.zeros(8)), False),
        (Identity(), True),
        (AbsTopK(3), True),
        (TopK(3, postact="identity"), True),
        (MatchingPursuit(torch.cat([torch.eye(4), -torch.eye(4)])), False),
    ],
)
def test_which_functions_give_latents_below_zero(activation, expected: bool) -> None:
    assert can_be_negative(activation, latent_count=8, like=torch.zeros(1)) is expected
