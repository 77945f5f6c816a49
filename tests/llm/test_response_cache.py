"""Answers survive whatever ends the process; other files are refused and left as they are."""

import asyncio
import json
import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autointerp.errors import RunStoreError
from autointerp.explanation_records import Refusal
from autointerp.llm.outcomes import Outcome
from autointerp.llm.requests import Message, Reply, Request, TokenLogprob, Usage, request_content, request_key
from autointerp.llm.response_cache import KeptAnswer, ResponseCache
from autointerp.llm.sqlite_writer import SqliteWriter

REQUEST = Request(
    messages=(Message("user", "wie geht's \ud800?"),), metric="m", json_schema={"type": "object"}
)
LOGPROBS = (TokenLogprob("x", -0.1 - 1e-17, (("x", -0.1), ("\x00", -7.25)), 3), TokenLogprob("y", None))


def outcome(text: str = "fine", attempts: int = 1) -> Outcome:
    usage = Usage(10, 2, 4)
    return Outcome(Reply(text, "m-1", "fp", usage, LOGPROBS), usage, "m-1", "fp", attempts)


def kept(key: str = "k", found: Outcome | None = None, **more: Any) -> KeptAnswer:
    values = {"endpoint": "http://h/v1", "model": "m", "role": "judge", "metric": "a.b"} | more
    return KeptAnswer(
        key=key, question=request_content(REQUEST), outcome=outcome() if found is None else found, **values
    )


def put(path: Path, *rows: KeptAnswer) -> list[Outcome]:
    async def play() -> list[Outcome]:
        with ResponseCache(path) as cache:
            return list(await asyncio.gather(*(cache.put(row) for row in rows)))

    return asyncio.run(play())


def test_an_answer_comes_back_equal_with_its_question(replies: Path) -> None:
    put(replies, kept())
    with ResponseCache(replies) as cache:
        assert cache.get("k") == outcome()
        assert cache.get("other") is None
        question = cache.question("k")
        assert question == json.loads(json.dumps(request_content(REQUEST)))


def test_the_first_answer_stays(replies: Path) -> None:
    put(replies, kept())
    assert put(replies, kept(found=outcome("later"))) == [outcome()]


def test_a_failed_request_is_kept_for_replays_alone_until_it_is_answered(replies: Path) -> None:
    failed = Outcome(Refusal("failed_request", "6 attempts"), attempts=6)
    put(replies, kept(found=failed))
    with ResponseCache(replies) as cache:
        assert cache.get("k") is None
        assert cache.get("k", with_failed=True) == failed
    assert put(replies, kept()) == [outcome()]
    assert put(replies, kept(found=failed)) == [outcome()]


@pytest.mark.parametrize("cause", ["content_filter", "cut_off", "empty", "missing_logprobs", "too_long"])
def test_refusals_of_what_was_asked_are_kept(cause: Any, replies: Path) -> None:
    put(replies, kept(found=Outcome(Refusal(cause, "x"), Usage(3, 1))))
    with ResponseCache(replies) as cache:
        found = cache.get("k")
    assert found is not None
    assert found.answer == Refusal(cause, "x")


def test_totals_are_sums_by_account(replies: Path) -> None:
    rows = [
        kept("1", usd=0.5),
        kept("2", outcome(attempts=3), usd=0.25),
        kept("3", metric="c.d"),
        kept("4", Outcome(Refusal("empty"), Usage(1, 1))),
    ]
    put(replies, *rows)
    with ResponseCache(replies) as cache:
        first, second = cache.totals()
        refusals = cache.refusals()
    assert (first["metric"], second["metric"]) == ("a.b", "c.d")
    assert (first["calls"], first["retries"], first["prompt_tokens"], first["cached_tokens"]) == (3, 2, 21, 8)
    assert (first["usd"], first["unpriced_calls"]) == (0.75, 1)
    assert [(row["cause"], row["calls"]) for row in refusals] == [("empty", 1)]


