import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

from autointerp.checkpoints import hub as hub_module
from autointerp.checkpoints.hub import HubAddress, fetch, find_files, parse_address, size_in_words
from autointerp.checkpoints.load import is_checkpoint, read_checkpoint
from autointerp.checkpoints.locations import find_checkpoints
from autointerp.errors import CheckpointError
from autointerp.testing.tiny_hub import TinyHub

SWEEP = {
    f"layer_{layer}/k{k}/{name}": f"{layer} {k} {name}".encode()
    for layer in (2, 10)
    for k in (32, 64)
    for name in ("cfg.json", "sae.safetensors")
}
AROUND = {
    "README.md": b"# Dictionaries",
    "config.yaml": b"model_name: tiny",
    ".gitattributes": b"",
    "train.py": b"raise SystemExit",
    "pytorch_model.bin": b"a pickle",
    "layer_2/notes.json": b"{}",
    "layer_2/k32/optimizer_0.pt": b"state",
    "layer_2/k32/evil.py": b"raise SystemExit",
}
NAME = "somebody/saes"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(cache, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for module in (_http, file_download):  # it waits before it tries again
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _seconds: None))
    with TinyHub() as tiny_hub, tiny_hub.in_use(cache):
        yield tiny_hub


@pytest.fixture
def offline(hub):
    """Calling it is like setting HF_HUB_OFFLINE=1 for a new process; `hub` puts it back in the end."""
    return lambda: setattr(constants, "HF_HUB_OFFLINE", True)


def recognises(path):
    return path.is_dir() and (path / "cfg.json").is_file() and (path / "sae.safetensors").is_file()


def found(text, **options):
    return find_checkpoints(text, recognises=recognises, **options)


def refusal(text, do=found):
    with pytest.raises(CheckpointError) as caught:
        do(text)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.remedy
    assert line.startswith("hf:")
    return line


def inner_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def cached(cache, name=NAME):
    """The files of the only snapshot, by path."""
    (snapshot,) = (cache / f"models--{name.replace('/', '--')}" / "snapshots").iterdir()
    return {
        path.relative_to(snapshot).as_posix(): path.read_bytes()
        for path in snapshot.rglob("*")
        if path.is_file()
    }


# ---- one --------------------------------------------------------------------------------------------


def test_a_folder_is_fetched_with_the_configurations_above_it_and_nothing_else(hub, cache):
    commit = hub.add(NAME, SWEEP | AROUND)
    (only,) = found(f"hf:{NAME}/layer_2/k32")
    expected = {
        name: content
        for name, content in (SWEEP | AROUND).items()
        if name
        in ("config.yaml", "layer_2/notes.json", "layer_2/k32/cfg.json", "layer_2/k32/sae.safetensors")
    }
    assert cached(cache) == expected
    assert only.path == cache / "models--somebody--saes/snapshots" / commit / "layer_2/k32"
    assert (only.name, only.shown) == ("k32", f"hf:{NAME}/layer_2/k32@{commit}")
    assert (only.repository, only.revision) == (NAME, commit)


def test_a_file_is_fetched_with_the_configurations_above_it(hub, cache):
    commit = hub.add(NAME, {"a/layer_3.safetensors": b"3", "a/layer_4.safetensors": b"4", "config.yaml": b""})
    (only,) = find_checkpoints(f"hf:{NAME}/a/layer_3.safetensors", recognises=lambda _path: True)
    assert set(cached(cache)) == {"a/layer_3.safetensors", "config.yaml"}
    assert only.path.read_bytes() == b"3"
    assert only.path.name == "layer_3.safetensors"
    assert (only.name, only.shown) == ("layer_3", f"hf:{NAME}/a/layer_3.safetensors@{commit}")


def test_a_whole_repository_may_be_one(hub):
    commit = hub.add(NAME, {"cfg.json": b"{}", "sae.safetensors": b"1"})
    (only,) = found(f"hf:{NAME}")
    assert (only.name, only.shown) == ("saes", f"hf:{NAME}@{commit}")


def test_fetch_gives_the_path_and_the_commit(hub, cache):
    commit = hub.add(NAME, SWEEP)
    path, resolved = fetch(NAME, "layer_2/k32", "main")
    assert resolved == commit
    assert (path / "cfg.json").read_bytes() == b"2 32 cfg.json"
    assert fetch(NAME, "layer_2/*", commit) == (path.parent, commit)


