"""explanations.jsonl and scores.jsonl of a run, read back; what is damaged is said in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonlines
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from autointerp.errors import RunStoreError
from autointerp.reporting.explanations import with_scores

__all__ = ["explained_rows"]


class _Row(BaseModel):
    """What is read of a line; what else is there is let pass."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    checkpoint: str
    latent: int
    explainer: str


class _ExplanationRow(_Row):
    status: str
    text: str | None = None
    cause: str | None = None
    reason: str | None = None
    detail: str | None = None


class _Score(BaseModel):
    model_config = _Row.model_config

    metric: str
    judge: str
    slice: dict[str, Any] = {}
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_method: str | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _has_what_its_status_needs(self) -> "_Score":
        needed = ("reason",) if self.value is None else ("ci_low", "ci_high", "ci_method")
        lacking = [name for name in needed if getattr(self, name) is None]
        if lacking:
            raise ValueError(f"a score lacks {lacking[0]}")
        return self


class _ScoreRow(_Row):
    explanation: str
    scores: list[_Score]


def explained_rows(run: Path) -> list[dict[str, Any]]:
    """Explanations with their scores; none where the run explained nothing.

    Raises:
        RunStoreError: a file cannot be read, or a line of it is not what the run wrote.
    """
    files = {run / "explanations.jsonl": _ExplanationRow, run / "scores.jsonl": _ScoreRow}
    if not all(file.is_file() for file in files):
        return []
    return with_scores(*(_rows(file, form) for file, form in files.items()))


def _rows(file: Path, form: type[_Row]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    try:
        with jsonlines.open(file) as rows:
            for row in rows.iter(type=dict):
                form.model_validate(row)
                found.append(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(file, f"line {len(found) + 1}: {place}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError, jsonlines.Error) as error:
        raise _damaged(file, f"line {len(found) + 1}: {error}") from None
    return found


def _damaged(file: Path, why: str) -> RunStoreError:
    return RunStoreError("cannot be read", where=file, remedy=f"run the suite again ({why})")
