"""Provenance says with what a run was made, and nothing of whose machine it was."""

import getpass
import json
import platform
import socket
import subprocess
import sys

import pytest

from autointerp.provenance import git_state, provenance


def git(folder, *arguments):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_names_versions_machine_and_seed():
    found = provenance(seed=7, accelerator="some GPU")
    assert found["python_version"] == platform.python_version()
    assert found["package_versions"]["numpy"]
    assert (found["seed"], found["accelerator"]) == (7, "some GPU")
    assert found["cpu_count"] >= 1
    assert json.loads(json.dumps(found)) == found


def test_it_names_neither_user_nor_host_nor_path():
    text = json.dumps(provenance(seed=0) | {"cpu": ""})
    assert "/" not in text
    for private in (getpass.getuser(), socket.gethostname()):
        assert f'"{private}"' not in text


def test_the_commit_of_a_checkout_is_told(tmp_path):
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "x")
    assert git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "has_changes": False}
    (tmp_path / "untracked").write_text("1")
    assert git_state(tmp_path)["has_changes"] is False
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path)["has_changes"] is True


def test_a_package_inside_somebodys_repository_has_no_commit(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages") is None


def test_a_machine_without_git_has_no_commit(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


@pytest.mark.parametrize(
    "module",
    ["provenance", "run_store", "estimates", "compute_curve", "records", "errors"],
)
def test_none_of_these_modules_imports_torch(module):
    program = f"import sys, autointerp.{module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
