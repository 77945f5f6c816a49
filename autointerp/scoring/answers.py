"""The predictions table -> one group of arrays for each latent, explanation, method and judge."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from autointerp.scoring.predictions import PREDICTIONS

__all__ = ["HARD_NEGATIVES", "AnswerKey", "Answers", "read_answers"]

HARD_NEGATIVES = ("same_token", "neighbours", "similar", "near_misses")
"""Samplers of silent passages that are easily mistaken for active ones."""

_STATUSES = frozenset({"measured", "refused", "undefined", "failed", "skipped"})


class AnswerKey(NamedTuple):
    """Whose answers about what."""

    checkpoint: str
    latent: int
    method: str
    explainer: str
    explanation: str
    judge: str


@dataclass(frozen=True, eq=False)
class Answers:
    """Rows of `PREDICTIONS` that share a key, sorted by passage, truth and sampler."""

    key: AnswerKey
    latent_id: str
    sampling_weight: float
    document_ids: np.ndarray
    """Those of the whole group, ascending; of a row without one: its passage."""
    passage: np.ndarray
    question: Int[np.ndarray, " example"]
    """Number of the row's passage and truth: rows of several samplers that share both share it."""
    document: Int[np.ndarray, " example"]
    """Place in `document_ids`."""
    sampler: np.ndarray
    is_hard: Bool[np.ndarray, " example"]
    """Rows from a sampler of hard negatives."""
    pool: Int[np.ndarray, " example"]
    """Number of the row's sampler and class."""
    stratum: np.ndarray
    fires: Bool[np.ndarray, " example"]
    """False also where there is no truth."""
    has_truth: Bool[np.ndarray, " example"]
    value: Float[np.ndarray, " example"]
    """NaN where there is none."""
    is_probability: Bool[np.ndarray, " example"]
    truth: np.ndarray
    """Float64 of shape (token,), or None, for each row; so are the next two."""
    predicted: np.ndarray
    calibrated: np.ndarray
    status: np.ndarray
    is_measured: Bool[np.ndarray, " example"]
    """Rows with an answer."""
    is_refused: Bool[np.ndarray, " example"]
    """Rows that were asked and have no usable answer."""
    cause: np.ndarray
    weight: Float[np.ndarray, " example"]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.passage)

    def only(self, keep: Bool[np.ndarray, " example"]) -> "Answers":
        """The rows of a mask."""
        return self if keep.all() else self._rows(np.flatnonzero(keep))

    def distinct(self, keep: Bool[np.ndarray, " example"]) -> "Answers":
        """The rows of a mask, each passage once, though several samplers gave it: of the first by name.

        By class: fuzzing shows a passage with right and with wrong marks.
        """
        rows = np.flatnonzero(keep)
        rows = rows[np.diff(self.question[rows], prepend=-1) != 0]
        return self if len(rows) == len(self) else self._rows(rows)

    def _rows(self, rows: Int[np.ndarray, " row"]) -> "Answers":
        about = {name: getattr(self, name) for name in _SHARED}
        return Answers(**about, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    @property
    def balanced_weight(self) -> Float[np.ndarray, " example"]:
        """Weights scaled to mean 1 within each sampler and class.

        Weights count what a sampler drew from, which differs between samplers by orders of magnitude: pooled
        as they are, one sampler would decide alone.
        """
        total, count = np.bincount(self.pool, weights=self.weight), np.bincount(self.pool)
        mean = np.where(total > 0, total / np.maximum(count, 1), 1.0)
        return self.weight / mean[self.pool]


_SHARED = ("key", "latent_id", "sampling_weight", "document_ids")
_COLUMNS = tuple(field.name for field in fields(Answers) if field.name not in _SHARED)
_ORDER = [*AnswerKey._fields, "passage", "fires", "sampler", "stratum"]


def read_answers(predictions: pl.DataFrame) -> list[Answers]:
    """All groups, sorted by key.

    Raises:
        ValueError: columns are missing, or a status is unknown.
    """
    missing = PREDICTIONS.keys() - set(predictions.columns)
    if missing:
        raise ValueError(f"predictions: missing columns {sorted(missing)}")
    unknown = set(predictions["status"].unique()) - _STATUSES
    if unknown:
        raise ValueError(f"predictions: unknown status {sorted(unknown)}")
    frame = predictions.sort(_ORDER)
    return list(_groups(frame)) if frame.height else []


def _groups(frame: pl.DataFrame) -> Iterator[Answers]:
    keys = frame.select(AnswerKey._fields)
    runs = keys.select(run=pl.struct(pl.all()).rle_id())["run"].to_numpy()
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    columns = _arrays(frame)
    documents = columns.pop("document")
    ids, sampling_weights = frame["latent_id"].to_list(), frame["sampling_weight"].to_list()
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), frame.height], strict=True):
        document_ids, document = np.unique(documents[start:end].astype(str), return_inverse=True)
        yield Answers(
            key=AnswerKey(*keys.row(start)),
            latent_id=ids[start],
            sampling_weight=sampling_weights[start],
            document_ids=document_ids,
            document=document,
            **{name: column[start:end] for name, column in columns.items()},
        )


def _arrays(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    texts = {
        name: np.array(frame[name].to_list(), dtype=object)
        for name in ("passage", "document", "sampler", "status", "cause")
    }
    texts["document"] = np.where(texts["document"] == "", texts["passage"], texts["document"])
    fires = frame["fires"].fill_null(value=False)
    samplers = frame["sampler"].to_list()
    numbers = {name: number for number, name in enumerate(dict.fromkeys(samplers))}
    sampler = np.array([numbers[name] for name in samplers], dtype=np.int64)
    return {
        **texts,
        **{name: _sequences(frame[name]) for name in ("truth", "predicted", "calibrated")},
        "question": frame.select(pl.struct("passage", fires).rle_id())
        .to_series()
        .to_numpy()
        .astype(np.int64),
        "is_hard": frame["sampler"].is_in(HARD_NEGATIVES).to_numpy(),
        "pool": 2 * sampler + fires.to_numpy(),
        "stratum": frame["stratum"].to_numpy(),
        "fires": fires.to_numpy(),
        "has_truth": frame["fires"].is_not_null().to_numpy(),
        "value": frame["value"].fill_null(float("nan")).to_numpy(),
        "is_probability": frame["is_probability"].to_numpy(),
        "is_measured": (frame["status"] == "measured").to_numpy(),
        "is_refused": (frame["status"] == "refused").to_numpy(),
        "weight": frame["weight"].to_numpy(),
    }


def _sequences(column: pl.Series) -> np.ndarray:
    """Lists of numbers as arrays, None for what is missing."""
    found = np.empty(len(column), dtype=object)
    flat = column.filter(column.list.len() > 0).explode().to_numpy()
    end = 0
    for row, length in enumerate(column.list.len().to_list()):
        if length is not None:
            found[row] = flat[end : end + length]
            end += length
    return found
