"""Runs a suite again and again, killing it at seeded random moments, until it has been killed often enough.

A moment is some shards, and then some hundredths of a second, after the attempt began to work: so every
attempt gets a little farther whatever the machine's speed, and kills fall into all stages of a run.

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


def attempt(suite: Path, out: Path, *, shards: int | None = None, seconds: float = 0.0) -> bool:
    """Run the suite in a fork, killed `seconds` after it wrote so many shards; whether it came to its end."""
    target = None if shards is None else shard_count(out) + shards
    child = os.fork()
    if child == 0:
        evaluate(load_suite(suite, overrides=["explanations.enabled=false"]), out=out)  # they have own tests
        os._exit(0)
    deadline = None
    while target is not None:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        if deadline is None and shard_count(out) >= target:
            deadline = time.monotonic() + seconds
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.002)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) == 0


def shard_count(out: Path) -> int:
    """How many shards are in a run directory."""
    return len(list(out.glob("chunks/*.parquet")))


def main() -> None:
    """Kill, resume, and start over in a new directory whenever one run is complete."""
    suite, out, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    assert autointerp.__version__
    chance = random.Random(seed)
    assert attempt(suite, out / "whole")
    killed, finished, stages = 0, [], []
    while killed < kills:
        directory = out / f"run{len(finished)}"
        if attempt(suite, directory, shards=chance.randrange(4), seconds=chance.uniform(0, 0.3)):
            finished.append(directory.name)
        else:
            killed += 1
            stages.append(shard_count(directory))
    directory = out / f"run{len(finished)}"
    assert attempt(suite, directory)
    finished.append(directory.name)
    sys.stdout.write(json.dumps({"killed": killed, "finished": finished, "stages": stages}) + "\n")


if __name__ == "__main__":
    main()
