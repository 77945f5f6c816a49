"""The rule that every skip is known, tried on a suite of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULE = {
    "at the top": 'import pytest\npytest.importorskip("no_such_module_anywhere")\n',
    "in a test": 'import pytest\ndef test_b():\n    pytest.skip("a reason of its own")\n',
    "listed": 'import pytest\npytest.skip("no GPU here", allow_module_level=True)\n',
    "nowhere": "def test_b():\n    pass\n",
}


@pytest.mark.parametrize(
    ("place", "code"), [("at the top", 1), ("in a test", 1), ("listed", 0), ("nowhere", 0)]
)
def test_an_unlisted_skip_fails_the_run(tmp_path, place, code):
    for name in ("conftest.py", "SKIPS.md"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n", encoding="utf-8")
    (tmp_path / "test_b.py").write_text(MODULE[place], encoding="utf-8")
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path)]
    ended = subprocess.run(call, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert ("skip not listed" in ended.stdout) == bool(code)