def test_a_description_brings_the_weights_beside_it(hub, cache):
    hub.add(NAME, {"a/autoencoder.toml": b"[tensors]", "a/w.npz": b"1", "b/w.npz": b"2"})
    fetch(NAME, "a/autoencoder.toml")
    assert set(cached(cache)) == {"a/autoencoder.toml", "a/w.npz"}


@pytest.mark.parametrize("address", ["a", "a/autoencoder.toml", "*", "**"])
def test_a_description_brings_weights_further_down(hub, cache, address):
    files = {"a/autoencoder.toml": b"[tensors]", "a/weights/last/w.npz": b"1", "c/d/e.txt": b""}
    hub.add(NAME, files)
    assert len(find_checkpoints(f"hf:{NAME}/{address}", recognises=is_checkpoint)) == 1
    assert set(cached(cache)) == {"a/autoencoder.toml", "a/weights/last/w.npz"}


@pytest.mark.parametrize("case", ["relu", "topk_tied", "jumprelu"])
def test_a_described_checkpoint_comes_through_whole(hub, offline, case):
    folder = Path(__file__).parent / "fixtures/described" / case / "checkpoint"
    hub.add(NAME, {f"a/{path.relative_to(folder)}": path.read_bytes() for path in inner_files(folder)})
    (only,) = find_checkpoints(f"hf:{NAME}/a", recognises=is_checkpoint)
    assert read_checkpoint(only.path).sha256 == read_checkpoint(folder).sha256
    offline()
    assert find_checkpoints(f"hf:{NAME}/a", recognises=is_checkpoint) == [only]


def test_weights_in_an_inner_folder_belong_to_the_one_around_it(hub, cache):
    hub.add(NAME, {"L0R/hyperparams.json": b"{}", "L0R/checkpoints/final.safetensors": b"1"})
    assert fetch(NAME, "L0R")[0].name == "L0R"
    assert set(cached(cache)) == {"L0R/hyperparams.json", "L0R/checkpoints/final.safetensors"}


def test_steps_beside_the_final_weights_are_not_fetched_unless_named(hub, cache):
    files = {"run/config.json": b"{}", "run/ae.pt": b"1", "run/checkpoints/ae_9.pt": b"2"}
    hub.add(NAME, files)
    fetch(NAME, "run")
    assert set(cached(cache)) == {"run/config.json", "run/ae.pt"}
    fetch(NAME, "run/checkpoints/*")
    assert set(cached(cache)) == set(files)


def test_a_large_file_above_is_no_configuration(hub, cache, monkeypatch):
    hub.add(NAME, {"a/w.npz": b"1", "tokenizer.json": b"x" * 20, "config.json": b"{}"})
    monkeypatch.setattr(hub_module, "_LARGEST_CONFIGURATION_ABOVE", 10)
    fetch(NAME, "a")
    assert set(cached(cache)) == {"a/w.npz", "config.json"}


def test_a_real_checkpoint_comes_through_whole(hub, saelens_folder, offline):
    config, tensors, store = saelens_folder
    folder = store(config, tensors)
    hub.add(NAME, {f"blocks.8/{path.name}": path.read_bytes() for path in folder.iterdir()})
    text = f"hf:{NAME}/blocks.8"
    (only,) = find_checkpoints(text, recognises=is_checkpoint)
    assert read_checkpoint(only.path).sha256 == read_checkpoint(folder).sha256
    offline()
    assert find_checkpoints(text, recognises=is_checkpoint) == [only]


# ---- many -------------------------------------------------------------------------------------------


def test_a_pattern_finds_all_below(hub, cache):
    commit = hub.add(NAME, SWEEP | AROUND)
    locations = found(f"hf:{NAME}/**")
    names = ["layer_2/k32", "layer_2/k64", "layer_10/k32", "layer_10/k64"]
    assert [each.name for each in locations] == names
    assert [each.shown for each in locations] == [f"hf:{NAME}/{name}@{commit}" for name in names]
    assert set(cached(cache)) == {*SWEEP, "config.yaml", "layer_2/notes.json"}


