"""Attaches to the sites of a model for the length of one pass: to read them, or to put something there."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from autointerp.subject.hooks import Change, StopReadingError, as_positions, on_input, on_output
from autointerp.subject.normalization import Normalization
from autointerp.subject.places import Places
from autointerp.subject.sites import Blocks, Site

__all__ = ["keeper", "reading", "replacing"]


def reading(places: Places, site: Site, keep: Callable[[Tensor], None]) -> AbstractContextManager[None]:
    """While open, `keep` is given what is at the site whenever it goes by."""
    found = places.normalization(site)
    if found is None:
        return _at(places, site, keep)
    norm = found[0]
    return _at(places, site, lambda given: keep(norm.normalized(given)))


def keeper(
    store: dict[Any, Tensor], key: str | int | None, tokens: Tensor, *, stop_at: int | None = None
) -> Callable[[Tensor], None]:
    """What stores the first tensor that goes by; it ends the pass when `stop_at` of them are there."""
    batch_shape = (tokens.shape[0], tokens.shape[1])

    def keep(value: Tensor) -> None:
        if key not in store:
            # A copy, since some models add to the residual stream in place.
            store[key] = as_positions(value, batch_shape, where=f"site {key!r}").detach().clone()
        if len(store) == stop_at:
            raise StopReadingError

    return keep


@contextmanager
def replacing(
    places: Places, blocks: Blocks, site: Site, new: Float[Tensor, "batch position _"]
) -> Iterator[None]:
    """While open, `new` stands at the site, in the type and on the device of what stood there."""
    found = places.normalization(site)
    with ExitStack() as stack:
        if found is not None:
            _replace_normalized(*found, new, stack)
        elif site.kind == "resid_mid":
            _replace_middle(places, blocks.modules[site.layer or 0], site, new, stack)
        else:
            # A copy, since some models add to it in place (Falcon's MLP output).
            stack.enter_context(_at(places, site, lambda old: _like(new, old).clone()))
        yield


def _at(places: Places, site: Site, change: Change) -> AbstractContextManager[None]:
    place = places.place(site)
    attach = on_input if place.side == "input" else on_output
    return attach(place.module, change, where=f"site {site.name!r}")


def _like(new: Tensor, old: Tensor) -> Tensor:
    return new.to(device=old.device, dtype=old.dtype).view(old.shape)


def _replace_middle(places: Places, block: nn.Module, site: Site, new: Tensor, stack: ExitStack) -> None:
    """Replace the residual between attention and MLP.

    The block adds the MLP's output to the residual that it kept for itself, so the change of that
    residual is added to the block's output as well.
    """
    changes: list[Tensor] = []

    def replace(old: Tensor) -> Tensor:
        there = _like(new, old)
        changes.append((there - old).view(new.shape))
        return there.clone()

    stack.enter_context(_at(places, site, replace))
    stack.enter_context(on_output(block, lambda old: old + changes[-1].to(old.device)))


def _replace_normalized(norm: Normalization, entry: nn.Module, new: Tensor, stack: ExitStack) -> None:
    """Replace what the norm computes before its gain.

    The change, times the gain, is added to what the branch is given: the norm itself may serve both branches,
    and adding a change of nothing changes no bit.
    """
    changes: list[Tensor] = []

    def see(given: Tensor) -> None:
        old = norm.normalized(given)
        changes.append(_like(new, old) - old)

    def replace(old: Tensor) -> Tensor:
        gain = norm.gain.to(old.device)
        return old + (changes[-1].to(old.device) * gain).to(old.dtype).view(old.shape)

    stack.enter_context(on_input(norm.module, see))
    stack.enter_context(on_input(entry, replace))
