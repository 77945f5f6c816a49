"""Seconds that `autointerp gate` takes from start to exit, beside a bare interpreter's, in fresh processes.

    python benchmarks/speed/gate_start.py reports/demo
    python benchmarks/speed/gate_start.py reports/demo --baseline reports/demo --policy mine.toml

The commands take turns, so that what else the machine does meets all of them; the first turn, which fills
the disk's cache, is not counted. Exit code 1: the gate's median is over the goal.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

GOAL_SECONDS = 0.5
BARE = {
    "python -c pass": "pass",
    "python -c 'import typer'": "import typer",
    "python -c 'import polars, typer'": "import polars, typer",
}


class Seconds(NamedTuple):
    """Of one process, from its start to its end."""

    wall: float
    processor: float
    """User and system together, of all threads: what a busy machine changes least."""


def seconds_of(command: Sequence[str], codes: Sequence[int]) -> Seconds:
    """Run a command; ends the program where that does not end as it should."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measured(commands: Mapping[str, Sequence[str]], repeats: int) -> dict[str, list[Seconds]]:
    """Seconds of each command in each turn."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            # Any verdict will do: 0 pass, 1 fail, 3 undecided.
            took = seconds_of(command, (0, 1, 3) if "autointerp" in command else (0,))
            if turn:
                seconds[name].append(took)
    return seconds


def main() -> None:
    """Measure, print a line for each command, and hold the gate against its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--policy", default="release")
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the seconds as JSON")
    given = parser.parse_args()
    gate = [sys.executable, "-m", "autointerp", "gate", str(given.run), "--policy", given.policy]
    gate += ["--baseline", str(given.baseline)] if given.baseline else []
    bare = {name: [sys.executable, "-c", code] for name, code in BARE.items()}
    seconds = measured(bare | {"autointerp gate": gate}, given.repeats)
    for name, each in seconds.items():
        wall, processor = ([getattr(turn, kind) for turn in each] for kind in ("wall", "processor"))
        shown = f"{statistics.median(wall):.3f} s ({min(wall):.3f} to {max(wall):.3f})"
        sys.stdout.write(f"{name:34} {shown}, processor {statistics.median(processor):.3f} s\n")
    if given.out:
        given.out.write_text(
            json.dumps({name: [turn._asdict() for turn in each] for name, each in seconds.items()}),
            encoding="utf-8",
        )
    if statistics.median(turn.wall for turn in seconds["autointerp gate"]) > GOAL_SECONDS:
        sys.exit(1)


if __name__ == "__main__":
    main()
