import os
import subprocess
import sys
import types

import huggingface_hub
import pytest

from autointerp.errors import CorpusError
from autointerp.probing.hub_rows import HubReader, InstalledDatasets
from autointerp.probing.task_files import RowSource
from autointerp.testing.tiny_hub import TinyHub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def reader(tmp_path):
    return InstalledDatasets(tmp_path)


def install(monkeypatch, rows_of, commit=COMMIT):
    """A package whose data sets, of one commit, have the rows that a function gives."""

    def load_dataset_builder(*args, **options):
        def as_streaming_dataset(*, split):
            return rows_of(*args, split=split, **options)

        return types.SimpleNamespace(hash=commit, as_streaming_dataset=as_streaming_dataset)

    module = types.ModuleType("datasets")
    module.load_dataset_builder = load_dataset_builder
    monkeypatch.setitem(sys.modules, "datasets", module)


def refused(call, *parts):
    with pytest.raises(CorpusError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line, line


def test_it_meets_the_protocol(reader):
    assert isinstance(reader, HubReader)


def test_without_the_package_it_says_what_to_install(reader, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    source = RowSource(dataset="who/what")
    refused(lambda: reader.revision(source), "who/what", "not installed", "autointerp-suite[datasets]")
    refused(lambda: next(reader.rows(source, "")), "not installed")


def test_the_newest_commit_is_pinned_and_rows_are_read_at_it(reader, monkeypatch):
    calls = []

    def rows_of(*args, **options):
        calls.append((args, options))
        return iter([{"text": "a"}, {"text": "b"}])

    class Api:
        def dataset_info(self, name, *, revision, timeout):
            calls.append((name, revision))
            return types.SimpleNamespace(sha=COMMIT)

    install(monkeypatch, rows_of)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    source = RowSource(dataset="who/what", config="en", split="validation", revision="refs/convert/parquet")
    assert reader.revision(source) == COMMIT
    assert list(reader.rows(source, COMMIT)) == [{"text": "a"}, {"text": "b"}]
    options = {"split": "validation", "revision": COMMIT}
    assert calls == [("who/what", "refs/convert/parquet"), (("who/what", "en"), options)]


def test_a_commit_is_taken_as_it_is_and_files_elsewhere_have_none(reader, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert reader.revision(RowSource(dataset="who/what", revision=COMMIT)) == COMMIT
    assert reader.revision(RowSource(dataset="json", data_files="https://example.org/x.jsonl")) == ""
    assert reader.revision(RowSource(dataset="stdlib")) == ""


def test_files_of_a_data_set_are_named(reader, monkeypatch):
    seen = {}
    install(monkeypatch, lambda *_args, **options: seen.update(options) or iter([]))
    list(reader.rows(RowSource(dataset="json", data_files="https://example.org/x.jsonl"), ""))
    assert seen["data_files"] == "https://example.org/x.jsonl"
    assert seen["revision"] is None


@pytest.mark.parametrize("error", [OSError, ValueError, KeyError, ConnectionError, ImportError])
def test_what_goes_wrong_at_the_hub_is_one_clear_line(reader, monkeypatch, error):
    def fails(*_args, **_options):
        raise error("no such\nthing")

    install(monkeypatch, fails)
    source = RowSource(dataset="who/what")
    refused(lambda: next(reader.rows(source, COMMIT)), "who/what", "no such", "check the connection")

    class Api:
        dataset_info = fails

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    refused(lambda: reader.revision(source), "who/what", "no such")


def test_offline_the_hub_is_not_asked(reader, monkeypatch):
    install(monkeypatch, lambda *_args, **_options: iter([]))
    refused(lambda: reader.revision(RowSource(dataset="who/what")), "who/what", "cannot be read")


def test_rows_of_another_commit_are_refused(reader, monkeypatch):
    """`datasets` takes what it kept last, whatever was asked for, where it cannot reach the hub."""
    install(monkeypatch, lambda *_args, **_options: iter([{"text": "other"}]), "f" * 40)
    source = RowSource(dataset="who/what", revision=COMMIT)
    refused(lambda: next(reader.rows(source, COMMIT)), "who/what", f"{COMMIT} cannot be reached")


def test_a_file_fetched_by_hand_is_read_with_its_header(reader, tmp_path):
    (tmp_path / "names.csv").write_text('prompt,target\n"a, b",1\n"c\nd",0\n', encoding="utf-8")
    source = RowSource(dataset="by-hand", data_files="names.csv")
    rows = [{"prompt": "a, b", "target": "1"}, {"prompt": "c\nd", "target": "0"}]
    assert list(reader.rows(source, "")) == rows


def test_a_file_that_was_not_fetched_is_told(reader, tmp_path):
    source = RowSource(dataset="by-hand", data_files="names.csv")
    refused(lambda: list(reader.rows(source, "")), "names.csv", "fetched by hand")
    (tmp_path / "names.csv").write_bytes(b"prompt,target\n\xff\xfe,1\n")
    refused(lambda: list(reader.rows(source, "")), "names.csv", "no readable CSV")


def test_passages_of_the_library_are_short_and_of_modules(reader):
    rows = []
    for row in reader.rows(RowSource(dataset="stdlib"), ""):
        rows.append(row)
        if len(rows) == 20:
            break
    assert all(0 < len(row["text"]) <= 400 and len(row["module"]) == 16 for row in rows)
    assert len({row["module"] for row in rows}) > 4


READ = """
import sys
from pathlib import Path
from autointerp.probing.hub_rows import InstalledDatasets
from autointerp.probing.task_files import RowSource
reader, (name, files) = InstalledDatasets(Path()), sys.argv[1:]
source = RowSource(dataset=name, data_files=files)
revision = reader.revision(source)
print(revision, [row["text"] for row in reader.rows(source, revision)])
"""


def test_the_package_itself_reads_a_hub_and_a_file_that_lies_elsewhere(tmp_path):
    """In a process of its own, since the package asks for the hub's address when it is imported."""
    with TinyHub() as hub:
        old = hub.add("datasets/who/what", {"part.jsonl": b'{"text": "old"}\n'})
        new = hub.add("datasets/who/what", {"part.jsonl": b'{"text": "one"}\n{"text": "two"}\n'})
        environment = os.environ | hub.environment(tmp_path / "cache") | {"HF_HOME": str(tmp_path / "home")}
        said = []
        for arguments in (
            ("who/what", "*.jsonl"),
            ("json", f"{hub.endpoint}/datasets/who/what/resolve/{old}/part.jsonl"),
        ):
            ended = subprocess.run(
                [sys.executable, "-c", READ, *arguments],
                env=environment, capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stderr
            said.append(ended.stdout.strip())
    assert said == [f"{new} ['one', 'two']", "['old']"]
