"""Finds, inside the two branches of a block, what each is given and which projection writes its output.

Nothing is looked up by name. The output that a branch adds to the residual stream is followed back, through
norms and dropouts, to the module with a matrix that made it; the branch's input is what the first module
with a matrix in it is given.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autointerp.subject.anatomy import BlockAnatomy, unexplained
from autointerp.subject.block_trace import BlockTrace, Event
from autointerp.subject.normalization import Normalization, take_apart

__all__ = ["BranchParts", "find_parts"]

_SAME = 1e-4
"""Fraction of a tensor's sum of squares that a multiple of another may leave unexplained and still be it."""
_AFFINE = 1e-2
"""The same for the difference between what an affine function and the module make of a sum; coarse, since
quantised modules may round what they are given."""


@dataclass(frozen=True, eq=False)
class BranchParts:
    """The modules that a branch's inner sites stand for; None where the branch has no such place."""

    entry: nn.Module | None = None
    """All that the branch computes, it computes from what this one is given."""
    norm: Normalization | None = None
    """The norm that makes what `entry` is given."""
    own_output: nn.Module | None = None
    """Returns what the branch computes, before a norm of the branch's output."""
    last_projection: nn.Module | None = None
    """The affine map that makes the branch's output; a mixture of experts has none."""


def find_parts(trace: BlockTrace, anatomy: BlockAnatomy) -> tuple[BranchParts, BranchParts]:
    """The parts of attention and MLP. Runs single modules of the block on what they were given."""
    ends = [_first_output(trace, branch) for branch in (anatomy.attention, anatomy.mlp)]
    if ends[0] is None or ends[1] is None:
        return BranchParts(), BranchParts()
    return _parts(trace, 0, ends[0] + 1), _parts(trace, ends[0] + 1, ends[1] + 1)


def _first_output(trace: BlockTrace, module: nn.Module | None) -> int | None:
    return next((index for index, event in trace.of("output") if event.module is module), None)


def _parts(trace: BlockTrace, start: int, stop: int) -> BranchParts:
    """The parts of the branch that ran from event `start` on and whose output is event `stop` - 1."""
    entry, writer = _entry(trace, start, stop), _writer(trace, start, stop)
    return BranchParts(
        entry=None if entry is None else trace.events[entry].module,
        norm=None if entry is None else _norm_before(trace, entry),
        own_output=None if writer is None else _shallowest_returning(trace, writer, start, stop),
        last_projection=None
        if writer is None or not _is_affine(trace, writer)
        else trace.events[writer].module,
    )


# ---- what the branch is given -----------------------------------------------------------------------


def _entry(trace: BlockTrace, start: int, stop: int) -> int | None:
    """Number of the event in which the outermost module is given the branch's input.

    None if other modules are given it as well: then no single place stands for it.
    """
    given = [(index, event) for index, event in trace.of("input") if start <= index < stop]
    first = next((event for _, event in given if _holds_matrix(event, recurse=False)), None)
    if first is None:
        return None
    same = [(index, event) for index, event in given if torch.equal(event.rows, first.rows)]
    around = [(index, event) for index, event in same if first.is_within(event)]
    number, entry = min(around, key=lambda item: item[1].depth)
    if any(index > number and not event.is_within(entry) for index, event in same):
        return None
    return number


def _norm_before(trace: BlockTrace, entry: int) -> Normalization | None:
    """The norm whose output the branch is given."""
    rows = trace.events[entry].rows
    for index, event in trace.of("output"):
        if index < entry and torch.equal(event.rows, rows):
            given = trace.input_of(index)
            if given is None or not trace.events[given].alone:
                return None
            return take_apart(event.module, trace.events[given].tensor)
    return None


# ---- what makes its output --------------------------------------------------------------------------


def _writer(trace: BlockTrace, start: int, stop: int) -> int | None:
    """Number of the event in which the last module with a matrix returns the branch's output.

    Modules without one (norms, dropouts) are followed back to what they were given.
    """
    rows = trace.events[stop - 1].rows
    while True:
        returned = (index for index, event in trace.of("output") if start <= index < stop)
        index = next((index for index in returned if _same(rows, trace.events[index].rows)), None)
        if index is None or _holds_matrix(trace.events[index], recurse=True):
            return index
        given = trace.input_of(index)
        if given is None or given < start:
            return None
        rows, stop = trace.events[given].rows, given


def _shallowest_returning(trace: BlockTrace, output: int, start: int, stop: int) -> nn.Module:
    rows = trace.events[output].rows
    returned = (event for index, event in trace.of("output") if start <= index < stop)
    return min((event for event in returned if _same(rows, event.rows)), key=lambda event: event.depth).module


def _same(rows: Tensor, others: Tensor) -> bool:
    return torch.equal(rows, others) or (rows.shape == others.shape and unexplained(rows, [others]) < _SAME)


def _holds_matrix(event: Event, *, recurse: bool) -> bool:
    """Whether the module holds more than vectors along the residual stream; packed matrices may be flat."""
    tensors = (*event.module.parameters(recurse), *event.module.buffers(recurse))
    return any(tensor.ndim > 1 or tensor.numel() > event.rows.shape[1] for tensor in tensors)


@torch.no_grad()
def _is_affine(trace: BlockTrace, output: int) -> bool:
    """Whether f(a) + f(b) - f(a + b) is the same for all tokens; for a norm or experts it is not."""
    given = trace.input_of(output)
    if given is None or not trace.events[given].alone:
        return False
    module, one = trace.events[output].module, trace.events[given].tensor
    other = one.reshape(-1, one.shape[-1]).roll(1, dims=0).view_as(one)
    results = [module(value) for value in (one, other, one + other)]
    if not all(isinstance(result, Tensor) for result in results):
        return False
    alone, with_other, summed = (_rows(result) for result in results)
    left = alone + with_other - summed
    left = left - left.mean(dim=0)
    total = (alone - alone.mean(dim=0)).square().sum()
    return bool(left.square().sum() < _AFFINE * total)


def _rows(value: Tensor) -> Tensor:
    return value.float().reshape(-1, value.shape[-1])
