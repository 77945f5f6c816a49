"""Records what goes into and comes out of the modules of one block while the model runs."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from autointerp.subject.hooks import given_tensor, on_input, on_output

__all__ = ["BlockTrace", "Event", "watch"]


@dataclass(frozen=True, eq=False)
class Event:
    """One tensor on its way into or out of a module."""

    path: str
    """Of the module, within the block."""
    module: nn.Module
    side: Literal["input", "output"]
    tensor: Tensor
    alone: bool = False
    """Of an input: whether the module was given nothing else."""

    @cached_property
    def rows(self) -> Float[Tensor, "token width"]:
        """The tensor with one row per token, in float32, where the arithmetic is done."""
        return _rows(self.tensor)

    @property
    def depth(self) -> int:
        """How many modules of the block lie around this one."""
        return self.path.count(".")

    def is_within(self, other: "Event") -> bool:
        """Whether the module is the other event's module, or lies in it."""
        return f"{self.path}.".startswith(f"{other.path}.")


@dataclass
class BlockTrace:
    """What one pass did in a block, in order of calls."""

    block: nn.Module
    events: list[Event] = field(default_factory=list)
    before: Float[Tensor, "token width"] | None = None
    """What the block was given."""
    after: Float[Tensor, "token width"] | None = None
    """What it returned."""

    def of(self, side: Literal["input", "output"]) -> Iterator[tuple[int, Event]]:
        """The events of one side that are as wide as the residual stream, each with its number."""
        for index, event in enumerate(self.events):
            if event.side == side and self.before is not None and event.rows.shape == self.before.shape:
                yield index, event

    def input_of(self, output: int) -> int | None:
        """Number of the event in which the module of an output was given its input."""
        module = self.events[output].module
        for index in range(output - 1, -1, -1):
            if self.events[index].module is module and self.events[index].side == "input":
                return index
        return None


def watch(block: nn.Module, stack: ExitStack) -> BlockTrace:
    """Attach to every module of the block, until `stack` closes; then run the model and look at the trace."""
    trace = BlockTrace(block)

    def keep_before(value: Tensor) -> None:
        trace.before = _rows(value)

    def keep_after(value: Tensor) -> None:
        trace.after = _rows(value)

    stack.enter_context(on_input(block, keep_before))
    for path, module in block.named_modules():
        if path:
            _watch_module(path, module, trace, stack)
    stack.enter_context(on_output(block, keep_after))
    return trace


def _watch_module(path: str, module: nn.Module, trace: BlockTrace, stack: ExitStack) -> None:
    def keep_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = given_tensor(args, kwargs)
        if _is_activation(value):
            alone = len(args) + len(kwargs) == 1
            trace.events.append(Event(path, module, "input", value.detach().clone(), alone))

    def keep_output(_module: nn.Module, _args: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple | list) and len(output) else output
        if _is_activation(value):
            trace.events.append(Event(path, module, "output", value.detach().clone()))

    stack.callback(module.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(keep_output).remove)


def _is_activation(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and value.is_floating_point()


def _rows(value: Tensor) -> Float[Tensor, "token width"]:
    return value.detach().float().reshape(-1, value.shape[-1]).cpu().clone()
