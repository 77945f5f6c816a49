"""The run directory: what is on the disk is whole, belongs to this run, and is written by one process."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import polars as pl
import pytest

from autointerp.errors import RunStoreError
from autointerp.run_store import MemoryStore, RunStore, read_events

IDENTITY = {"suite": "abc", "corpus": {"kind": "stdlib", "sha256": "1"}, "seed": 0}
FRAME = pl.DataFrame({"x": [1, 2, 3], "y": ["a", "b", None]})


def open_store(path, identity=IDENTITY):
    return RunStore.open(path, suite_toml="[run]\nseed = 0\n", identity=identity)


def child(code, *arguments):
    """A separate Python that runs `code`; its output is read through a pipe."""
    program = textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


# ---- shards


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryStore()
    else:
        with open_store(tmp_path / "run") as opened:
            yield opened


def test_a_shard_comes_back_as_it_was_written(store):
    assert not store.has("chunk/00012/observations")
    store.write("chunk/00012/observations", FRAME)
    assert store.has("chunk/00012/observations")
    assert store.read("chunk/00012/observations").equals(FRAME, null_equal=True)


def test_an_absent_shard_is_a_key_error(store):
    with pytest.raises(KeyError):
        store.read("chunk/1")


def test_a_second_write_replaces_the_first(store):
    store.write("k", FRAME)
    store.write("k", FRAME.head(1))
    assert store.read("k").height == 1


def test_an_empty_frame_is_a_shard_too(store):
    store.write("k", FRAME.clear())
    assert store.has("k")
    assert store.read("k").schema == FRAME.schema


def test_shards_are_listed_by_prefix_and_suffix_in_order(store):
    for number in (10, 2):
        for kind in ("observations", "firing"):
            store.write(f"chunk/{number:05d}/{kind}", FRAME.head(number))
    store.write("calibration", FRAME)
    assert store.keys() == sorted(store.keys()) and len(store.keys()) == 5
    found = store.read_all("chunk/", suffix="/observations")
    assert list(found) == ["chunk/00002/observations", "chunk/00010/observations"]
    assert found["chunk/00002/observations"].height == 2


@pytest.mark.parametrize(
    "key", ["a/b", "a~b", "a%2Fb", "../up", "..", "/abs", "step 1000 (best)", "ä/ö", "a.parquet", "."]
)
def test_any_key_is_kept_apart_and_inside_the_directory(tmp_path, key):
    with open_store(tmp_path / "run") as store:
        before = {p for p in tmp_path.rglob("*") if p.is_file()}
        store.write(key, FRAME)
        store.write("a", FRAME.head(1))
        assert store.read(key).equals(FRAME, null_equal=True)
        assert sorted(store.keys()) == sorted(["a", key])
        new = {p for p in tmp_path.rglob("*") if p.is_file()} - before
        assert {p.parent for p in new} == {tmp_path / "run" / "chunks"}


@pytest.mark.parametrize("key", ["", "x" * 300])
def test_impossible_keys_are_refused(tmp_path, key):
    with open_store(tmp_path / "run") as store, pytest.raises(ValueError, match="key"):
        store.write(key, FRAME)


# ---- opening and resuming


def test_a_run_is_resumed_with_its_shards(tmp_path):
    with open_store(tmp_path / "deep" / "run") as store:
        store.write("k", FRAME)
        assert not store.is_finished
    with open_store(tmp_path / "deep" / "run") as store:
        assert store.has("k")
        assert [e["event"] for e in store.events()] == ["started", "resumed"]
        store.finish()
        assert store.is_finished
    with open_store(tmp_path / "deep" / "run") as store:
        assert store.is_finished
        assert json.loads((store.path / "finished.json").read_text())["identity"] == IDENTITY
    assert (tmp_path / "deep" / "run" / "suite.toml").read_text() == "[run]\nseed = 0\n"


def test_another_identity_is_refused_and_the_differences_named(tmp_path):
    with open_store(tmp_path) as store:
        store.write("k", FRAME)
    other = {"suite": "abc", "corpus": {"kind": "text", "sha256": "1"}, "device": "cpu"}
    with pytest.raises(RunStoreError) as caught:
        open_store(tmp_path, other)
    message = str(caught.value)
    assert 'corpus.kind is "stdlib" there, "text" here' in message
    assert "device is null there" in message
    assert "seed is 0 there, null here" in message
    assert "suite" not in message.replace(str(tmp_path), "")
    assert "--out" in message
    assert "delete this one" in message
    open_store(tmp_path).close()  # and the refused one has let go of the lock


def test_a_run_that_has_computed_nothing_makes_way_for_another(tmp_path):
    open_store(tmp_path).close()
    with open_store(tmp_path, {"suite": "other"}) as store:
        assert [e["event"] for e in store.events()] == ["started"]
    assert json.loads((tmp_path / "identity.json").read_text()) == {"suite": "other"}


def test_a_finished_run_without_shards_does_not_make_way(tmp_path):
    with open_store(tmp_path) as store:
        store.finish()
    with pytest.raises(RunStoreError, match="another run"):
        open_store(tmp_path, {"suite": "other"})
    assert (tmp_path / "finished.json").exists()


def complete_run(path):
    with open_store(path) as store:
        store.write("k", FRAME)
        store.write_table("observations/reconstruction.parquet", FRAME)
        store.write_text("report.json", "{}")
        store.finish()
    (path / "chunks" / "x.corrupt").touch()
    (path / "thesis.tex").write_text("x")


def test_another_run_is_replaced_only_if_asked_and_only_its_own_files(tmp_path):
    complete_run(tmp_path)
    with pytest.raises(RunStoreError, match="another run"):
        open_store(tmp_path, {"suite": "other"})
    with RunStore.open(tmp_path, suite_toml="", identity={"suite": "other"}, replace_other=True) as store:
        assert store.keys() == []
        assert not store.is_finished
        assert [e["event"] for e in store.events()] == ["started"]
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["identity.json", "run.jsonl", "run.lock", "suite.toml", "thesis.tex"]


def test_the_same_run_is_resumed_though_another_might_be_replaced(tmp_path):
    complete_run(tmp_path)
    with RunStore.open(tmp_path, suite_toml="", identity=IDENTITY, replace_other=True) as store:
        assert store.has("k")
        assert store.is_finished


def test_a_folder_that_holds_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunStoreError, match="holds no run"):
        RunStore.open(tmp_path, suite_toml="", identity=IDENTITY, replace_other=True)


def test_a_finished_run_can_be_reopened_with_its_shards(tmp_path):
    complete_run(tmp_path)
    with open_store(tmp_path) as store:
        store.reopen()
        assert not store.is_finished
        assert store.has("k")
        assert store.events()[-1]["event"] == "reopened"
        store.reopen()
        store.finish()
        assert store.is_finished


def test_shards_without_an_identity_are_not_taken_for_this_runs(tmp_path):
    complete_run(tmp_path)
    for name in ("identity.json", "finished.json", "run.jsonl", "suite.toml", "report.json", "thesis.tex"):
        (tmp_path / name).unlink()
    (tmp_path / "observations" / "reconstruction.parquet").unlink()
    (tmp_path / "observations").rmdir()
    with pytest.raises(RunStoreError, match="holds no run"):
        open_store(tmp_path)
    assert (tmp_path / "chunks" / "k.parquet").exists()


def test_identities_are_compared_as_json(tmp_path):
    open_store(tmp_path, {"a": (1, 2), "b": 1.0}).close()
    open_store(tmp_path, {"b": 1.0, "a": [1, 2]}).close()


def test_a_finished_marker_of_another_run_does_not_count(tmp_path):
    with open_store(tmp_path) as store:
        for text in ("", "[]", '{"identity": {}}'):
            (tmp_path / "finished.json").write_text(text)
            assert not store.is_finished


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunStoreError, match="holds no run"):
        open_store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_killed_before_its_identity_was_written_can_be_started_again(tmp_path):
    (tmp_path / "run.lock").touch()
    (tmp_path / "chunks").mkdir()
    (tmp_path / ".identity.json.77.tmp").write_text('{"sui')
    with open_store(tmp_path) as store:
        assert store.events()[0]["event"] == "started"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_identity_is_an_error_not_a_new_run(tmp_path):
    open_store(tmp_path).close()
    (tmp_path / "identity.json").write_text('{"suite": ')
    with pytest.raises(RunStoreError, match="identity"):
        open_store(tmp_path)


def test_a_path_below_a_file_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunStoreError, match="--out"):
        open_store(tmp_path / "file" / "run")
    with pytest.raises(RunStoreError, match="--out"):
        open_store(tmp_path / "file")


def test_a_folder_that_may_not_be_written_is_an_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # file permissions do not bind the superuser, as whom tests often run
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunStoreError, match=r"Permission denied.*--out"):
        open_store(tmp_path / "run")


# ---- damage


def test_a_truncated_shard_is_set_aside_and_counts_as_absent(tmp_path):
    with open_store(tmp_path) as store:
        store.write("k", FRAME)
        store.write("l", FRAME)
    file = tmp_path / "chunks" / "k.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with open_store(tmp_path) as store:
        assert not store.has("k")
        assert store.has("l")
        assert list(store.read_all()) == ["l"]
        assert (tmp_path / "chunks" / "k.corrupt").exists()
        event = store.events()[-1]
        assert (event["event"], event["key"]) == ("shard_damaged", "k")
        store.write("k", FRAME)
        assert store.has("k")


def test_reading_all_stops_at_a_damaged_shard_rather_than_leave_it_out(tmp_path):
    with open_store(tmp_path) as store:
        store.write("k", FRAME)
        (tmp_path / "chunks" / "k.parquet").write_bytes(b"PAR1")
        with pytest.raises(RunStoreError, match="run the same command again"):
            store.read_all()
        assert not store.has("k")
        assert store.read_all() == {}


def test_no_kind_of_damage_gives_anything_but_the_frame_or_nothing(tmp_path, capfd):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": rng.normal(size=200), "y": [f"d{n}" for n in range(200)]})
    with open_store(tmp_path) as store:
        store.write("k", frame)
        file = tmp_path / "chunks" / "k.parquet"
        whole = file.read_bytes()
        for length in [0, 1, 4, *rng.integers(5, len(whole), 30).tolist()]:
            file.write_bytes(whole[:length])
            store._sound.clear()
            assert not store.has("k")
        for junk in (b"\0" * len(whole), rng.bytes(len(whole)), b"PAR1" * 40):
            file.write_bytes(junk)
            store._sound.clear()
            assert not store.has("k")
    capfd.readouterr()  # the Parquet reader may complain aloud


def test_a_full_disk_is_an_error_that_leaves_nothing_half_written(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        store.write("k", FRAME)
        write = os.write

        def fill_up(descriptor, content):
            if len(content) > 100:
                return write(descriptor, content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", fill_up)
        for attempt in (
            lambda: store.write("k", FRAME.head(1)),
            lambda: store.write("new", FRAME),
            lambda: store.write_text("report.html", "x" * 1000),
            store.finish,
        ):
            with pytest.raises(RunStoreError, match="free some space"):
                attempt()
        monkeypatch.undo()
        assert store.read("k").equals(FRAME, null_equal=True)
        assert not store.has("new")
        assert not store.is_finished
        assert not (tmp_path / "report.html").exists()
        assert not list(tmp_path.rglob("*.tmp"))


def test_short_writes_are_carried_on(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
    with open_store(tmp_path) as store:
        store.write("k", FRAME)
        assert store.read("k").equals(FRAME, null_equal=True)


def test_files_are_flushed_before_they_get_their_name(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        calls = []
        fsync, replace = os.fsync, type(tmp_path).replace
        monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
        monkeypatch.setattr(
            type(tmp_path), "replace", lambda *args: (calls.append("replace"), replace(*args))[1]
        )
        store.write("k", FRAME)
    assert calls == ["fsync", "replace", "fsync"]


# ---- events and texts


def test_events_are_lines_of_json_in_order(tmp_path):
    with open_store(tmp_path) as store:
        store.event("chunk_done", index=3, seconds=1.25, note="two\nlines")
        event = store.events()[-1]
    assert (event["event"], event["index"], event["seconds"], event["note"]) == (
        "chunk_done",
        3,
        1.25,
        "two\nlines",
    )
    assert event["time"].endswith("+00:00")
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 2


def test_a_torn_last_line_is_tolerated_and_not_joined_to_the_next(tmp_path):
    with open_store(tmp_path) as store:
        store.event("one")
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('{"event": "tor')
    assert [e["event"] for e in read_events(tmp_path / "run.jsonl")] == ["started", "one"]
    with open_store(tmp_path) as store:
        assert [e["event"] for e in store.events()] == ["started", "one", "resumed"]
    assert all(json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines())
    assert read_events(tmp_path / "none.jsonl") == []


def test_the_names_of_an_events_own_columns_are_taken(store):
    with pytest.raises(ValueError, match="called time"):
        store.event("x", time=1)


def test_a_nan_in_an_event_is_refused(tmp_path):
    with open_store(tmp_path) as store:
        with pytest.raises(ValueError, match="JSON compliant"):
            store.event("x", seconds=float("nan"))
        assert len(store.events()) == 1


def test_secrets_of_the_environment_are_blotted_out_of_events(store, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789")
    monkeypatch.setenv("SHORT_TOKEN", "a")
    store.event("refused", error="bad key sk-0123456789", more={"tried": ["sk-0123456789", 1]})
    event = (store.events if isinstance(store, MemoryStore) else store.events())[-1]
    assert event["error"] == "bad key [secret]"
    assert event["more"] == {"tried": ["[secret]", 1]}


def test_texts_and_tables_are_written_into_the_directory_only(tmp_path):
    with open_store(tmp_path / "run") as store:
        assert store.write_text("report.html", "<p>ä").read_text(encoding="utf-8") == "<p>ä"
        table = store.write_table("observations/reconstruction.parquet", FRAME)
        assert pl.read_parquet(table).equals(FRAME, null_equal=True)
        for name in ("../x", "/x", "", "identity.json", "chunks/x.parquet", "run.jsonl"):
            with pytest.raises(ValueError, match="not a name"):
                store.write_text(name, "x")


# ---- processes

HOLD = """
    import sys
    from autointerp.run_store import RunStore
    store = RunStore.open(sys.argv[1], suite_toml="", identity={"a": 1})
    print("open", flush=True)
    sys.stdin.read() if len(sys.argv) < 3 else None
    import time; time.sleep(60)
