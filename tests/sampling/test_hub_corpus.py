"""Data sets of a hub as a corpus, read by the package `datasets` itself in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from autointerp.testing.tiny_hub import TinyHub

READ = """
import json, sys
asked = set()
sys.addaudithook(lambda event, given: asked.add(str(given[0])) if event == "socket.getaddrinfo" else None)
from autointerp.errors import CorpusError
from autointerp.sampling.corpus import open_corpus
told = []
for options in json.loads(sys.argv[1]):
    corpus = open_corpus("datasets", **options)
    try:
        texts = [document.text for document in corpus.documents()]
        told.append({"texts": texts, **corpus.describe()})
    except CorpusError as error:
        told.append({"error": str(error)})
print(json.dumps([told, sorted(asked)]))
"""
TEXTS = "datasets/who/texts"


KEEP = "import datasets; datasets.load_dataset('who/texts', split='train')"


def lines(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def run(environment, code, *arguments):
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def read(environment, wanted):
    """What each corpus says, and the machines that were looked for meanwhile."""
    return json.loads(run(environment, READ, json.dumps(wanted)).splitlines()[-1])


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub corpus")
    (folder / "local").mkdir()
    (folder / "local" / "part.jsonl").write_bytes(lines("here"))
    with TinyHub() as hub:
        old = hub.add(TEXTS, {"part.jsonl": lines("old")})
        new = hub.add(TEXTS, {"part.jsonl": lines("one", "two", "one", "")})
        wanted = [
            {"path": "who/texts"},
            {"path": "who/texts", "revision": old},
            {"path": "who/texts", "text_field": "content"},
            {"path": "who/nobody"},
            {"path": str(folder / "local")},
        ]
        environment = os.environ | hub.environment(folder / "cache") | {"HF_HOME": str(folder / "home")}
        said, asked = read(environment, wanted)
    assert asked == ["127.0.0.1"]
    return old, new, said


def test_the_newest_commit_is_read_and_named(told):
    _, new, (newest, *_) = told
    assert newest["texts"] == ["one", "two"]
    assert (newest["empty_count"], newest["repeated_count"]) == (1, 1)
    assert newest["revision"] == new


def test_a_commit_that_was_asked_for_is_read_though_the_branch_moved_on(told):
    old, _, (newest, pinned, *_) = told
    assert (pinned["texts"], pinned["revision"]) == (["old"], old)
    assert pinned["fingerprint"] != newest["fingerprint"]


def test_what_is_not_there_is_said_in_one_line(told):
    _, _, (_, _, no_field, nobody, _) = told
    assert "no field 'content'; the fields are text" in no_field["error"]
    assert "who/nobody" in nobody["error"]
    assert "\n" not in nobody["error"] + no_field["error"]


def test_a_folder_of_this_machine_has_no_commit(told):
    *_, local = told[2]
    assert local["texts"] == ["here"]
    assert "revision" not in local


def test_offline_what_was_kept_is_read_under_its_own_commit_only(tmp_path):
    """`datasets` itself then takes what it kept last, whichever commit was asked for."""
    with TinyHub() as hub:
        old = hub.add(TEXTS, {"part.jsonl": lines("old")})
        environment = os.environ | hub.environment(tmp_path / "cache") | {"HF_HOME": str(tmp_path / "home")}
        run(environment, KEEP)
        new = hub.add(TEXTS, {"part.jsonl": lines("new")})
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    wanted = [
        {"path": "who/texts"},
        *({"path": "who/texts", "revision": each} for each in (old, new, "main")),
    ]
    (kept, pinned, other, branch), asked = read(environment, wanted)
    assert (kept["texts"], kept["revision"]) == (["old"], old)
    assert pinned == kept
    assert f"commit {new} cannot be reached" in other["error"]
    assert "cannot be read" in branch["error"]
    assert asked == []
