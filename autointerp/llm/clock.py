"""Time as the LLM layer sees it, so that tests need not wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["REAL_CLOCK", "Clock"]


@dataclass(frozen=True)
class Clock:
    """What time it is, and waiting."""

    now: Callable[[], float] = time.monotonic
    """Seconds of a clock that never goes back."""
    today: Callable[[], float] = time.time
    """Seconds since 1970, for dates."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


REAL_CLOCK = Clock()
