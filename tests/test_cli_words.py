"""What the command line lets through to the terminal, and what it hands on."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autointerp import cli, evaluation
from autointerp import console as terminal
from autointerp.errors import SuiteError
from autointerp.training import command

ESCAPE = "a\x1b[31mb\x07\u202ec\udcff"
SHOWN = "a\ufffd[31mb\ufffd\ufffdc\ufffd"


def test_a_file_cannot_send_terminal_escapes(capsys):
    terminal.print_pairs({f"key {ESCAPE}": ESCAPE})
    terminal.say(ESCAPE)
    assert capsys.readouterr().out.split("\n")[:-1] == [f" key {SHOWN}  {SHOWN} ", SHOWN]


def test_a_name_in_the_table_cannot_send_terminal_escapes():
    table = Table("name", box=None)
    table.add_column(Text("loss\u00a0↓", style="bold"))
    table.add_row(Text(ESCAPE), "[1.0, 2.0]")
    console = Console(width=80, force_terminal=True, color_system="standard", record=True)
    with console.capture() as drawn:
        terminal.print_table(console, table)
    assert "a\ufffd[31mb\ufffdc\ufffd" in drawn.get()  # the bell is dropped by the table itself
    assert "\x1b[1mloss\u00a0↓" in drawn.get(), "the table's own styles are kept"
    assert "[1.0, 2.0]" in drawn.get()


def test_an_error_cannot_send_terminal_escapes(monkeypatch, capsys):
    def fails():
        raise SuiteError(f"unknown key {ESCAPE}")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert f"unknown key {SHOWN}" in capsys.readouterr().err


def called_with(monkeypatch, *arguments):
    """Run a verb; the keywords that the call behind it gets."""
    seen = {}

    def stands_in(*given, **keywords):
        seen.update(keywords)
        raise SuiteError("enough")

    monkeypatch.setattr(evaluation, "evaluate", stands_in)
    monkeypatch.setattr(command, "train_checkpoint", stands_in)
    monkeypatch.setattr(sys, "argv", ["autointerp", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert seen
    return SimpleNamespace(**seen)


def test_only_the_demo_in_its_own_folder_replaces_the_run_of_another_version(monkeypatch, tmp_path):
    (tmp_path / "suite.toml").write_text('name = "x"\n[subject]\nmodel = "demo"\n', encoding="utf-8")
    assert called_with(monkeypatch, "demo").replace_other is True
    assert called_with(monkeypatch, "demo", "--out", "reports/demo").replace_other is True
    assert called_with(monkeypatch, "demo", "--out", tmp_path / "run").replace_other is False
    assert called_with(monkeypatch, "evaluate", tmp_path / "suite.toml").replace_other is False


def test_train_hands_on_how_the_text_is_read(monkeypatch):
    needed = ("train", "--subject", "x", "--site", "y", "--out", Path("z"))
    plain = called_with(monkeypatch, *needed)
    assert (plain.text_field, plain.separator, plain.revision, plain.prepend_bos) == (
        "text",
        None,
        None,
        True,
    )
    chosen = called_with(monkeypatch, *needed, "--text-field", "body", "--separator", r"\n\n", "--no-bos")
    assert (chosen.text_field, chosen.separator, chosen.prepend_bos) == ("body", "\n\n", False)
    assert called_with(monkeypatch, *needed, "--corpus-revision", "v1").revision == "v1"


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now.seconds)
    return now


def test_a_log_is_told_of_long_steps_now_and_then(clock, capsys):
    with terminal.progress() as shown, shown.step(f"reading {ESCAPE}", total=400, unit="text") as advance:
        for _ in range(10):
            clock.seconds += 10
            advance(20)
        advance.note("0.02 dollars")
        clock.seconds += 100
        advance(0)
    assert capsys.readouterr().err.splitlines() == [
        f"reading {SHOWN}: 15%, 2 text/s, 0:02:50 left",
        f"reading {SHOWN}: 30%, 2 text/s, 0:02:20 left",
        f"reading {SHOWN}: 45%, 2 text/s, 0:01:50 left",
        f"reading {SHOWN}: 50%, 1 text/s, 0:03:20 left; 0.02 dollars",
    ]


def test_a_log_is_told_nothing_of_short_steps_and_no_end_of_what_has_none(clock, capsys):
    with terminal.progress() as shown:
        with shown.step("short", total=2, unit="x") as advance:
            clock.seconds += 29
            advance(2)
        assert capsys.readouterr().err == ""
        for total in (None, 0):
            with shown.step("open", total=total, unit="x") as advance:
                clock.seconds += 40
                advance(0)
                clock.seconds += 40
                advance(1600)
            assert capsys.readouterr().err.splitlines() == [
                "open: 0 done, 0 x/s",
                "open: 1,600 done, 20 x/s",
            ]
