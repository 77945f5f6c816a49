"""Small runs for the gate: a report.json in memory or on disk, and observations of documents."""

import json
from pathlib import Path

import numpy as np

from autointerp.gating.evidence import RunEvidence
from autointerp.records import observation_frame

METRIC = "downstream.delta_ce_nats"


def result(checkpoint="sae", metric=METRIC, value=0.1, half=0.01, n=100, better="lower", **other):
    return {
        "checkpoint": checkpoint,
        "metric": metric,
        "slice": {},
        "status": "measured",
        "value": value,
        "ci_low": value - half,
        "ci_high": value + half,
        "ci_level": 0.95,
        "ci_method": "",
        "n": n,
        "sampled": "document",
        "functional": "ratio",
        "unit": "nats",
        "better": better,
    } | other


def without_number(status, checkpoint="sae", metric=METRIC):
    kept = ("checkpoint", "metric", "slice", "sampled", "functional", "unit", "better")
    row = {key: each for key, each in result(checkpoint, metric).items() if key in kept}
    return row | {"status": status, "reason": "because"}


def report(results, comparisons=(), *, names=("sae",), nulls=("random",), **other):
    roles = [*((name, "checkpoint") for name in names), *((name, "null") for name in nulls)]
    return {
        "schema_version": 1,
        "suite": {"name": "tried"},
        "subject": {"sha256": "s"},
        "corpus": {"fingerprint": "c"},
        "checkpoints": [{"name": name, "role": role, "site": "a"} for name, role in roles],
        "metrics": [{"name": METRIC, "pairing": "units"}],
        "results": list(results),
        "comparisons": list(comparisons),
        "coverage": [],
        "explanations": {},
        "provenance": {"autointerp_version": "1"},
    } | other


def evidence(*given, folder=Path("nowhere"), **other):
    return RunEvidence(folder, report(*given, **other))


def write_run(folder: Path, numbers: dict[str, np.ndarray], *, tokens=None, results=None) -> Path:
    """A run directory with one number a document for each checkpoint."""
    (folder / "observations").mkdir(parents=True)
    rows = [
        observation_frame(
            checkpoint=name,
            metric=METRIC,
            unit=[f"d{place}" for place in range(len(values))],
            cluster=[f"d{place}" for place in range(len(values))],
            numerator=values,
            denominator=np.ones(len(values)) if tokens is None else tokens,
        )
        for name, values in numbers.items()
    ]
    import polars as pl

    pl.concat(rows).write_parquet(folder / "observations" / "downstream.parquet")
    results = results or [
        result(name, value=float(v.mean()), half=1.96 * float(v.std(ddof=1)) / len(v) ** 0.5, n=len(v))
        for name, v in numbers.items()
    ]
    content = report(results, names=tuple(numbers), nulls=())
    (folder / "report.json").write_text(json.dumps(content))
    return folder