def test_a_pattern_fetches_only_what_matches(hub, cache):
    commit = hub.add(NAME, SWEEP | AROUND)
    locations = found(f"hf:{NAME}/layer_*/k32@{commit}")
    assert [each.name for each in locations] == ["layer_2", "layer_10"]
    wanted = {name for name in SWEEP if "k32" in name}
    assert set(cached(cache)) == {*wanted, "config.yaml", "layer_2/notes.json"}
    assert [each.name for each in found(f"hf:{NAME}/layer_2/*")] == ["k32", "k64"]


def test_only_the_folder_that_a_pattern_begins_in_is_listed(hub):
    hub.add(NAME, SWEEP | AROUND)
    found(f"hf:{NAME}/layer_2/**")
    listed = [request.path for request in hub.requests if "/tree/" in request.path]
    assert [("recursive=true" in path, path.split("?")[0][-7:]) for path in listed][1:] == [(True, "layer_2")]
    assert "recursive=false" in listed[0]


def test_two_checkpoints_fetched_twice_download_nothing_the_second_time(hub):
    hub.add(NAME, SWEEP)
    text = f"hf:{NAME}/layer_2/*"
    first = found(text)
    assert len(first) == 2
    assert hub.body_count == 4
    hub.requests.clear()
    assert found(text) == first
    assert hub.body_count == 0
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}/revision/main"]
    hub.requests.clear()
    assert found(f"{text}@{first[0].revision}") == first
    assert hub.requests == []


def test_a_listing_in_pages_is_read_to_its_end(hub):
    hub.page_size = 3
    hub.add(NAME, SWEEP)
    assert len(found(f"hf:{NAME}/**")) == 4
    assert sum("/tree/" in request.path for request in hub.requests) == 5  # 8 files and 6 folders


def test_a_folder_of_several_is_refused_before_anything_is_fetched(hub):
    hub.add(NAME, SWEEP)
    line = refusal(f"hf:{NAME}")
    assert "no weights in the folder itself, but 82 B in 4 below" in line
    assert f"use 'hf:{NAME}/**@main'" in line
    assert f"use 'hf:{NAME}/layer_2/**@main'" in refusal(f"hf:{NAME}/layer_2")
    assert hub.body_count == 0


def test_a_folder_of_files_that_are_each_one_is_refused(hub):
    hub.add(NAME, {f"set/layer_{layer}.safetensors": b"%d" % layer for layer in range(3)})
    with pytest.raises(CheckpointError, match=rf"found 3 checkpoints below; use 'hf:{NAME}/set/\*\*@main'"):
        find_checkpoints(f"hf:{NAME}/set", recognises=lambda path: path.is_file())
    locations = find_checkpoints(f"hf:{NAME}/set/**", recognises=lambda path: path.is_file())
    assert [each.name for each in locations] == ["layer_0", "layer_1", "layer_2"]


def test_equal_files_of_a_repository_are_two_checkpoints(hub):
    hub.add(NAME, {"layer_0.safetensors": b"same", "layer_1.safetensors": b"same"})
    locations = find_checkpoints(f"hf:{NAME}/**", recognises=lambda path: path.is_file())
    assert [each.name for each in locations] == ["layer_0", "layer_1"]


# ---- revisions --------------------------------------------------------------------------------------


def test_each_revision_gives_its_own_commit(hub):
    old = hub.add(NAME, {"cfg.json": b"old", "sae.safetensors": b"1"}, revision="v1")
    hub.add(NAME, {"cfg.json": b"pull", "sae.safetensors": b"2"}, revision="refs/pr/1")
    new = hub.add(NAME, {"cfg.json": b"new", "sae.safetensors": b"1"})
    for revision, commit, content in (("v1", old, b"old"), (old, old, b"old"), ("main", new, b"new")):
        (only,) = found(f"hf:{NAME}@{revision}")
        assert only.revision == commit
        assert (only.path / "cfg.json").read_bytes() == content
    assert (found(f"hf:{NAME}@refs/pr/1")[0].path / "cfg.json").read_bytes() == b"pull"


