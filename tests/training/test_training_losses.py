"""Losses and their closed-form gradients against autograd on ten-line dense formulas."""

import pytest
import torch

from autointerp.training.initialisation import Parameters
from autointerp.training.losses import (
    auxk_step,
    largest_pre_activations,
    normalized_mse,
    relu_step,
    topk_step,
    total_variance,
)
from autointerp.training.options import Level

VARIANCE = 2.5


@pytest.fixture
def parameters():
    generator = torch.Generator().manual_seed(1)
    draw = [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((13, 6), (13,), (13, 6), (6,))
    ]
    return Parameters(draw[0], 0.1 * draw[1], torch.nn.functional.normalize(draw[2], dim=1), draw[3])


@pytest.fixture
def x():
    return torch.randn(9, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def autograd(loss_of, parameters):
    leaves = Parameters(*(tensor.clone().requires_grad_() for tensor in parameters))
    loss = loss_of(leaves)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    zeros = (torch.zeros_like(leaf) for leaf in leaves)
    return loss.item(), Parameters(*(z if g is None else g for g, z in zip(gradients, zeros, strict=True)))


def dense_topk(x, p, k):
    pre = (x - p.bias) @ p.encoder_weight.T + p.encoder_bias
    kept = pre.topk(k, dim=1)
    z = torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())
    return z, z @ p.decoder_weight + p.bias


def dense_nmse(x_hat, x):
    return (x_hat - x).square().sum(1).mean() / VARIANCE


def assert_same(gradients, expected):
    for name, got, want in zip(Parameters._fields, gradients, expected, strict=True):
        torch.testing.assert_close(got, want, msg=lambda text, name=name: f"{name}: {text}")


def test_normalized_mse_of_the_mean_is_one_and_of_the_truth_zero(x):
    variance = total_variance(x)
    assert normalized_mse(x.mean(0).expand_as(x), x, variance) == pytest.approx(1)
    assert normalized_mse(x, x, variance) == 0


def test_total_variance_is_the_sum_of_the_channels_variances(x):
    assert total_variance(x) == pytest.approx(float(x.var(0, correction=0).sum()))


@pytest.mark.parametrize("k", [1, 4, 13])
def test_topk_loss_and_gradient_agree_with_autograd(x, parameters, k):
    result = topk_step(x, parameters, levels=[Level(k, 1.0)], variance=VARIANCE, dtype=torch.float64)
    loss, gradients = autograd(lambda p: dense_nmse(dense_topk(x, p, k)[1], x), parameters)
    z, x_hat = dense_topk(x, parameters, k)
    assert result.losses["nmse"] == pytest.approx(loss)
    assert_same(result.gradients, gradients)
    torch.testing.assert_close(result.residual, x_hat - x)
    assert torch.equal(result.fired, (z > 0).any(0))


def test_multi_topk_is_the_weighted_sum_of_its_terms(x, parameters):
    levels = [Level(2, 1.0), Level(8, 1 / 8)]
    result = topk_step(x, parameters, levels=levels, variance=VARIANCE, dtype=torch.float64)
    apart = [
        topk_step(x, parameters, levels=[Level(level.k, 1.0)], variance=VARIANCE, dtype=torch.float64)
        for level in levels
    ]
    sums = [first + second / 8 for first, second in zip(apart[0].gradients, apart[1].gradients, strict=True)]
    assert_same(result.gradients, sums)
    assert result.losses["nmse"] == pytest.approx(apart[0].losses["nmse"])
    assert result.losses["nmse_k8"] == pytest.approx(apart[1].losses["nmse"])


def test_only_the_first_level_of_multi_topk_says_who_fired(x, parameters):
    single = topk_step(x, parameters, levels=[Level(1, 1.0)], variance=VARIANCE, dtype=torch.float64)
    multi = topk_step(
        x, parameters, levels=[Level(1, 1.0), Level(9, 1.0)], variance=VARIANCE, dtype=torch.float64
    )
    assert torch.equal(single.fired, multi.fired)


def test_relu_loss_and_gradient_agree_with_autograd(x, parameters):
    def loss_of(p):
        z = ((x - p.bias) @ p.encoder_weight.T + p.encoder_bias).relu()
        return dense_nmse(z @ p.decoder_weight + p.bias, x) + 0.3 * z.sum(1).mean() / VARIANCE**0.5

    result = relu_step(x, parameters, l1_coefficient=0.3, variance=VARIANCE, dtype=torch.float64)
    loss, gradients = autograd(loss_of, parameters)
    assert result.losses["nmse"] + result.losses["l1"] == pytest.approx(loss)
    assert_same(result.gradients, gradients)


def test_auxk_gradient_agrees_with_autograd_and_reaches_only_dead_latents(x, parameters):
    dead = torch.tensor([1, 4, 5, 11])
    residual = topk_step(
        x, parameters, levels=[Level(3, 1.0)], variance=VARIANCE, dtype=torch.float64
    ).residual

    def loss_of(p):
        pre = (x - parameters.bias) @ p.encoder_weight.T + p.encoder_bias  # the bias is a constant here
        alive = torch.ones(13, dtype=torch.bool).index_fill(0, dead, False)
        kept = pre.masked_fill(alive, -1e9).topk(2, dim=1)
        z = torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())
        error = -residual
        return 0.25 * (z @ p.decoder_weight - error).square().sum() / (error - error.mean(0)).square().sum()

    loss, rows = auxk_step(x, residual, parameters, dead=dead, count=2, coefficient=0.25, dtype=torch.float64)
    expected_loss, expected = autograd(loss_of, parameters)
    assert loss == pytest.approx(expected_loss)
    spread = [
        torch.zeros_like(p).index_add(0, dead, g) for p, g in zip(parameters[:3], rows[:3], strict=True)
    ]
    assert_same([*spread, rows.bias], expected)
    assert expected.encoder_weight[dead].abs().sum() > 0
    assert not rows.bias.any()


def test_auxk_reconstructs_the_error_without_a_bias(x, parameters):
    """Dead latents that give nothing leave the whole error: a bias on one side would change that."""
    silent = parameters._replace(encoder_bias=torch.full_like(parameters.encoder_bias, -1e3))
    residual = x - x.mean(0)
    loss, _ = auxk_step(
        x, residual, silent, dead=torch.arange(13), count=4, coefficient=1.0, dtype=torch.float64
    )
    assert loss == pytest.approx(1.0)


def test_auxk_of_a_perfect_reconstruction_is_zero(x, parameters):
    loss, rows = auxk_step(
        x, torch.zeros_like(x), parameters, dead=torch.tensor([0, 3]), count=2, coefficient=1.0
    )
    assert loss == 0.0
    assert all(not gradient.any() for gradient in rows)


def test_auxk_uses_all_dead_latents_when_fewer_than_asked_for_are_dead(x, parameters):
    residual, dead = x - x.mean(0), torch.tensor([2, 7])
    some = auxk_step(x, residual, parameters, dead=dead, count=2, coefficient=1.0, dtype=torch.float64)
    more = auxk_step(x, residual, parameters, dead=dead, count=64, coefficient=1.0, dtype=torch.float64)
    assert some[0] == more[0]


def test_blocks_of_pre_activations_do_not_change_the_choice(x, parameters, monkeypatch):
    whole = largest_pre_activations(x, parameters, 4, torch.float64)
    monkeypatch.setattr("autointerp.training.losses._BLOCK_BYTES", 2 * 13 * 8)
    pieces = largest_pre_activations(x, parameters, 4, torch.float64)
    assert torch.equal(whole[1], pieces[1])
    torch.testing.assert_close(whole[0], pieces[0])
