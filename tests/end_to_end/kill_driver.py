"""Runs a suite again and again, killing it at seeded random moments, until it has been killed often enough.

Started by test_killed_runs.py in a process of its own. Every attempt is a fork of this process, so that
importing torch is paid for once; nothing is computed here before a fork, so that no thread pool exists.

    python kill_driver.py SUITE OUT KILLS SEED

Prints one JSON line: how often it killed, at which stage the directories were, and the finished directories.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import autointerp
from autointerp.config import load_suite
from autointerp.evaluation import evaluate


def attempt(suite: Path, out: Path, seconds: float | None) -> bool:
    """Run the suite in a fork, killed after `seconds`; whether it came to its end."""
    child = os.fork()
    if child == 0:
        evaluate(load_suite(suite, overrides=["explanations.enabled=false"]), out=out)  # they have own tests
        os._exit(0)
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0]:
                return True
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) == 0


def main() -> None:
    """Kill, resume, and start over in a new directory whenever one run is complete."""
    suite, out, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    assert autointerp.__version__
    chance = random.Random(seed)
    begun = time.monotonic()
    assert attempt(suite, out / "whole", None)
    whole_seconds = time.monotonic() - begun
    killed, finished, stages = 0, [], []
    while killed < kills:
        directory = out / f"run{len(finished)}"
        if attempt(suite, directory, chance.uniform(0, whole_seconds)):
            finished.append(directory.name)
        else:
            killed += 1
            stages.append(len(list(directory.glob("chunks/observations*.parquet"))))
    directory = out / f"run{len(finished)}"
    assert attempt(suite, directory, None)
    finished.append(directory.name)
    sys.stdout.write(json.dumps({"killed": killed, "finished": finished, "stages": stages}) + "\n")


if __name__ == "__main__":
    main()