def test_a_branch_that_moves_on_is_followed(hub):
    hub.add(NAME, {"cfg.json": b"old", "sae.safetensors": b"1"})
    (before,) = found(f"hf:{NAME}")
    hub.add(NAME, {"cfg.json": b"new", "sae.safetensors": b"1"})
    (after,) = found(f"hf:{NAME}")
    assert before.revision != after.revision
    assert (after.path / "cfg.json").read_bytes() == b"new"
    assert (before.path / "cfg.json").read_bytes() == b"old"
    assert found(f"hf:{NAME}@{before.revision}") == [before]


# ---- without a connection ---------------------------------------------------------------------------


def test_offline_the_cache_is_used_and_the_commit_recorded(hub, offline):
    hub.add(NAME, SWEEP | AROUND)
    texts = [f"hf:{NAME}/**", f"hf:{NAME}/layer_2/k32", f"hf:{NAME}/layer_*/k64"]
    before = [found(text) for text in texts]
    offline()
    hub.requests.clear()
    assert [found(text) for text in texts] == before
    assert [found(f"{text}@{before[0][0].revision}") for text in texts] == before
    assert hub.requests == []


def test_offline_what_was_not_fetched_is_missed(hub, offline):
    hub.add(NAME, SWEEP)
    found(f"hf:{NAME}/layer_2/k32")
    offline()
    for text in (
        f"hf:{NAME}/**",
        f"hf:{NAME}/layer_2/k64",
        f"hf:{NAME}/layer_2/k32@v1",
        "hf:somebody/else/x",
    ):
        assert "HF_HUB_OFFLINE is set, and this is not in the cache" in refusal(text)


def test_offline_a_download_that_was_cut_short_is_missed(hub, offline):
    hub.add(NAME, SWEEP)
    files = find_files(parse_address(f"hf:{NAME}/layer_2/*"))
    assert list(files.missing) == sorted(name for name in SWEEP if "layer_2" in name)
    fetch(NAME, "layer_2/k32")
    offline()
    line = refusal(f"hf:{NAME}/layer_2/*")
    assert "2 of its 4 files are not in the cache (layer_2/k64/cfg.json, layer_2/k64/sae.safetensors)" in line
    assert "without HF_HUB_OFFLINE" in line


def test_offline_what_the_library_downloaded_itself_is_used(hub, offline):
    commit = hub.add(NAME, SWEEP | AROUND)
    endpoint = hub.endpoint
    huggingface_hub.snapshot_download(NAME, allow_patterns=["layer_2/*"], endpoint=endpoint)
    offline()
    assert "1 of its 6 files are not in the cache (config.yaml)" in refusal(f"hf:{NAME}/layer_2/*")
    constants.HF_HUB_OFFLINE = False
    huggingface_hub.hf_hub_download(NAME, "config.yaml", endpoint=endpoint)
    offline()
    assert [each.revision for each in found(f"hf:{NAME}/layer_2/*")] == [commit, commit]
    assert "files are not in the cache" in refusal(f"hf:{NAME}/**")


def test_offline_single_files_of_the_cache_are_used_if_they_are_named(hub, offline):
    commit = hub.add(NAME, SWEEP)
    for name in ("cfg.json", "sae.safetensors"):
        huggingface_hub.hf_hub_download(NAME, f"layer_2/k32/{name}", endpoint=hub.endpoint)
    offline()
    assert found(f"hf:{NAME}/layer_2/k32")[0].revision == commit
    assert "this is not in the cache" in refusal(f"hf:{NAME}/layer_2/*")
    assert "this is not in the cache" in refusal(f"hf:{NAME}/layer_2/k64")


def test_without_an_answer_the_cache_is_used_too(hub, cache):
    hub.add(NAME, SWEEP)
    before = found(f"hf:{NAME}/layer_2/*")
    with unreachable():
        assert found(f"hf:{NAME}/layer_2/*") == before
        for text in (f"hf:{NAME}/layer_10/*", "hf:somebody/else"):
            line = refusal(text)
            assert "cannot be reached, and not all of it is in the cache" in line
            assert "check the connection and HF_ENDPOINT" in line


def test_a_damaged_memory_of_listings_is_no_memory(hub, cache):
    hub.add(NAME, SWEEP)
    before = found(f"hf:{NAME}/**")
    (record,) = (cache / "models--somebody--saes/autointerp").iterdir()
    good = json.loads(record.read_text())
    for content in (
        "",
        "[]",
        "{}",
        json.dumps(good | {"version": 0}),
        json.dumps(good | {"sizes": {"a": "b"}}),
    ):
        record.write_text(content)
        assert found(f"hf:{NAME}/**") == before


