"""The predictions table -> one group of arrays for each latent, explanation, method and judge."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

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
    passage: np.ndarray
    document: np.ndarray
    """Of a row without one: its passage."""
    sampler: np.ndarray
    stratum: np.ndarray
    fires: Bool[np.ndarray, " example"]
    """False also where there is no truth."""
    has_truth: Bool[np.ndarray, " example"]
    value: Float[np.ndarray, " example"]
    """NaN where there is none."""
    is_probability: Bool[np.ndarray, " example"]
    truth: np.ndarray
    """A list of floats, or None, for each row; so are the next two."""
    predicted: np.ndarray
    calibrated: np.ndarray
    status: np.ndarray
    cause: np.ndarray
    weight: Float[np.ndarray, " example"]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.passage)

    def only(self, keep: Bool[np.ndarray, " example"]) -> "Answers":
        """The rows of a mask."""
        columns = {name: getattr(self, name)[keep] for name in _COLUMNS}
        return replace(self, **columns)

    def distinct(self) -> "Answers":
        """Each passage once, though several samplers gave it: the row of the first sampler by name.

        By class: fuzzing shows a passage with right and with wrong marks.
        """
        same = (self.passage[1:] == self.passage[:-1]) & (self.fires[1:] == self.fires[:-1])
        return self.only(np.concatenate([np.ones(min(1, len(self)), dtype=bool), ~same.astype(bool)]))

    @property
    def is_measured(self) -> Bool[np.ndarray, " example"]:
        """Rows with an answer."""
        return self.status == "measured"

    @property
    def is_refused(self) -> Bool[np.ndarray, " example"]:
        """Rows that were asked and have no usable answer."""
        return self.status == "refused"

    @property
    def is_hard(self) -> Bool[np.ndarray, " example"]:
        """Rows from a sampler of hard negatives."""
        return np.isin(self.sampler.astype(str), HARD_NEGATIVES)

    @property
    def balanced_weight(self) -> Float[np.ndarray, " example"]:
        """Weights scaled to mean 1 within each sampler and class.

        Weights count what a sampler drew from, which differs between samplers by orders of magnitude: pooled
        as they are, one sampler would decide alone.
        """
        scaled = self.weight.astype(np.float64)
        for sampler in np.unique(self.sampler.astype(str)):
            for fires in (True, False):
                mine = (self.sampler == sampler) & (self.fires == fires)
                mean = float(scaled[mine].mean()) if mine.any() else 0.0
                scaled[mine] = scaled[mine] / mean if mean > 0 else scaled[mine]
        return scaled


_COLUMNS = tuple(
    field.name for field in fields(Answers) if field.name not in ("key", "latent_id", "sampling_weight")
)
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
    ids, sampling_weights = frame["latent_id"].to_list(), frame["sampling_weight"].to_list()
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), frame.height], strict=True):
        yield Answers(
            key=AnswerKey(*keys.row(start)),
            latent_id=ids[start],
            sampling_weight=sampling_weights[start],
            **{name: column[start:end] for name, column in columns.items()},
        )


def _arrays(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    texts = {
        name: np.array(frame[name].to_list(), dtype=object)
        for name in ("passage", "document", "sampler", "status", "cause")
    }
    texts["document"] = np.where(texts["document"] == "", texts["passage"], texts["document"])
    lists = {}
    for name in ("truth", "predicted", "calibrated"):
        lists[name] = np.empty(frame.height, dtype=object)
        lists[name][:] = frame[name].to_list() if frame.height else []
    return {
        **texts,
        **lists,
        "stratum": frame["stratum"].to_numpy(),
        "fires": frame["fires"].fill_null(value=False).to_numpy(),
        "has_truth": frame["fires"].is_not_null().to_numpy(),
        "value": frame["value"].fill_null(float("nan")).to_numpy(),
        "is_probability": frame["is_probability"].to_numpy(),
        "weight": frame["weight"].to_numpy(),
    }
