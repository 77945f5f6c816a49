"""What a branch is given and which projection writes its output, for wirings that families have."""

from contextlib import ExitStack

import pytest
import torch
from torch import nn

from autointerp.subject.anatomy import dissect
from autointerp.subject.block_trace import watch
from autointerp.subject.branch_parts import BranchParts, find_parts


class Block(nn.Module):
    """Norm, mixer, norm, perceptron; `perceptron` is a function of the block and what the norm returns."""

    def __init__(self, perceptron):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.norm_one, self.norm_two, self.norm_after = (nn.LayerNorm(16) for _ in range(3))
        self.dropout = nn.Dropout(0.5)
        self.mixer = nn.Sequential(nn.Linear(16, 20), nn.Linear(20, 16))
        self.wrapper = nn.ModuleDict({"norm": nn.LayerNorm(16), "up": nn.Linear(16, 24)})
        self.up, self.gate, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        self.whole = Perceptron()
        self.experts = Experts()
        for weight in self.parameters():
            weight.data = weight.data + torch.randn(weight.shape, generator=generator) * 0.4
        self.perceptron = perceptron

    def forward(self, x):
        middle = x + self.mixer(self.norm_one(x))
        return middle + self.perceptron(self, self.norm_two(middle))


class Perceptron(nn.Module):
    def __init__(self, norm=False):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.reads_norm = norm

    def forward(self, x):
        return self.down(torch.relu(self.up(self.norm(x) if self.reads_norm else x)))


class Experts(nn.Module):
    """Chooses one of two matrices for each token, as fused experts do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 16, 16))

    def forward(self, x):
        chosen = (x[..., 0] > 0).long()
        return torch.einsum("bti,btij->btj", x, self.weight[chosen])


def parts_of(perceptron, change=lambda block: None):
    block = Block(perceptron).eval()
    change(block)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    with ExitStack() as stack, torch.no_grad():
        trace = watch(block, stack)
        block(x)
    attention, mlp = find_parts(trace, dissect(trace))
    assert (attention.entry, attention.last_projection) == (block.mixer, block.mixer[1])
    assert attention.own_output is block.mixer
    assert attention.norm.module is block.norm_one
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())
    return block, mlp


def test_an_mlp_module_is_given_the_norms_output_and_its_last_projection_writes():
    block, mlp = parts_of(lambda block, x: block.whole(x))
    assert (mlp.entry, mlp.own_output, mlp.last_projection) == (block.whole, block.whole, block.whole.down)
    assert mlp.norm.module is block.norm_two


def test_projections_that_the_block_itself_calls_are_found_too():
    block, mlp = parts_of(lambda block, x: block.down(torch.relu(block.up(x))))
    assert (mlp.entry, mlp.own_output, mlp.last_projection) == (block.up, block.down, block.down)


def test_two_modules_given_the_same_have_no_single_entry():
    block, mlp = parts_of(lambda block, x: block.down(torch.relu(block.gate(x)) * block.up(x)))
    assert (mlp.entry, mlp.norm, mlp.last_projection) == (None, None, block.down)


def test_a_norm_inside_the_mlp_comes_before_its_entry():
    def change(block):
        block.whole.reads_norm = True

    block, mlp = parts_of(lambda block, x: block.whole(x), change)
    assert (mlp.entry, mlp.norm.module) == (block.whole.up, block.whole.norm)


@pytest.mark.parametrize("scale", [1.0, 0.3, -2.0])
def test_norms_and_dropouts_of_the_output_are_followed_back(scale):
    block, mlp = parts_of(lambda block, x: block.norm_after(block.dropout(scale * block.whole(x))))
    assert (mlp.own_output, mlp.last_projection) == (block.whole, block.whole.down)


def test_experts_have_an_entry_and_an_output_but_no_last_projection():
    block, mlp = parts_of(lambda block, x: block.experts(x))
    assert (mlp.entry, mlp.own_output, mlp.last_projection) == (block.experts, block.experts, None)


def test_a_module_that_is_given_more_than_one_thing_is_no_projection():
    class Both(nn.Linear):
        def forward(self, x, weight):
            return super().forward(x) * weight

    def change(block):
        block.down = Both(24, 16)

    _, mlp = parts_of(lambda block, x: block.down(torch.relu(block.up(x)), 2.0), change)
    assert mlp.last_projection is None


def test_a_norm_that_a_gain_alone_does_not_explain_is_none():
    def change(block):
        block.norm_two = nn.Sequential(nn.LayerNorm(16), nn.Tanh())

    _, mlp = parts_of(lambda block, x: block.whole(x), change)
    assert mlp.norm is None


def test_a_block_without_branches_has_no_parts():
    block = Block(lambda block, x: x)
    with ExitStack() as stack:
        trace = watch(block, stack)
    parts = find_parts(trace, dissect(trace))
    assert all(vars(part) == vars(BranchParts()) for part in parts)