def test_a_cache_that_cannot_remember_serves_all_the_same(hub, cache):
    hub.add(NAME, SWEEP)
    (cache / "models--somebody--saes").mkdir(parents=True)
    (cache / "models--somebody--saes/autointerp").write_text("in the way")
    assert len(found(f"hf:{NAME}/**")) == 4


@contextmanager
def unreachable():
    """The endpoint of a hub that is gone."""
    with TinyHub() as gone:
        endpoint = gone.endpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", endpoint)
        yield


# ---- faults -----------------------------------------------------------------------------------------


def test_a_repository_that_is_not_there(hub):
    line = refusal("hf:nobody/nothing/x")
    assert "there is no such model repository, or it is private" in line
    assert "not of a SAELens release" in line
    assert "hf auth login" in line


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "no such model repository, or it is private"),
        (403, "the hub refuses access"),
        (404, "no such model repository"),
        (429, "asks for fewer requests"),
        (500, "the hub answers with error 500"),
        (503, "the hub answers with error 503"),
    ],
)
def test_a_hub_that_answers_with_an_error(hub, status, words):
    hub.status = status
    assert words in refusal(f"hf:{NAME}/x")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "or it is private"),
        (403, "refuses access"),
        (429, "fewer requests"),
        (503, "error 503"),
    ],
)
def test_a_hub_that_answers_with_an_error_for_files_only(hub, status, words):
    hub.add(NAME, SWEEP)
    hub.status_of_files = status
    assert words in refusal(f"hf:{NAME}/layer_2/k32")


def test_a_gated_repository(hub):
    hub.add(NAME, SWEEP)
    hub.is_gated = True
    line = refusal(f"hf:{NAME}/layer_2/k32")
    assert "access to this repository is restricted; accept its licence on the hub and log in" in line


def test_a_revision_that_is_not_there(hub):
    hub.add(NAME, SWEEP)
    for text in (f"hf:{NAME}@v9", f"hf:{NAME}@{'0' * 40}", f"hf:{NAME}@main/layer_2"):
        line = refusal(text)
        assert "it has no such revision" in line
        assert "hf:owner/name/path@main" in line


def test_a_path_that_is_not_there(hub):
    hub.add(NAME, SWEEP | AROUND)
    line = refusal(f"hf:{NAME}/layer_3/k32")
    assert (
        "there is no folder 'layer_3' in it; there are .gitattributes, README.md, config.yaml, layer_2"
        in line
    )
    assert "there is no 'layer_2/k16' in it; there are layer_2/k32, layer_2/k64" in refusal(
        f"hf:{NAME}/layer_2/k16"
    )
    assert "there is no 'layer_3' in it" in refusal(f"hf:{NAME}/layer_3/**")
    assert "there is no folder 'README.md' in it" in refusal(f"hf:{NAME}/README.md/x")


def test_files_that_are_never_fetched(hub):
    hub.add(NAME, SWEEP | AROUND)
    for name in ("pytorch_model.bin", "train.py", "README.md"):
        assert "is of no kind that is fetched" in refusal(f"hf:{NAME}/{name}")
    assert hub.body_count == 0


def test_no_weights_at_all(hub):
    hub.add(NAME, {"a/README.md": b"", "a/config.json": b"{}"})
    for text in (f"hf:{NAME}/a", f"hf:{NAME}/**", f"hf:{NAME}/a/*"):
        line = refusal(text)
        assert "there are no weights among the 2 files that were looked at" in line
        assert ".safetensors" in line


def test_nothing_that_is_recognised(hub):
    hub.add(NAME, {"a/model.safetensors": b"1", "a/config.json": b"{}"})
    line = refusal(f"hf:{NAME}/**")
    assert "no checkpoint matches among 2 files and 2 folders looked at" in line


