import pytest
import torch
from torch import nn

from autointerp.subject.normalization import take_apart


class RootMeanSquare(nn.Module):
    """Multiplies by the weight, plus `offset`."""

    def __init__(self, offset=0.0, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.5, 1.5, 8))
        self.offset, self.scale = offset, scale

    def forward(self, x):
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6)
        return self.scale * x * (self.weight + self.offset)


def layer_norm(**options):
    norm = nn.LayerNorm(8, **options)
    with torch.no_grad():
        for weight in norm.parameters():
            weight.add_(torch.linspace(-1, 1, 8))
    return norm


@pytest.fixture
def x():
    return 3 * torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)) + 1


@pytest.mark.parametrize(
    ("norm", "neutral"),
    [
        (RootMeanSquare(), 1.0),
        (RootMeanSquare(offset=1.0), 0.0),
        (nn.RMSNorm(8, eps=1e-6), 1.0),
        (layer_norm(), 1.0),
        (layer_norm(bias=False), 1.0),
        (layer_norm(elementwise_affine=False), 1.0),
    ],
)
@torch.no_grad()
def test_a_norm_is_what_it_normalizes_times_its_gain_plus_its_bias(norm, neutral, x):
    found = take_apart(norm, x)
    centred = x - x.mean(dim=-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
    expected = centred * torch.rsqrt(centred.square().mean(dim=-1, keepdim=True))
    torch.testing.assert_close(found.normalized(x), expected, rtol=1e-4, atol=1e-5)
    bias = getattr(norm, "bias", None)
    whole = found.normalized(x) * found.gain + (0 if bias is None else bias)
    torch.testing.assert_close(whole, norm(x))
    assert found.neutral == neutral


@torch.no_grad()
def test_taking_a_norm_apart_leaves_it_as_it_is_and_calls_no_hook(x):
    norm = layer_norm()
    before = norm(x)
    seen = []
    norm.register_forward_hook(lambda *_: seen.append(1))
    take_apart(norm, x).normalized(x)
    assert not seen
    assert torch.equal(norm(x), before)


class Shifted(RootMeanSquare):
    def forward(self, x):
        return super().forward(x) + 5.0


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(8, 8),
        nn.Tanh(),
        nn.Identity(),
        RootMeanSquare(offset=0.5),
        RootMeanSquare(scale=4.0),
        Shifted(),
        nn.Sequential(RootMeanSquare(), RootMeanSquare()),
    ],
)
def test_what_is_no_norm_with_a_gain_is_not_taken_apart(module, x):
    assert take_apart(module, x) is None
