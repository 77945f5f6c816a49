"""A run directory -> what rules are decided on: results, comparisons, coverage; observations when needed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import from_json  # in a third of the time of json's

from autointerp.errors import RunStoreError
from autointerp.gating.paired_difference import observed_rows
from autointerp.gating.soundness import UnsoundReportError, keyed_rows
from autointerp.report_keys import judges_of

__all__ = ["RunEvidence", "read_evidence"]

_SCHEMA_VERSIONS = (1,)
_KEYS = ("checkpoints", "results", "comparisons", "metrics", "subject", "corpus", "provenance")


@dataclass(frozen=True, eq=False)
class RunEvidence:
    """A finished run's report.json, and the folder of its observations."""

    folder: Path
    report: Mapping[str, Any]
    sha256: str = ""
    """Of report.json, so that a verdict says what it is of; empty for a report in memory."""

    @cached_property
    def rows(self) -> dict[str, dict[tuple[str, ...], Mapping[str, Any]]]:
        """Of each of the report's lists, by what names a row there.

        Raises:
            UnsoundReportError: it is no whole report, and what is wrong.
        """
        return keyed_rows(self.report)

    @property
    def results(self) -> Mapping[tuple[str, ...], Mapping[str, Any]]:
        """By checkpoint, metric and slice."""
        return self.rows["results"]

    @property
    def comparisons(self) -> Mapping[tuple[str, ...], Mapping[str, Any]]:
        """By checkpoint, reference, metric and slice."""
        return self.rows["comparisons"]

    @cached_property
    def checkpoints(self) -> dict[str, Mapping[str, Any]]:
        """By name."""
        return {name: each for (name,), each in self.rows["checkpoints"].items()}

    @cached_property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        """By name."""
        return {name: each for (name,), each in self.rows["metrics"].items()}

    @property
    def judged(self) -> list[str]:
        """Names of what is no null."""
        return [name for name, each in self.checkpoints.items() if each["role"] == "checkpoint"]

    def nulls(self, checkpoint: str) -> list[str]:
        """Names of the nulls at a checkpoint's site."""
        site = self.checkpoints[checkpoint]["site"]
        return [
            name for name, each in self.checkpoints.items() if each["role"] == "null" and each["site"] == site
        ]

    def coverage(self, checkpoint: str) -> Mapping[str, Any] | None:
        """Of a checkpoint's sampled latents; None where none were sampled."""
        return self.rows["coverage"].get((checkpoint,))

    @property
    def judges(self) -> dict[str, Any]:
        """What decides whether two runs' explanation scores mean the same."""
        return judges_of(self.report.get("explanations") or {})

    def observations(self, metric: str, slice_text: str) -> Mapping[str, Any] | None:
        """Rows of one metric at one slice, by checkpoint; None where the report came without them.

        Raises:
            RunStoreError: the file is damaged, or none of observations.
        """
        file = self.folder / "observations" / f"{metric.partition('.')[0]}.parquet"
        if not file.is_file():
            return None
        key = (metric, slice_text)
        if key not in self._observed:
            self._observed[key] = observed_rows(file, metric, slice_text)
        return self._observed[key]

    @cached_property
    def _observed(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """What was read so far: several checkpoints stand in one file."""
        return {}


def read_evidence(run: Path) -> RunEvidence:
    """The evidence of a run directory, or of a report.json that came alone.

    Raises:
        RunStoreError: there is none, it is damaged, or it was written by a version that this one does not
            know.
    """
    file = run / "report.json" if run.is_dir() else run
    try:
        content = file.read_bytes()
        report = from_json(content)
    except FileNotFoundError:
        raise RunStoreError(
            "there is no report.json", where=run, remedy="run `evaluate` to its end"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunStoreError(f"cannot be read ({error})", where=file) from None
    if not isinstance(report, dict) or any(key not in report for key in _KEYS):
        raise RunStoreError("is no report of autointerp", where=file)
    version = report.get("schema_version")
    if version not in _SCHEMA_VERSIONS:
        raise RunStoreError(f"has schema version {version!r}, known are {_SCHEMA_VERSIONS}", where=file)
    evidence = RunEvidence(file.parent, report, hashlib.sha256(content).hexdigest())
    try:
        _ = evidence.rows
    except (UnsoundReportError, RecursionError) as error:
        problem = str(error) if isinstance(error, UnsoundReportError) else "a slice is nested too deep"
        # Refused, and not half judged.
        raise RunStoreError(
            f"is no whole report: {problem}", where=file, remedy="run the evaluation again"
        ) from None
    return evidence