def test_a_download_that_breaks_off_once_goes_on_where_it_was(hub, cache, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    content = bytes(range(256)) * 400
    hub.add(NAME, {"w.npz": content})
    hub.bodies_to_cut = 2
    fetch(NAME)
    assert cached(cache) == {"w.npz": content}
    starts = [request.first_byte for request in hub.requests if request.is_body]
    assert starts[0] == 0 < starts[1] < starts[2]


def test_a_download_that_breaks_off_again_and_again(hub, cache):
    hub.add(NAME, {"cfg.json": b"{}", "sae.safetensors": b"1"})  # a byte, of which half is nothing
    hub.bodies_to_cut = 1000
    assert "the download broke off; run it again: what is complete already" in refusal(f"hf:{NAME}")
    assert not [path for path in cache.rglob("*.safetensors") if path.exists()]
    assert not list(cache.rglob("*.incomplete"))
    hub.bodies_to_cut = 0
    assert len(found(f"hf:{NAME}")) == 1


def test_a_slow_hub_is_waited_for(hub):
    hub.add(NAME, {"cfg.json": b"{}", "sae.safetensors": b"1"})
    hub.delay_seconds = 0.05
    assert len(found(f"hf:{NAME}")) == 1


def test_what_is_no_hub(hub):
    hub.is_a_hub = False
    line = refusal(f"hf:{NAME}")
    assert "what answers is no Hugging Face hub" in line
    assert "check HF_ENDPOINT" in line


@pytest.mark.parametrize("endpoint", ["nonsense", "http://127.0.0.1:port", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_none(hub, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "check" in refusal(f"hf:{NAME}")


def test_a_cache_that_cannot_be_written(hub, cache):
    hub.add(NAME, SWEEP)
    cache.write_text("a file")
    assert "the cache cannot be used (Not a directory); set HF_HUB_CACHE" in refusal(f"hf:{NAME}/layer_2/k32")


def test_a_disk_without_room(hub, monkeypatch):
    hub.add(NAME, SWEEP)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _path: SimpleNamespace(free=5))
    line = refusal(f"hf:{NAME}/layer_2/k32")
    assert "33 B are to be fetched, and the cache has room for 5 B; set HF_HUB_CACHE" in line
    assert hub.body_count == 0


def test_a_repository_with_too_many_files(hub, monkeypatch):
    hub.add(NAME, SWEEP)
    monkeypatch.setattr("autointerp.checkpoints.hub_tree._MOST_ENTRIES", 10)
    assert "more than 10 files and folders in it; name a folder further down" in refusal(f"hf:{NAME}/**")


def test_no_token_is_ever_shown(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.further_headers = {"X-Error-Message": "Bearer hf_secret is not allowed"}
    for hub.status in (401, 403, 500):
        with pytest.raises(CheckpointError) as caught:
            found(f"hf:{NAME}/x")
        assert "secret" not in str(caught.value)
    assert {request.token for request in hub.requests} == {"hf_secret"}


# ---- hostile hubs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/evil.pt", "a//evil.pt", "C:/evil.pt", "a\\..\\..\\evil.pt", "a/C:evil.pt"]
)
def test_names_of_files_that_would_lie_outside_are_refused(hub, tmp_path, name):
    hub.add(NAME, {name: b"evil", "a/w.npz": b"1"})
    line = refusal(f"hf:{NAME}/**")
    assert f"it holds a file called {name!r}, which would lie outside of the cache" in line
    assert hub.body_count == 0


@pytest.mark.parametrize(
    "name", ["../evil.pt", "a/../../../evil.pt", "./evil.pt", "../evil.json", "../../main"]
)
def test_names_that_lead_upwards_match_nothing(hub, tmp_path, name):
    hub.add(NAME, {name: b"evil", "a/w.npz": b"1"})
    assert set(find_files(parse_address(f"hf:{NAME}/**")).sizes) == {"a/w.npz"}
    with pytest.raises((ValueError, OSError)):  # the library's own guard
        huggingface_hub.hf_hub_download(NAME, f"../{name}", endpoint=hub.endpoint)
    fetch(NAME, "a")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("header", ["ETag", "X-Linked-ETag", "X-Repo-Commit"])
def test_headers_that_would_name_files_outside_are_refused(hub, cache, tmp_path, header):
    hub.add(NAME, {"a/w.npz": b"1"})
    hub.further_headers = {header: '"../../../evil"'}
    line = refusal(f"hf:{NAME}/a")
    assert f"the hub sent a header {header} that would lead out of the cache" in line
    assert not list(tmp_path.rglob("*evil*"))
    hub.further_headers = {}
    assert fetch(NAME, "a")[0].name == "a"


def test_a_commit_that_is_none_is_refused(hub, tmp_path):
    hub._repositories[NAME] = SimpleNamespace(
        revisions={"main": "../../evil"}, commits={"../../evil": {"w.npz": b"1"}}
    )
    assert "the hub names no commit for this revision" in refusal(f"hf:{NAME}")
    assert not list(tmp_path.rglob("*evil*"))


# ---- what a user sees -------------------------------------------------------------------------------


def test_the_size_is_known_before_and_progress_is_told(hub):
    hub.add(NAME, SWEEP)
    steps = []

    class Recorder:
        @contextmanager
        def step(self, name, *, total, unit):
            steps.append([name, total, unit, 0])
            yield lambda amount: steps[-1].__setitem__(3, steps[-1][3] + amount)

    files = find_files(parse_address(f"hf:{NAME}/layer_2/k32"))
    assert files.size_bytes == len(b"2 32 cfg.json") + len(b"2 32 sae.safetensors")
    found(f"hf:{NAME}/layer_2/k32", progress=Recorder())
    assert steps == [[f"fetching 33 B of {NAME}", 2, "file", 2]]
    found(f"hf:{NAME}/layer_2/k32", progress=Recorder())
    assert len(steps) == 1


def test_fetching_is_silent_and_leaves_the_library_as_it_was(hub, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled, get_session, logging

    hub.add(NAME, SWEEP)
    hub.bodies_to_cut = 1
    before = logging.get_verbosity(), are_progress_bars_disabled(), get_session().event_hooks
    found(f"hf:{NAME}/**")
    assert (logging.get_verbosity(), are_progress_bars_disabled(), get_session().event_hooks) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (302_000_000, "302 MB"), (2e15, "2e+03 TB")],
)
def test_sizes_in_words(size, words):
    assert size_in_words(int(size)) == words


def test_another_process_goes_by_its_environment(hub, cache):
    """HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE, as a user sets them."""
    commit = hub.add(NAME, SWEEP)
    script = (
        "from autointerp.checkpoints.hub import fetch;"
        "path, commit = fetch('somebody/saes', 'layer_2/k32'); print(path, commit)"
    )
    expected = f"{cache}/models--somebody--saes/snapshots/{commit}/layer_2/k32 {commit}"
    environment = os.environ | hub.environment(cache)
    for more in ({}, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}):
        ran = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.stdout.strip(), ran.stderr) == (expected, "")
    assert hub.body_count == 2


