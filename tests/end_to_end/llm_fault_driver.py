"""Asks an endpoint many questions, is killed again and again, and goes on each time until all are answered.

Started by test_llm_faults.py in a process of its own, one line of JSON on stdin first:

    {"base_url": ..., "folder": ..., "count": ..., "kills": [after so many answers, ...]}

Every sitting is a fork, so that importing is paid for once. After each kill it prints a line and waits for
one. The last sitting writes results.json: for each question its answer or refusal.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from autointerp.explanation_records import Refusal
from autointerp.explanation_sections import LlmSection
from autointerp.llm.open_models import open_models
from autointerp.llm.requests import Message, Request

KINDS = ("chat", "logprobs", "echo")


def request(number: int) -> Request:
    """A third are plain chats, a third want log-probabilities, a third those of the prompt."""
    kind, text = KINDS[number % 3], f"item {number} asks"
    if kind == "echo":
        return Request(prompt=text, max_tokens=1, top_logprobs=2, echo=True)
    return Request(messages=(Message("user", text),), top_logprobs=2 if kind == "logprobs" else None)


async def ask_all(base_url: str, folder: Path, count: int) -> list[dict[str, object]]:
    """Everything that was not answered before; each number is noted once its answer is there."""
    section = LlmSection(base_url=base_url, model="scripted")
    noted = os.open(folder / "done.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def ask(number: int) -> dict[str, object]:
        answer = await models["judge"].ask(request(number))
        os.write(noted, f"{number}\n".encode())
        if isinstance(answer, Refusal):
            return {"cause": answer.cause, "detail": answer.detail}
        tokens = None if answer.logprobs is None else [[each.token, each.logprob] for each in answer.logprobs]
        return {"text": answer.text, "tokens": tokens}

    async with open_models(section, folder / "llm_replies.sqlite", roles=("judge",)) as models:
        return await asyncio.gather(*(ask(number) for number in range(count)))


def sitting(base_url: str, folder: Path, count: int, kill_after: int | None) -> None:
    """Ask in a fork; with `kill_after` it is killed when so many more answers are noted."""
    done = folder / "done.txt"
    before = done.read_bytes().count(b"\n") if done.exists() else 0
    child = os.fork()
    if child == 0:
        results = asyncio.run(ask_all(base_url, folder, count))
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
        os._exit(0)
    if kill_after is not None:
        while not done.exists() or done.read_bytes().count(b"\n") < before + kill_after:
            if os.waitpid(child, os.WNOHANG)[0]:
                raise SystemExit("it ended before it could be killed")
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != (0 if kill_after is None else -signal.SIGKILL):
        raise SystemExit(f"a sitting ended with {status}")


def main() -> None:
    """All sittings."""
    told = json.loads(sys.stdin.readline())
    folder = Path(told["folder"])
    for kill_after in told["kills"]:
        sitting(told["base_url"], folder, told["count"], kill_after)
        sys.stdout.write("killed\n")
        sys.stdout.flush()
        sys.stdin.readline()
    sitting(told["base_url"], folder, told["count"], None)


if __name__ == "__main__":
    main()
