"""A clock that jumps where others wait, and settings that point at a server on this machine."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from autointerp.explanation_sections import LlmSection
from autointerp.llm.clock import Clock
from autointerp.llm.requests import Message, Request


@dataclass
class JumpingTime:
    """Whoever sleeps is woken in the order of their times, at once."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        end = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, end)

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, today=lambda: 1_700_000_000.0 + self.now, sleep=self.sleep)


@pytest.fixture
def jumping_time() -> JumpingTime:
    return JumpingTime()


@pytest.fixture
def chat() -> Callable[..., Request]:
    def make(text: str = "hello", **more: Any) -> Request:
        return Request(messages=(Message("system", "Judge."), Message("user", text)), **more)

    return make


@pytest.fixture
def section() -> Callable[..., LlmSection]:
    def make(url: str, **more: Any) -> LlmSection:
        return LlmSection(base_url=url, **{"model": "tiny", "api_key_env": "AUTOINTERP_TEST_KEY", **more})

    return make


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    return tmp_path / "llm_replies.sqlite"
