"""A folder of delphi's scores -> AUROC with an interval, from the very examples that it judged.

delphi writes a file a latent and method, `scores/{method}/{hookpoint}_latent{i}.txt`: a JSON list of examples
with `activating` (the truth), `prediction`, `probability` and `distance` (a quantile; -1: not activating). It
publishes accuracies; here its judgements are scored as ours are: the mean over latents of the AUROC within
each, with an interval over latents.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from autointerp.estimates import estimate
from autointerp.records import Measured, MetricDefinition, observation_frame
from autointerp.reporting.imported.result import ImportedResult

__all__ = ["delphi_results", "is_delphi"]

_METHODS = {"detection": "explanation.detection_auroc", "fuzz": "explanation.fuzzing_auroc"}
_LARGEST_BYTES = 64 * 2**20
_CAUTION = (
    "its judge, its prompts and its text; by default 20 to 40 % of what it judges, the explainer has seen, "
    "and silent text is not checked"
)
_AUROC = MetricDefinition(
    name="delphi.auroc",
    title="AUROC",
    meaning="Mean over latents of the AUROC within each.",
    unit="AUROC",
    better="higher",
    functional="mean_of_group_aurocs",
    sampled="latent",
    lowest=0.0,
    highest=1.0,
)


def is_delphi(folder: Path) -> bool:
    """Whether it has `scores/` with a method that is known."""
    return any((folder / "scores" / method).is_dir() for method in _METHODS)


def delphi_results(folder: Path) -> Iterator[ImportedResult]:
    """One result each hookpoint and method; what of its files cannot be read is counted in the caution."""
    for method, ours in _METHODS.items():
        files = sorted((folder / "scores" / method).glob("*.txt"))
        for hookpoint in sorted({_hookpoint(file) for file in files}):
            own = [file for file in files if _hookpoint(file) == hookpoint]
            yield _result(own, hookpoint, method, ours)


def _hookpoint(file: Path) -> str:
    return file.stem.rpartition("_latent")[0] or file.stem


def _result(files: Sequence[Path], hookpoint: str, method: str, ours: str) -> ImportedResult:
    frames, damaged = [], 0
    for file in files:
        rows = _examples(file)
        if rows is None:
            damaged += 1
        elif rows:
            frames.append(_observations(file.stem, rows))
    caution = _CAUTION + (f"; {damaged} of {len(files)} files could not be read" if damaged else "")
    metric = f"{method}, AUROC over latents"
    if not frames:
        return ImportedResult(
            "delphi", hookpoint, metric, None, "no file has judgements", ours=ours, caution=caution
        )
    outcome = estimate(pl.concat(frames), _AUROC)
    if not isinstance(outcome, Measured):
        return ImportedResult("delphi", hookpoint, metric, None, outcome.reason, ours=ours, caution=caution)
    found = outcome.estimate
    return ImportedResult(
        "delphi",
        hookpoint,
        metric,
        found.value,
        "",
        found.low,
        found.high,
        len(frames),
        "latent",
        ours,
        caution,
    )


def _examples(file: Path) -> list[tuple[float, float]] | None:
    """(judgement, truth) of each example that was judged; None where the file is none of delphi's."""
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        return None
    rows = [
        (judged, each.get("activating")) for each, judged in zip(content, _judgements(content), strict=True)
    ]
    return [
        (judged, float(truth)) for judged, truth in rows if judged is not None and isinstance(truth, bool)
    ]


def _judgements(examples: Sequence[dict[str, Any]]) -> list[float | None]:
    """The probabilities where these were asked for, else yes or no; None where a reply was not usable.

    Never some of each: a plain yes would rank above every probability.
    """
    probabilities = [_share(each.get("probability")) for each in examples]
    if any(each is not None for each in probabilities):
        return probabilities
    return [_share(each.get("prediction")) for each in examples]


def _share(value: object) -> float | None:
    return float(value) if isinstance(value, bool | int | float) and 0 <= value <= 1 else None


def _observations(latent: str, rows: Sequence[tuple[float, float]]) -> pl.DataFrame:
    units = [f"{hashlib.sha256(latent.encode()).hexdigest()[:16]}:{place}" for place in range(len(rows))]
    return observation_frame(
        checkpoint="theirs",
        metric=_AUROC.name,
        group=latent,
        unit=units,
        cluster=latent,
        numerator=[judged for judged, _ in rows],
        label=[truth for _, truth in rows],
    )
