"""Finds out, by watching one block run, which of its modules write to the residual stream.

Families differ in what their modules are called, in how many norms they have, and in where these stand,
so nothing is looked up: a branch is recognised by the arithmetic, resid_post = resid_pre + attention + MLP.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from autointerp.subject.hooks import on_input, on_output

__all__ = ["BlockAnatomy", "BlockTrace", "dissect", "watch"]

_TOLERANCES = (1e-6, 1e-4, 1e-2)
"""Largest fraction of a difference's sum of squares that a branch may leave unexplained; the strictest first.

Rounding leaves about 1e-5 of it in bfloat16, an unrelated tensor nearly all of it. But where one branch
writes far more than the other, a wrong place leaves little unexplained as well: so the loose bounds are
asked only when nothing fits exactly.
"""


@dataclass(frozen=True, eq=False)
class BlockAnatomy:
    """The modules of one block that its sites stand for; None where the block has no such place."""

    attention: nn.Module | None
    """What it returns is added to the residual stream first (after a norm of its own, if it has one)."""
    mlp: nn.Module | None
    """What it returns is added to the residual stream last."""
    middle: nn.Module | None
    """What it is given is the residual between the two; None in blocks that run both on one input."""


@dataclass(frozen=True, eq=False)
class _Event:
    module: nn.Module
    depth: int
    value: Tensor  # [token width], float32


@dataclass
class BlockTrace:
    """What went into and came out of the modules of one block in one pass, in order of calls."""

    block: nn.Module
    inputs: list[_Event] = field(default_factory=list)
    outputs: list[_Event] = field(default_factory=list)
    before: Tensor | None = None
    after: Tensor | None = None


def watch(block: nn.Module, stack: ExitStack) -> BlockTrace:
    """Attach to every module of the block, until `stack` closes; run the model, then `dissect` the trace."""
    trace = BlockTrace(block)

    def keep_before(value: Tensor) -> None:
        trace.before = _rows(value)

    def keep_after(value: Tensor) -> None:
        trace.after = _rows(value)

    stack.enter_context(on_input(block, keep_before))
    for path, module in block.named_modules():
        if path:
            _watch_module(module, path.count("."), trace, stack)
    stack.enter_context(on_output(block, keep_after))
    return trace


def _watch_module(module: nn.Module, depth: int, trace: BlockTrace, stack: ExitStack) -> None:
    def keep_input(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            trace.inputs.append(_Event(module, depth, _rows(args[0])))

    def keep_output(_module: nn.Module, _args: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) and output else output
        if isinstance(value, Tensor):
            trace.outputs.append(_Event(module, depth, _rows(value)))

    stack.callback(module.register_forward_pre_hook(keep_input).remove)
    stack.callback(module.register_forward_hook(keep_output).remove)


def _rows(value: Tensor) -> Tensor:
    return value.detach().float().reshape(-1, value.shape[-1]).clone()


def dissect(trace: BlockTrace) -> BlockAnatomy:
    """The block's anatomy, as far as the arithmetic shows it.

    One after the other: some module is given t with t - before = attention's output and after - t = the
    MLP's (each up to one constant factor, which a few families have). Side by side: no such t, but two
    outputs add up to after - before.
    """
    for tolerance in _TOLERANCES:
        found = _dissect(trace, tolerance)
        if found.attention is not None:
            return found
    return BlockAnatomy(None, None, None)


def _dissect(trace: BlockTrace, tolerance: float) -> BlockAnatomy:
    if trace.before is None or trace.after is None:
        return BlockAnatomy(None, None, None)
    shape = trace.before.shape
    outputs = [event for event in trace.outputs if event.value.shape == shape]
    for event in trace.inputs:
        if event.value.shape != shape or torch.equal(event.value, trace.before):
            continue
        attention = _shallowest_explaining(event.value - trace.before, outputs, tolerance)
        mlp = _shallowest_explaining(trace.after - event.value, outputs, tolerance)
        if attention is not None and mlp is not None and attention is not mlp:
            return BlockAnatomy(attention, mlp, event.module)
    return _parallel(trace.after - trace.before, outputs, tolerance)


def _parallel(added: Tensor, outputs: Sequence[_Event], tolerance: float) -> BlockAnatomy:
    if _shallowest_explaining(added, outputs, tolerance) is not None:  # one branch alone, as in Mamba
        return BlockAnatomy(None, None, None)
    distinct: list[_Event] = []
    for event in sorted(outputs, key=lambda event: event.depth):
        if not any(torch.equal(event.value, other.value) for other in distinct):
            distinct.append(event)
    order = {id(event): index for index, event in enumerate(outputs)}
    for pair in combinations(sorted(distinct, key=lambda event: order[id(event)]), 2):
        if _unexplained(added, [event.value for event in pair]) < tolerance:
            return BlockAnatomy(pair[0].module, pair[1].module, None)
    return BlockAnatomy(None, None, None)


def _shallowest_explaining(
    difference: Tensor, outputs: Sequence[_Event], tolerance: float
) -> nn.Module | None:
    fitting = [event for event in outputs if _unexplained(difference, [event.value]) < tolerance]
    return min(fitting, key=lambda event: event.depth).module if fitting else None


def _unexplained(difference: Tensor, parts: Sequence[Tensor]) -> float:
    """Fraction of the difference's sum of squares left when the best multiples of the parts are taken off."""
    columns = torch.stack([part.flatten() for part in parts], dim=1).double()
    target = difference.flatten().double()[:, None]
    total = target.square().sum()
    if not total > 0:
        return 1.0
    gram = columns.T @ columns
    solution = torch.linalg.pinv(gram) @ (columns.T @ target)
    return float((target - columns @ solution).square().sum() / total)
