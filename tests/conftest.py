"""Rules for every test: no network, shapes are checked, every skip is known.

`tests/SKIPS.md` lists the skips that may happen, each with its reason; a skip that it does not list
fails the run.
"""

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.pop("OPENAI_API_KEY", None)

from jaxtyping import install_import_hook

# As type checkers have it, an int may stand where a float is asked for.
install_import_hook("autointerp", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

_SKIPS = Path(__file__).with_name("SKIPS.md")
_unlisted: list[str] = []


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that reaches for another machine fails, or lets later ones ask the hub; loopback is allowed."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        is_inet = self.family in (socket.AF_INET, socket.AF_INET6)
        if is_inet and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield
    hub = sys.modules.get("huggingface_hub.constants")
    assert hub is None or hub.HF_HUB_OFFLINE, "a test left the hub online"


def _listed_reasons() -> list[str]:
    return re.findall(r"^\|\s*`([^`]+)`\s*\|", _SKIPS.read_text(encoding="utf-8"), flags=re.MULTILINE)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect skipped tests whose reason `SKIPS.md` does not list."""
    if not hasattr(report, "wasxfail"):
        _watch(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """The same for modules that skip themselves before any of their tests is known."""
    _watch(report)


def _watch(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(reason.startswith(listed) for listed in _listed_reasons()):
            _unlisted.append(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run on an unlisted skip."""
    if _unlisted and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips are unlisted."""
    for line in _unlisted:
        terminalreporter.write_line(f"skip not listed in tests/SKIPS.md: {line}", red=True)
