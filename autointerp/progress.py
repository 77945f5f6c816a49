"""How long steps tell how far they are, without knowing whether anyone looks."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Advance", "Progress"]

Advance = Callable[[float], None]
"""Called with how much more is done, in the step's unit."""


@runtime_checkable
class Progress(Protocol):
    """Shows steps; the command line draws bars, a library call shows nothing."""

    def step(self, name: str, *, total: float | None, unit: str) -> AbstractContextManager[Advance]:
        """Enter a step of `total` units (None: unknown); leaving it ends it."""
        ...


class _Silent:
    def step(self, name: str, *, total: float | None, unit: str) -> AbstractContextManager[Advance]:  # noqa: ARG002
        return nullcontext(_ignore)


def _ignore(_amount: float) -> None:
    return None


SILENT: Progress = _Silent()
"""Shows nothing."""
