import json
import subprocess
import sys
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from autointerp.sampling.latents.tables import TABLES

KILLS = 20
DRIVER = Path(__file__).with_name("kill_driver.py")


def content(run: Path) -> dict:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return {key: report[key] for key in ("results", "comparisons", "checkpoints", "metrics", "coverage")}


def test_runs_killed_at_random_moments_end_with_the_numbers_of_an_undisturbed_one(sampled_suite, tmp_path):
    command = [sys.executable, str(DRIVER), str(sampled_suite), str(tmp_path), str(KILLS), "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == KILLS
    assert len(set(told["stages"])) > 2, "the kills came at different stages of the run"
    for name in told["finished"]:
        assert content(tmp_path / name) == content(tmp_path / "whole")
        tables = ["observations/reconstruction.parquet", "observations/downstream.parquet"]
        for table in (*tables, *(f"latents/{latents}.parquet" for latents in TABLES)):
            mine, theirs = (pl.read_parquet(tmp_path / run / table) for run in (name, "whole"))
            assert_frame_equal(mine, theirs, check_exact=True)
        assert not list((tmp_path / name).rglob("*.tmp"))