def test_another_programs_database_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RunStoreError, match="some other program's"):
        ResponseCache(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database at all " * 100, b"SQLite format 3\x00" + b"\xff" * 2000]
)
def test_a_damaged_file_is_one_clear_line_and_left(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.sqlite"
    path.write_bytes(content)
    with pytest.raises(RunStoreError) as caught:
        ResponseCache(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_later_versions_file_is_refused(replies: Path) -> None:
    put(replies, kept())
    with sqlite3.connect(replies) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunStoreError, match="later version"):
        ResponseCache(replies)


def test_a_damaged_row_is_an_error_and_not_an_answer(replies: Path) -> None:
    put(replies, kept())
    with sqlite3.connect(replies) as connection:
        connection.execute("UPDATE answers SET answer = x'00'")
    connection.close()
    with ResponseCache(replies) as cache, pytest.raises(RunStoreError, match="damaged"):
        cache.get("k")


def test_read_only_reads_and_does_not_write(replies: Path) -> None:
    put(replies, kept())
    with ResponseCache(replies, read_only=True) as cache:
        assert cache.get("k") == outcome()
        with pytest.raises(RunStoreError, match="reading only"):
            asyncio.run(cache.put(kept("2")))


def test_a_write_that_fails_does_not_take_others_with_it(replies: Path) -> None:
    async def play() -> list[Any]:
        with ResponseCache(replies) as cache:
            broken = KeptAnswer("bad", "e", "m", "judge", "x", {"not": object()}, outcome())
            return await asyncio.gather(
                cache.put(kept("1")), cache.put(broken), cache.put(kept("2")), return_exceptions=True
            )

    first, bad, second = asyncio.run(play())
    assert (first, second) == (outcome(), outcome())
    assert isinstance(bad, RunStoreError)
    with ResponseCache(replies) as cache:
        assert cache.get("1") and cache.get("2") and not cache.get("bad")


def test_an_answer_is_kept_though_nobody_waits_for_it_any_more(replies: Path) -> None:
    async def play() -> None:
        with ResponseCache(replies) as cache:
            task = asyncio.create_task(cache.put(kept()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(play())
    with ResponseCache(replies) as cache:
        assert cache.get("k") == outcome()


def _write_many(path: str, who: int) -> None:
    put(
        Path(path),
        *(kept(f"{who}-{number}") for number in range(50)),
        *(kept(f"same-{n}") for n in range(20)),
    )


def test_several_processes_write_at_once(replies: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(str(replies), who)) for who in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with ResponseCache(replies) as cache:
        assert sum(row["calls"] for row in cache.totals()) == 3 * 50 + 20


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_response_cache import kept
from autointerp.llm.response_cache import ResponseCache
from autointerp.llm.sqlite_writer import SqliteWriter
async def play():
    cache = ResponseCache(Path({path!r}))
    for number in range(30):
        await cache.put(kept(str(number)))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(play())
"""


def test_what_was_put_survives_a_kill(replies: Path) -> None:
    program = _KILLED.format(here=str(Path(__file__).parent), path=str(replies))
    killed = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    with ResponseCache(replies) as cache:
        assert all(cache.get(str(number)) == outcome() for number in range(30))


def test_the_key_is_of_all_that_is_asked_and_of_nothing_else() -> None:
    keys = {request_key("e", "m", REQUEST)}
    changes: list[dict[str, Any]] = [
        {"temperature": 0.5}, {"seed": 1}, {"max_tokens": 1}, {"replicate": 1}, {"top_logprobs": 0},
        {"least_temperature": 0.5},
        {"stop": ("a",)}, {"json_schema": {"type": "array"}}, {"top_p": 0.5}, {"may_cut": True},
        {"messages": (Message("user", "b"),)}, {"messages": (Message("system", "wie geht's \ud800?"),)},
    ]  # fmt: skip
    from dataclasses import replace

    for change in changes:
        keys.add(request_key("e", "m", replace(REQUEST, **change)))
    keys |= {request_key("e2", "m", REQUEST), request_key("e", "m2", REQUEST)}
    assert len(keys) == len(changes) + 3
    assert request_key("e", "m", replace(REQUEST, metric="other")) == request_key("e", "m", REQUEST)


def test_a_writer_that_cannot_open_its_file_tells_whoever_waits() -> None:
    """Without that an answer would be waited for for ever."""

    def connect() -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    writer = SqliteWriter(connect)
    waiting = [writer.submit(lambda connection: True) for _ in range(3)]
    for done in waiting:
        with pytest.raises(sqlite3.OperationalError, match="unable to open"):
            done.result(timeout=20)
    writer.close()
