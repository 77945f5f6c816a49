from contextlib import ExitStack

import pytest
import torch
from torch import nn

from autointerp.subject.anatomy import dissect
from autointerp.subject.block_trace import watch


class Block(nn.Module):
    """A block with the wiring under test; `scale` multiplies what the branches add."""

    def __init__(self, wiring, *, scale=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.norm_one, self.norm_two = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mixer = nn.Sequential(nn.Linear(16, 16))
        self.gate = nn.Linear(16, 16)
        self.perceptron = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.4
        self.wiring, self.scale = wiring, scale

    def forward(self, x):
        return self.wiring(self, x)


def sequential(block, x):
    middle = x + block.scale * block.mixer(block.norm_one(x))
    return middle + block.scale * block.perceptron(block.norm_two(middle))


def parallel(block, x):
    return x + block.mixer(block.norm_one(x)) + block.perceptron(block.norm_two(x))


def single(block, x):
    return x + block.mixer(block.norm_one(x))


def gated(block, x):
    """Writes no module's output to the residual stream as it is."""
    return x + torch.sigmoid(block.gate(x)) * block.mixer(x)


def normed_after(block, x):
    middle = block.norm_one(x + block.mixer(x))
    return block.norm_two(middle + block.perceptron(middle))


def idle(block, x):
    return x


def anatomy_of(block):
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    with ExitStack() as stack, torch.no_grad():
        trace = watch(block, stack)
        block(x)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())
    return dissect(trace)


@pytest.mark.parametrize("scale", [1.0, 0.3, -2.0])
def test_branches_one_after_the_other_are_found_whatever_they_are_multiplied_by(scale):
    block = Block(sequential, scale=scale)
    found = anatomy_of(block)
    assert found.attention is block.mixer  # and not the linear layer in it, which returns the same
    assert found.mlp is block.perceptron
    assert found.middle is block.norm_two


def test_branches_side_by_side_have_no_middle():
    block = Block(parallel)
    found = anatomy_of(block)
    assert (found.attention, found.mlp, found.middle) == (block.mixer, block.perceptron, None)


@pytest.mark.parametrize("wiring", [single, gated, normed_after, idle])
def test_what_does_not_add_two_branches_has_no_anatomy(wiring):
    found = anatomy_of(Block(wiring))
    assert (found.attention, found.mlp, found.middle) == (None, None, None)


def test_a_block_that_did_not_run_has_no_anatomy():
    block = Block(sequential)
    with ExitStack() as stack:
        trace = watch(block, stack)
    assert dissect(trace).attention is None
