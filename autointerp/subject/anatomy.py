"""Finds out, by watching one block run, which of its modules write to the residual stream.

Families differ in what their modules are called, in how many norms they have, and in where these stand,
so nothing is looked up: a branch is recognised by the arithmetic, resid_post = resid_pre + attention + MLP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from autointerp.subject.block_trace import BlockTrace, Event

__all__ = ["BlockAnatomy", "dissect", "unexplained"]

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
    outputs = [event for _, event in trace.of("output")]
    for _, event in trace.of("input"):
        if torch.equal(event.rows, trace.before):
            continue
        attention = _shallowest_explaining(event.rows - trace.before, outputs, tolerance)
        mlp = _shallowest_explaining(trace.after - event.rows, outputs, tolerance)
        if attention is not None and mlp is not None and attention is not mlp:
            return BlockAnatomy(attention, mlp, event.module)
    return _parallel(trace.after - trace.before, outputs, tolerance)


def _parallel(added: Tensor, outputs: Sequence[Event], tolerance: float) -> BlockAnatomy:
    if _shallowest_explaining(added, outputs, tolerance) is not None:  # one branch alone, as in Mamba
        return BlockAnatomy(None, None, None)
    distinct: list[Event] = []
    for event in sorted(outputs, key=lambda event: event.depth):
        if not any(torch.equal(event.rows, other.rows) for other in distinct):
            distinct.append(event)
    order = {id(event): index for index, event in enumerate(outputs)}
    for pair in combinations(sorted(distinct, key=lambda event: order[id(event)]), 2):
        if unexplained(added, [event.rows for event in pair]) < tolerance:
            return BlockAnatomy(pair[0].module, pair[1].module, None)
    return BlockAnatomy(None, None, None)


def _shallowest_explaining(
    difference: Tensor, outputs: Sequence[Event], tolerance: float
) -> nn.Module | None:
    fitting = [event for event in outputs if unexplained(difference, [event.rows]) < tolerance]
    return min(fitting, key=lambda event: event.depth).module if fitting else None


def unexplained(difference: Tensor, parts: Sequence[Tensor]) -> float:
    """Fraction of the difference's sum of squares left when the best multiples of the parts are taken off."""
    columns = torch.stack([part.flatten() for part in parts], dim=1).double()
    target = difference.flatten().double()[:, None]
    total = target.square().sum()
    if not total > 0:
        return 1.0
    gram = columns.T @ columns
    solution = torch.linalg.pinv(gram) @ (columns.T @ target)
    return float((target - columns @ solution).square().sum() / total)
