"""How fast LLM requests go out: autointerp's client with its file of answers, and the bare openai client.

    python benchmarks/speed/llm_client.py                      # 5,000 requests, 64 at once, 200 ms each
    python benchmarks/speed/llm_client.py --top-logprobs 20

A server in another process answers each request after the latency, as many at once as asked. Printed is a
Markdown table, a row for each side: requests per second, their share of the ideal (at once / latency), the
same after the first tenth of the requests, that as a share of the bare client's, processor time a request,
and cores in use. Ours measures the endpoint first (not timed), keeps every answer in SQLite and accounts for
it; the bare side keeps nothing. On a machine that others use too, only the processor time says something.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from autointerp.explanation_sections import LlmSection
from autointerp.llm.open_models import open_models
from autointerp.llm.requests import Message, Request

_PREFIX = "A latent of a sparse autoencoder fires on some tokens of a text and is silent on all others. " * 40
_SERVER = """
import asyncio, json, sys
latency, tops = float(sys.argv[1]), int(sys.argv[2])
top = [{"token": f"a{j}", "logprob": -1.0 - j} for j in range(tops)]
tokens = [{"token": f"t{i}", "logprob": -0.5, "top_logprobs": top} for i in range(10)]
choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
choice["logprobs"] = {"content": tokens} if tops else None
usage = {"prompt_tokens": 900, "completion_tokens": 10, "total_tokens": 910}
body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
body["usage"] = usage
raw = json.dumps(body).encode()
head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(raw)
async def serve(reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().split(b"\\r\\n")
            length = sum(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            await asyncio.sleep(latency)
            writer.write(head + raw)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def main() -> None:
    """Time both sides and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--top-logprobs", type=int, nargs="+", default=[0, 20], help="of each reply")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for tops in options.top_logprobs:
        for side, timed in (("bare client", _bare), ("autointerp", _ours)):
            found[f"{side}, {f'{tops} alternatives' if tops else 'text alone'}"] = _timed_side(
                timed, tops, options
            )
    print(_table(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2))


def _timed_side(timed: Callable[[str, int, Any], Any], tops: int, options: Any) -> dict[str, float]:
    """One side against a server of its own."""
    arguments = [sys.executable, "-c", _SERVER, str(options.latency_ms / 1000), str(tops)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            return asyncio.run(timed(url, tops, options))
        finally:
            server.terminate()


def _table(found: dict[str, dict[str, float]]) -> str:
    """Markdown, a row for each side."""
    names = ("requests/s", "of the ideal", "after the start", "of bare", "ms of processor a request", "cores")
    lines = ["| client, replies | " + " | ".join(names) + " |", "| :--- |" + " ---: |" * len(names)]
    for name, row in found.items():
        later = row["of_ideal_after_start"]
        bare = found[f"bare client, {name.split(', ')[1]}"]["of_ideal_after_start"]
        cells = [f"{row['requests_per_second']:.0f}", f"{row['of_ideal']:.1%}", f"{later:.1%}"]
        cells += [f"{later / bare:.1%}", f"{row['processor_ms_per_request']:.2f}", f"{row['cores']:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def _ours(url: str, tops: int, options: Any) -> dict[str, float]:
    section = LlmSection(base_url=url, model="m", concurrency=options.at_once)
    with tempfile.TemporaryDirectory() as folder:
        async with open_models(section, Path(folder) / "llm_replies.sqlite", roles=["judge"]) as models:

            async def one(number: int) -> None:
                messages = (Message("system", _PREFIX), Message("user", str(number)))
                await models["judge"].ask(Request(messages=messages, top_logprobs=tops or None))

            return await _timed(one, options)


async def _bare(url: str, tops: int, options: Any) -> dict[str, float]:
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    turns = asyncio.Semaphore(options.at_once)
    more = {"logprobs": True, "top_logprobs": tops} if tops else {}

    async def one(number: int) -> None:
        async with turns:
            messages: Any = [{"role": "system", "content": _PREFIX}, {"role": "user", "content": str(number)}]
            await client.chat.completions.create(model="m", messages=messages, max_tokens=256, **more)

    try:
        return await _timed(one, options)
    finally:
        await client.close()


async def _timed(one: Callable[[int], Awaitable[None]], options: Any) -> dict[str, float]:
    ends: list[float] = []

    async def noted(number: int) -> None:
        await one(number)
        ends.append(time.perf_counter())

    begin, used = time.perf_counter(), _processor_seconds()
    await asyncio.gather(*(noted(number) for number in range(options.requests)))
    seconds, used = time.perf_counter() - begin, _processor_seconds() - used
    ideal = options.at_once / (options.latency_ms / 1000)
    start = len(ends) // 10
    later = (len(ends) - start) / (ends[-1] - ends[start])
    return {
        "seconds": seconds,
        "requests_per_second": options.requests / seconds,
        "of_ideal": options.requests / seconds / ideal,
        "of_ideal_after_start": later / ideal,
        "processor_ms_per_request": 1000 * used / options.requests,
        "cores": used / seconds,
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
