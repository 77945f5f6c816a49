"""Drawing on the terminal for the command line: bars, tables, lines, none of which can send an escape.

rich is imported when something is drawn with it: a gate that prints lines starts sooner without.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from autointerp.errors import AutointerpError
from autointerp.progress import Progress

__all__ = ["complain", "note", "print_pairs", "print_rows", "print_table", "printable", "progress", "say"]

_SECONDS_BETWEEN_LINES = 30.0


def complain(error: AutointerpError) -> None:
    """One line on standard error."""
    line = printable(str(error))
    _errors().print(line, style="red", markup=False, emoji=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """One line on standard error that is no failure."""
    _errors().print(printable(text), style="dim", markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Bars:
    """Draws a progress bar with rate and time left for every step."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars

    @contextmanager
    def step(self, name: str, *, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        """Show one step until the block ends."""
        task = self._bars.add_task(printable(name), total=total, unit=unit)
        yield _Step(self._bars, task, name)
        self._bars.update(task, total=self._bars.tasks[task].completed)


class _Step:
    """One bar: called, it moves on; `note` says something beside its name."""

    def __init__(self, bars: Any, task: Any, name: str) -> None:
        self._bars, self._task, self._name = bars, task, name

    def __call__(self, amount: float) -> None:
        self._bars.advance(self._task, amount)

    def note(self, text: str) -> None:
        """What a watcher should know now: the spend so far."""
        self._bars.update(self._task, description=printable(f"{self._name}: {text}"))


class _Lines:
    """Tells a log how far a long step is, so that nobody takes a silent job for a dead one."""

    @contextmanager
    def step(self, name: str, *, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        """Follow one step until the block ends; a short one is never told of."""
        yield _LineStep(name, total, unit)


class _LineStep:
    """Called, it moves on, and says so if the last line is long ago; `note` is said with the next line."""

    def __init__(self, name: str, total: float | None, unit: str) -> None:
        self._name, self._total, self._unit, self._noted = name, total, unit, ""
        self._began = self._told = time.monotonic()
        self._done = 0.0

    def __call__(self, amount: float) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            note(f"{self._name}: {self._words(now - self._began)}{self._noted}")

    def note(self, text: str) -> None:
        """What a watcher should know now: the spend so far."""
        self._noted = f"; {text}"

    def _words(self, seconds: float) -> str:
        speed = self._done / seconds
        rate = f"{speed:,.0f} {self._unit}/s"
        if not self._total or not speed:
            return f"{self._done:,.0f} done, {rate}"
        left = timedelta(seconds=round(max(0.0, self._total - self._done) / speed))
        return f"{self._done / self._total:.0%}, {rate}, {left} left"


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars on standard error while the block runs; a line now and then where that is no terminal."""
    from rich import progress as rich_progress
    from rich.text import Text

    class Rate(rich_progress.ProgressColumn):
        """Units a second; blank until there is a rate."""

        def render(self, task: rich_progress.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="dim")

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=30),
        rich_progress.TaskProgressColumn(),
        Rate(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    console = _errors()
    if not console.is_terminal:
        yield _Lines()
        return
    with rich_progress.Progress(*columns, console=console) as bars:
        yield _Bars(bars)


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Names and values, a line each."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for key, value in pairs.items():
        table.add_row(Text(printable(key), style="bold"), Text(printable(_words(value)), overflow="fold"))
    Console().print(table)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """A table without a header."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    Console().print(table)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value)) if _is_shape(value) else ", ".join(map(_words, value)) or "none"
    if value is None:
        return "not said"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_shape(value: list[object] | tuple[object, ...]) -> bool:
    return bool(value) and all(isinstance(part, int) for part in value)


def print_table(console: Any, table: Any) -> None:
    """Print what rich can render. Names in it come from outside; styles stay apart from texts until drawn."""
    from rich.segment import Segment, Segments

    segments = console.render(table)
    console.print(Segments(Segment(printable(text), style) for text, style, _ in segments), end="")


def printable(text: str) -> str:
    """What a file says may hold terminal escapes; they are shown as U+FFFD, never sent."""
    return "".join(c if c.isprintable() or c in "\n\u00a0\u202f" else "\ufffd" for c in text)


def say(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(printable(text) + "\n")


def _errors() -> Any:
    from rich.console import Console

    return Console(stderr=True)
