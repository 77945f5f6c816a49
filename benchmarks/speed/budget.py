"""Seconds of a run's steps against their shares of the demo's time.

    python benchmarks/speed/budget.py reports/demo          # exit code 1: over the total, 2: no such run

Reads `run.jsonl` alone. Steps are summed over all sessions of a resumed run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

TOTAL_SECONDS = 300.0


@dataclass(frozen=True)
class Share:
    """A part of the time, and the steps of a run that draw on it."""

    name: str
    seconds: float
    steps: frozenset[str]


SHARES = (
    Share(
        "activation pass, reconstruction and downstream loss",
        60.0,
        frozenset({"calibration", "activation pass", "observations"}),
    ),
    Share("probes", 60.0, frozenset({"probes"})),
    Share("Neuron-to-Graph", 60.0, frozenset({"neuron to graph"})),
    Share("explanations", 30.0, frozenset({"explanations"})),
    Share("ablation", 20.0, frozenset({"ablation"})),
    Share("nulls", 40.0, frozenset({"nulls"})),
    Share("report and gate", 15.0, frozenset({"estimates", "report", "gate"})),
)
"""As the design shares the demo's time out on 2 cores; 15 seconds of the total are nobody's."""
WITHOUT_SHARE = Share("steps without a share", 0.0, frozenset())


def steps_of(run: Path) -> dict[str, float]:
    """Seconds by step, in order of appearance; a torn last line is passed over."""
    path = run / "run.jsonl" if run.is_dir() else run
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        _refuse(f"{path}: {error.strerror}; give a run directory of `autointerp evaluate`")
    seconds: dict[str, float] = {}
    for line in lines:
        event = _event(line)
        if event.get("event") == "step":
            seconds[event["name"]] = seconds.get(event["name"], 0.0) + event["seconds"]
    if not seconds:
        _refuse(f"{path}: no step in it, so there is nothing to add up")
    return seconds


def _refuse(message: str) -> NoReturn:
    """Exit code 2, as for all bad input; 1 is for a run that took too long."""
    print(f"budget.py: {message}", file=sys.stderr)
    sys.exit(2)


def _event(line: str) -> dict:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def by_share(seconds: Mapping[str, float]) -> list[tuple[Share, dict[str, float]]]:
    """Every share with the steps that drew on it; at the end the steps that belong to none."""
    known = frozenset().union(*(share.steps for share in SHARES))
    parts = [(share, {name: seconds[name] for name in seconds if name in share.steps}) for share in SHARES]
    rest = {name: spent for name, spent in seconds.items() if name not in known}
    return [*parts, *([(WITHOUT_SHARE, rest)] if rest else [])]


def table(seconds: Mapping[str, float]) -> str:
    """Markdown: a line per share in the design's order, its steps below it, the total at the end."""
    total = sum(seconds.values())
    lines = ["| step | seconds | of all | share, s | |", "| :--- | ---: | ---: | ---: | :--- |"]
    for share, steps in by_share(seconds):
        spent = sum(steps.values())
        lines.append(_line(share.name, spent if steps else None, total, share.seconds or None))
        lines += [_line(f"- {name}", each, total, None) for name, each in steps.items()]
    lines.append(_line("in all", total, total, TOTAL_SECONDS))
    return "\n".join(lines)


def _line(name: str, spent: float | None, total: float, budget: float | None) -> str:
    is_over = spent is not None and budget is not None and spent > budget
    cells = [
        name,
        "not run" if spent is None else f"{spent:.1f}",
        "" if spent is None else f"{spent / max(total, 1e-9):.0%}",
        "" if budget is None else f"{budget:.0f}",
        f"over by {spent - budget:.1f} s" if is_over else "",
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if the total is over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run directory, or its run.jsonl")
    seconds = steps_of(parser.parse_args(arguments).run)
    print(table(seconds))
    return int(sum(seconds.values()) > TOTAL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
