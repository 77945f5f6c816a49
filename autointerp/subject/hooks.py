"""Reads and replaces tensors while a model runs; whatever is attached is taken off, also after errors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from autointerp.errors import SiteError

__all__ = [
    "StopReadingError",
    "as_positions",
    "first_tensor",
    "given_tensor",
    "on_input",
    "on_output",
    "pass_through",
    "with_first_tensor",
]

Change = Callable[[Tensor], Tensor | None]
"""Sees a tensor as it goes by; returns another one to put in its place, or None."""


class StopReadingError(Exception):
    """Raised inside a forward pass once everything asked for has been seen; never leaves this package."""


def first_tensor(output: Any, *, where: str = "") -> Tensor:
    """The activation in what a module returned: the tensor itself, or the first entry of a tuple.

    Raises:
        SiteError: the module returned neither.
    """
    value = output[0] if isinstance(output, tuple | list) and len(output) else output
    if not isinstance(value, Tensor):
        raise SiteError(
            f"the module returns {type(output).__name__}, not a tensor",
            where=where,
            remedy="name a module whose output (or its first entry) is one tensor",
        )
    return value


def with_first_tensor(output: Any, tensor: Tensor) -> Any:
    """The same output, of the same form, with `tensor` as its activation."""
    if isinstance(output, Tensor):
        return tensor
    return type(output)([tensor, *output[1:]])


def given_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The activation that a module is given: its first tensor argument, else its keyword `hidden_states`."""
    place = _tensor_place(args)
    value = kwargs.get("hidden_states") if place is None else args[place]
    return value if isinstance(value, Tensor) else None


def _tensor_place(args: tuple[Any, ...]) -> int | None:
    return next((index for index, value in enumerate(args) if isinstance(value, Tensor)), None)


def as_positions(tensor: Tensor, batch_shape: tuple[int, int], *, where: str = "") -> Tensor:
    """`tensor` as [batch position width]; some modules (OPT's MLP) see batch and position as one axis.

    Raises:
        SiteError: its leading axes are not those of the tokens, or it holds no floating-point numbers.
    """
    batch, position = batch_shape
    if tensor.is_floating_point():
        if tensor.ndim == 3 and tensor.shape[:2] == (batch, position):
            return tensor
        if tensor.ndim == 2 and tensor.shape[0] == batch * position:
            return tensor.view(batch, position, -1)
    kind = "" if tensor.is_floating_point() else f"{str(tensor.dtype).removeprefix('torch.')} and "
    raise SiteError(
        f"the tensor there has {kind}shape {tuple(tensor.shape)} for {batch} x {position} tokens",
        where=where,
        remedy="name a place with one vector per token",
    )


@contextmanager
def on_output(module: nn.Module, change: Change, *, where: str = "") -> Iterator[None]:
    """While open, `change` sees what `module` returns; `where` is for error messages."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        new = change(first_tensor(output, where=where))
        return None if new is None else with_first_tensor(output, new)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def on_input(module: nn.Module, change: Change, *, where: str = "") -> Iterator[None]:
    """While open, `change` sees what `module` is given (see `given_tensor`); `where` is for errors."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = given_tensor(args, kwargs)
        if given is None:
            raise SiteError(
                "the module is given no tensor, neither by place nor as hidden_states",
                where=where,
                remedy="name a module that is given one vector per token",
            )
        new = change(given)
        if new is None:
            return None
        place = _tensor_place(args)
        if place is None:
            return args, {**kwargs, "hidden_states": new}
        return (*args[:place], new, *args[place + 1 :]), kwargs

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def pass_through(blocks: Sequence[nn.Module], forms: Mapping[nn.Module, int | None]) -> Iterator[None]:
    """While open, calling one of `blocks` computes nothing and returns its input.

    The blocks stay in the model, so that it makes masks, positions and rotary embeddings as ever.
    `forms` tells for each block how many entries its output has as a tuple; None for a bare tensor.
    """
    with ExitStack() as undo:
        for block in blocks:
            undo.enter_context(_shadowed_forward(block, forms[block]))
        yield


@contextmanager
def _shadowed_forward(block: nn.Module, entries: int | None) -> Iterator[None]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        given = first_tensor(args or kwargs.get("hidden_states"))
        return given if entries is None else (given, *[None] * (entries - 1))

    absent = object()
    # An instance may carry a forward of its own (device-placement libraries put one there): keep it.
    before = block.__dict__.get("forward", absent)
    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is absent:
            del block.__dict__["forward"]
        else:
            block.__dict__["forward"] = before
