"""2,000 calls, 30 % of them faulty in every way there is, killed and resumed ten times: nothing is lost or
paid twice, and what comes out is what an uninterrupted run gives.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from autointerp.testing.tiny_chat_server.exchange import Answer, Call
from autointerp.testing.tiny_chat_server.faults import INJECTION, LASTING_FAULTS, ODD_UNICODE, PASSING_FAULTS
from autointerp.testing.tiny_chat_server.faulty_backend import FaultyBackend
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import TinyChatServer, tiny_chat_server

COUNT, KILLS, AT_ONCE = 2000, 10, 64
DRIVER = Path(__file__).with_name("llm_fault_driver.py")
SPOILT = {*PASSING_FAULTS} - {"slow"}


def proper(number: int) -> str:
    return f"answer {number}: some words"


class Endpoint:
    """Answers items, some faulty; remembers the body of each. What else is asked fails only in passing."""

    model = "scripted"

    def __init__(self) -> None:
        said = ScriptedBackend(lambda call: proper(number_of(call)) if is_item(call) else "ok")
        self.items = FaultyBackend(said, faults=0.3, seed=11)
        self._others = FaultyBackend(said, faults=0.3, seed=11, kinds=[*PASSING_FAULTS], most_in_a_row=1)
        self.keys: dict[int, str] = {}

    async def answer(self, call: Call) -> Answer:
        if not is_item(call):
            return await self._others.answer(call)
        self.keys[number_of(call)] = call.key
        return await self.items.answer(call)


def is_item(call: Call) -> bool:
    return call.prompt.startswith("item ")


def number_of(call: Call) -> int:
    return int(call.prompt.split()[1])


@dataclass(frozen=True)
class Run:
    """What is left when all sittings are over."""

    results: list[dict]
    endpoint: Endpoint
    server: TinyChatServer
    snapshots: list[tuple[set[int], dict[str, int]]]
    """After each kill: which items had been answered, and how often each body had been sent."""


def run(folder: Path, kills: list[int]) -> Run:
    folder.mkdir()
    endpoint, snapshots = Endpoint(), []
    with tiny_chat_server(endpoint) as server:
        told = {"base_url": server.base_url, "folder": str(folder), "count": COUNT, "kills": kills}
        command = [sys.executable, str(DRIVER)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as driver:
            assert driver.stdin is not None and driver.stdout is not None
            driver.stdin.write(json.dumps(told) + "\n")
            driver.stdin.flush()
            for line in driver.stdout:
                assert line == "killed\n"
                done = {int(number) for number in (folder / "done.txt").read_text().split()}
                snapshots.append((done, dict(server.log.asked)))
                driver.stdin.write("go on\n")
                driver.stdin.flush()
        assert driver.returncode == 0
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return Run(results, endpoint, server, snapshots)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("faults") / "whole", [])


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Run:
    # Counted from the sitting's own first answer, those from the file included; some are killed at once.
    chance = random.Random(5)
    begins = sorted(chance.sample(range(1, COUNT - 100), KILLS - 1))
    return run(tmp_path_factory.mktemp("faults") / "killed", [1, *begins])


def expected(number: int, endpoint: Endpoint) -> tuple[str, str]:
    """What an item must come to: a text, or the cause of a refusal."""
    fault = endpoint.items.fault_of(endpoint.keys[number], 1000)
    kind = ("chat", "logprobs", "echo")[number % 3]
    before = f"item {number} asks" if kind == "echo" else ""
    if fault == "content_filter" or (fault == "refused" and kind != "echo"):
        return "cause", "content_filter"
    if fault in ("cut_off", "empty") and kind != "echo":
        return "cause", fault
    if (fault == "missing_logprobs" and kind != "chat") or (fault == "uneven_logprobs" and kind == "echo"):
        return "cause", "missing_logprobs"
    said = {
        "refused": "",
        "empty": "",
        "injection": INJECTION,
        "unicode": ODD_UNICODE,
        "half_json_text": '{"predictions": [{"id": 1, "val',
        "wrong_count": "[0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1]",
    }
    return "text", before + said.get(fault or "", proper(number))


def paid(run: Run) -> Counter[str]:
    """How often each item was answered so that a client could read the answer."""
    records = run.server.log.records
    keys = set(run.endpoint.keys.values())
    whole = [each for each in records if each.status == 200 and each.fault not in SPOILT]
    return Counter(each.key for each in whole if each.key in keys)


def test_every_item_has_the_answer_or_the_refusal_that_it_must_have(uninterrupted):
    assert len(uninterrupted.results) == COUNT
    for number, result in enumerate(uninterrupted.results):
        kind, value = expected(number, uninterrupted.endpoint)
        assert result.get(kind) == value, (number, result)
    refused = Counter(result["cause"] for result in uninterrupted.results if "cause" in result)
    assert set(refused) == {"content_filter", "cut_off", "empty", "missing_logprobs"}


def test_every_kind_of_fault_came_and_in_the_share_that_was_asked_for(uninterrupted):
    endpoint = uninterrupted.endpoint
    first = [endpoint.items.fault_of(key, 0) for key in endpoint.keys.values()]
    assert 0.27 < sum(fault is not None for fault in first) / COUNT < 0.33
    seen = {record.fault for record in uninterrupted.server.log.records}
    assert seen == {"", *PASSING_FAULTS, *LASTING_FAULTS}


def test_nothing_is_paid_twice_if_nothing_is_killed(uninterrupted):
    assert set(paid(uninterrupted).values()) == {1} and len(paid(uninterrupted)) == COUNT


def test_killed_ten_times_it_comes_to_the_same_results(killed, uninterrupted):
    assert len(killed.snapshots) == KILLS
    assert killed.results == uninterrupted.results


def test_what_was_answered_before_a_kill_is_never_sent_again(killed):
    answered = [len(done) for done, _ in killed.snapshots]
    assert answered == sorted(answered) and answered[-1] > COUNT / 2
    final = killed.server.log.asked
    for done, asked in killed.snapshots:
        keys = [killed.endpoint.keys[number] for number in done]
        assert [final[key] for key in keys] == [asked[key] for key in keys]


def test_at_most_what_was_under_way_at_a_kill_is_paid_twice(killed):
    again = sum(count - 1 for count in paid(killed).values())
    assert len(paid(killed)) == COUNT and again <= KILLS * AT_ONCE
