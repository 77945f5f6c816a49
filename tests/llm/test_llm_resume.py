"""Killed and resumed among faults of all kinds: nothing kept is asked again, and the end is the same."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from autointerp.testing.tiny_chat_server.exchange import Answer, Backend, Call
from autointerp.testing.tiny_chat_server.faulty_backend import FaultyBackend
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

COUNT = 150
CONCURRENCY = 8
KILLS = 4

_DRIVER = """
import asyncio, json, sys
from pathlib import Path
from autointerp.explanation_sections import LlmSection
from autointerp.llm.clock import Clock
from autointerp.llm.open_models import open_models
from autointerp.llm.requests import Message, Request

async def short(seconds):
    await asyncio.sleep(min(seconds, 0.01))

async def run(url, cache, result, count, concurrency):
    section = LlmSection(base_url=url, model="tiny", concurrency=concurrency, attempts=8)
    async with open_models(section, Path(cache), roles=["judge"], clock=Clock(sleep=short)) as models:
        requests = [
            Request(messages=(Message("user", f"number {n}"),), metric="m", top_logprobs=2)
            for n in range(count)
        ]
        answers = await asyncio.gather(*(models["judge"].ask(request) for request in requests))
        kept = {"answers": [repr(answer) for answer in answers], "cost": models.cost_report()}
    Path(result).write_text(json.dumps(kept))

asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
"""


class Counting:
    """Counts how often each prompt comes in."""

    def __init__(self, backend: Backend) -> None:
        self.model, self._backend = backend.model, backend
        self.asked: Counter[str] = Counter()

    async def answer(self, call: Call) -> Answer:
        self.asked[call.prompt] += 1
        return await self._backend.answer(call)


def backend() -> Counting:
    return Counting(FaultyBackend(ScriptedBackend(lambda call: f"said {call.prompt}"), faults=0.3, seed=3))


def start(url: str, folder: Path) -> "subprocess.Popen[bytes]":
    arguments = [
        url,
        str(folder / "llm_replies.sqlite"),
        str(folder / "result.json"),
        str(COUNT),
        str(CONCURRENCY),
    ]
    return subprocess.Popen([sys.executable, "-c", _DRIVER, *arguments], stderr=subprocess.PIPE)


def kept_prompts(path: Path) -> set[str]:
    """Prompts with a final answer in the file."""
    if not path.exists():
        return set()
    connection = sqlite3.connect(path, timeout=60)
    try:
        rows = connection.execute("SELECT question FROM answers WHERE is_final").fetchall()
    except sqlite3.OperationalError:
        return set()
    finally:
        connection.close()
    return {json.loads(zlib.decompress(question))["messages"][0][1] for (question,) in rows}


def finish(url: str, folder: Path) -> Any:
    process = start(url, folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return json.loads((folder / "result.json").read_text())


def test_kills_lose_nothing_and_pay_nothing_twice(tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    cut.mkdir()
    whole.mkdir()
    counting = backend()
    before: dict[str, int] = {}
    with tiny_chat_server(counting) as server:
        for number in range(KILLS):
            process = start(server.base_url, cut)
            wanted = (number + 1) * COUNT // (KILLS + 2)
            while process.poll() is None and len(kept_prompts(cut / "llm_replies.sqlite")) < wanted:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            assert {prompt: counting.asked[prompt] for prompt in before} == before
            kept = kept_prompts(cut / "llm_replies.sqlite")
            before = {prompt: counting.asked[prompt] for prompt in kept}
        result = finish(server.base_url, cut)
        assert {prompt: counting.asked[prompt] for prompt in before} == before
        answered = [key for key, count in server.log.answered.items() for _ in range(count)]
    with tiny_chat_server(backend()) as server:
        expected = finish(server.base_url, whole)
        uninterrupted = sum(server.log.answered.values())
    assert result["answers"] == expected["answers"]
    assert len(answered) <= uninterrupted + KILLS * CONCURRENCY
    cost, whole_cost = result["cost"]["rows"][0], expected["cost"]["rows"][0]
    assert {name: cost[name] for name in ("calls", "refusals", "prompt_tokens", "completion_tokens")} == {
        name: whole_cost[name] for name in ("calls", "refusals", "prompt_tokens", "completion_tokens")
    }
