"""Every recorded checkpoint made hostile, whatever its format: nothing runs, nothing leaves its folder."""

import contextlib
import json
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from autointerp.checkpoints.load import FORMATS, load_checkpoint
from autointerp.errors import CheckpointError

FIXTURES = Path(__file__).parent / "fixtures"
MAY_SAY_ANYTHING = {"lm_config.json", "activation_scaler.json"}
"""Only one of their keys is looked at, and may be absent."""
CASES = sorted(path.parent for path in FIXTURES.glob("*/*/fixture.json"))


@pytest.fixture(params=CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def copy(request, tmp_path):
    """A checkpoint that may be spoilt: the path to load, and its files."""
    shutil.copytree(request.param / "checkpoint", tmp_path / "checkpoint")
    facts = json.loads((request.param / "fixture.json").read_text())
    files = sorted(path for path in (tmp_path / "checkpoint").rglob("*") if path.is_file())
    return tmp_path / facts["checkpoint"], files


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module whose import leaves a mark, in reach of any import; the mark's path."""
    leaves_a_mark = f"open({str(tmp_path / 'mark')!r}, 'w').close()\nclass Thing: ...\n"
    (tmp_path / "evil_code.py").write_text(leaves_a_mark)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "mark"
    sys.modules.pop("evil_code", None)


class Payload:
    """Unpickled naively, it makes the folder `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def load_or_refuse(path):
    """What was loaded; None where it was refused."""
    with contextlib.suppress(CheckpointError):
        return load_checkpoint(path)
    return None


def configurations(files):
    return [file for file in files if file.suffix == ".json"]


def test_code_named_in_a_configuration_is_not_imported(copy, evil):
    path, files = copy
    thing = "evil_code.Thing"
    names = {"auto_map": {"AutoModel": thing}, "_target_": thing, "class": "evil_code:Thing"}
    for file in configurations(files):
        file.write_text(json.dumps(json.loads(file.read_text()) | names))
    load_or_refuse(path)
    assert not evil.exists() and "evil_code" not in sys.modules


@pytest.mark.parametrize("depth", [900, 200_000])
def test_a_deeply_nested_configuration_is_refused(copy, depth):
    path, _ = copy
    for file in next(chosen for chosen in FORMATS if chosen.recognises(path)).files(path):
        if file.suffix in (".json", ".yaml") and file.name not in MAY_SAY_ANYTHING:
            whole = file.read_text()
            file.write_text("[" * depth + "]" * depth)
            with pytest.raises(CheckpointError):
                load_checkpoint(path)
            file.write_text('{"a":' * depth + "1" + "}" * depth)
            with pytest.raises(CheckpointError):
                load_checkpoint(path)
            file.write_text(whole)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(copy, tmp_path):
    path, files = copy
    for file in files:
        if file.suffix in (".pt", ".npz", ".safetensors"):
            whole = file.read_bytes()
            for write in (
                lambda target: torch.save({"a": Payload(tmp_path / "ran")}, target),
                lambda target: target.write_bytes(pickle.dumps(Payload(tmp_path / "ran"))),
            ):
                file.unlink()
                write(file)
                with pytest.raises(CheckpointError):
                    load_checkpoint(path)
            file.unlink()
            file.write_bytes(whole)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a\0b", "x" * 5000, "\u202eevil"])
def test_names_that_would_leave_the_folder_are_names_only(copy, tmp_path, name):
    path, files = copy
    for file in files:
        if file.suffix == ".npz":
            with zipfile.ZipFile(file, "a") as archive:
                archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00")
        elif file.suffix == ".pt":
            content = torch.load(file, weights_only=True)
            content[name] = torch.zeros(2)
            torch.save(content, file)
    before = set(tmp_path.parent.rglob("escaped*"))
    load_or_refuse(path)
    assert set(tmp_path.parent.rglob("escaped*")) == before
    assert not Path("/escaped").exists()


def test_a_bomb_is_refused_before_it_unfolds(copy, tmp_path):
    path, files = copy
    for file in files:
        if file.suffix in (".pt", ".npz"):
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names:
                    archive.writestr(name, bytes(50_000_000))
            with pytest.raises(CheckpointError):
                load_checkpoint(path)


def test_a_configuration_of_the_largest_numbers_allocates_nothing(copy):
    path, files = copy
    for file in configurations(files):
        whole = json.loads(file.read_text())

        def inflated(value):
            if isinstance(value, dict):
                return {key: inflated(inner) for key, inner in value.items()}
            return 2**62 if isinstance(value, int) and not isinstance(value, bool) else value

        file.write_text(json.dumps(inflated(whole)))
        load_or_refuse(path)
        for huge in (10**400, 1e308, -(10**400)):
            with contextlib.suppress(CheckpointError):
                file.write_text(json.dumps(dict.fromkeys(whole, huge)))
                load_checkpoint(path)
        file.write_text(json.dumps(whole))