"""

WRITE = """
    import sys
    import polars as pl
    from autointerp.run_store import RunStore
    store = RunStore.open(sys.argv[1], suite_toml="", identity={"a": 1})
    start = len(store.keys())
    print("open", flush=True)
    for number in range(start, 10**6):
        key = f"chunk/{number:06d}"
        store.write(key, pl.DataFrame({"n": [number] * 5000, "row": range(5000)}))
        store.event("chunk_done", index=number)
        store.write_text("report.html", f"<p>{number}" * 2000 + "</html>")
"""


def test_a_second_process_is_turned_away_until_the_first_is_dead(tmp_path):
    holder = child(HOLD, tmp_path, "sleep")
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(RunStoreError, match="another process"):
            open_store(tmp_path, {"a": 1})
        second = child(HOLD, tmp_path, "sleep")
        with second.stdout:
            assert second.stdout.read() == ""
        assert second.wait() != 0
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.stdout.close()
        holder.wait()
    open_store(tmp_path, {"a": 1}).close()


def test_one_process_cannot_open_it_twice_either(tmp_path):
    with open_store(tmp_path), pytest.raises(RunStoreError, match="another process"):
        open_store(tmp_path)
    open_store(tmp_path).close()


def test_a_writer_killed_at_any_time_leaves_only_whole_files(tmp_path):
    pauses = random.Random(0)
    written = 0
    for _ in range(6):
        writer = child(WRITE, tmp_path)
        assert writer.stdout.readline() == "open\n"
        time.sleep(pauses.uniform(0.01, 0.25))
        writer.send_signal(signal.SIGKILL)
        writer.stdout.close()
        writer.wait()
        with open_store(tmp_path, {"a": 1}) as store:
            keys = store.keys()
            assert keys == [f"chunk/{number:06d}" for number in range(len(keys))]
            assert len(keys) >= written
            for number in range(written, len(keys)):
                frame = store.read(f"chunk/{number:06d}")
                assert frame["n"].to_list() == [number] * 5000
                assert frame["row"].to_list() == list(range(5000))
            written = len(keys)
            assert not list(tmp_path.rglob("*.corrupt"))
            assert not list(tmp_path.rglob("*.tmp"))
            done = {e["index"] for e in store.events() if e["event"] == "chunk_done"}
            assert done <= set(range(written))  # no event for what is not there
            if (tmp_path / "report.html").exists():
                assert (tmp_path / "report.html").read_text().endswith("</html>")
    assert written > 0


def test_a_damaged_identity_is_no_obstacle_where_the_run_may_be_replaced(tmp_path):
    path = tmp_path / "run"
    RunStore.open(path, suite_toml="", identity={"a": 1}).close()
    (path / "identity.json").write_text("")
    with pytest.raises(RunStoreError, match="damaged"):
        RunStore.open(path, suite_toml="", identity={"a": 1})
    RunStore.open(path, suite_toml="", identity={"a": 1}, replace_other=True).close()
    RunStore.open(path, suite_toml="", identity={"a": 1}).close()