# ---- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf:a/b", HubAddress("a/b")),
        ("hf://a/b/", HubAddress("a/b")),
        ("hf:a/b@v1", HubAddress("a/b", "", "v1")),
        ("hf:a/b/c/d*/e@refs/pr/1", HubAddress("a/b", "c/d*/e", "refs/pr/1")),
        ("hf:a/b/c@d/e@main", HubAddress("a/b", "c@d/e", "main")),
        ("hf:a.b/c_d-e/f", HubAddress("a.b/c_d-e", "f")),
    ],
)
def test_addresses_are_taken_apart(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hf:gpt2-small-res-jb", "if it is the name of a SAELens release"),
        ("hf:", "this is no repository's name"),
        ("hf:a", "this is no repository's name"),
        ("hf:datasets/a/b", "datasets hold no checkpoints"),
        ("hf:a b/c", "no repository can be called 'a b/c'"),
        ("hf:a/b--c", "no repository can be called"),
        ("hf:../x/y", "no repository can be called"),
        ("hf:a//b", "no repository can be called"),
        ("hf:a/b/../c", "a path cannot hold '..'"),
        ("hf:a/b//c", "empty parts"),
        ("hf:a/b/c\\..\\d", "a path cannot hold"),
        ("hf:a/b@", "no revision can be called ''"),
        ("hf:a/b@../../x", "no revision can be called"),
        ("hf:a/b@/x", "no revision can be called"),
        ("hf:a/b@x y", "no revision can be called"),
    ],
)
def test_what_is_no_address(text, words):
    assert words in refusal(text)
