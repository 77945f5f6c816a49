"""Terms per token -> sums per document and range of positions -> observations.

Memory: two float64 numbers per metric, document of the chunk and range of positions; no token is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.records import OBSERVATION_SCHEMA, observation_frame, slice_key

__all__ = ["DocumentSums", "Terms", "failed_observations", "position_range", "position_slice"]

RANGE_COUNT = 14
"""Ranges of positions: 0, 1-3, 4-15, ... up to 4^13 - 1 = 67 million, longer than any context."""


class Terms(NamedTuple):
    """A token's share of a ratio."""

    numerator: Float[Tensor, " token"]
    denominator: Float[Tensor, " token"] | None = None
    """None where every token counts as 1."""


def position_range(position: Int[Tensor, " token"]) -> Int[Tensor, " token"]:
    """Which range a position lies in: 0 for the first, else 1 + floor(log4(position))."""
    edges = torch.tensor([4**power for power in range(RANGE_COUNT - 1)], device=position.device)
    return torch.bucketize(position, edges, right=True)


def position_slice(range_index: int) -> dict[str, str]:
    """The slice of a range: `{"position": "0"}`, `{"position": "1-3"}`, `{"position": "4-15"}`, ..."""
    if range_index == 0:
        return {"position": "0"}
    return {"position": f"{4 ** (range_index - 1)}-{4**range_index - 1}"}


class DocumentSums:
    """Sums of the terms of some metrics, per document of a chunk and range of positions.

    The sums are float64 whatever the terms are, so that the number of tokens in a batch does not matter.
    """

    def __init__(self, documents: Sequence[str], metrics: Sequence[str]) -> None:
        """Start at zero for these documents."""
        self._documents = np.array(documents, dtype=object)
        self._metrics = tuple(metrics)
        shape = (2 * len(self._metrics) + 1, RANGE_COUNT * len(documents))
        self._sums: Float[Tensor, "term cell"] = torch.zeros(shape, dtype=torch.float64)

    def add(
        self, document: Int[Tensor, " token"], position: Int[Tensor, " token"], terms: Mapping[str, Terms]
    ) -> None:
        """Add tokens; `terms` holds every metric of this object, `document` places in its list."""
        cell = position_range(position) * len(self._documents) + document
        ones = torch.ones(len(document), dtype=torch.float64, device=document.device)
        rows = [ones]
        for metric in self._metrics:
            numerator, denominator = terms[metric]
            rows += [numerator.double(), ones if denominator is None else denominator.double()]
        self._sums = self._sums.to(cell.device).index_add_(1, cell, torch.stack(rows))

    def observations(self, checkpoint: str, *, by_position: frozenset[str] = frozenset()) -> pl.DataFrame:
        """One row per metric and document, over positions >= 1; for `by_position` also one per range.

        A document without a token in a range has no row there.
        """
        shape = (2 * len(self._metrics) + 1, RANGE_COUNT, len(self._documents))
        sums = self._sums.reshape(shape).cpu().numpy()
        columns = [self._columns(sums, row, by_position) for row in range(len(self._metrics))]
        parts = [part for parts in columns for part in parts]
        if not parts:
            return pl.DataFrame(schema=OBSERVATION_SCHEMA)
        units = np.concatenate([part["unit"] for part in parts]).tolist()
        return observation_frame(
            checkpoint=checkpoint,
            metric=[part["metric"] for part in parts for _ in part["unit"]],
            slice=[part["slice"] for part in parts for _ in part["unit"]],
            unit=units,
            cluster=units,
            numerator=np.concatenate([part["numerator"] for part in parts]),
            denominator=np.concatenate([part["denominator"] for part in parts]),
        )

    def _columns(
        self, sums: Float[np.ndarray, "term range document"], row: int, by_position: frozenset[str]
    ) -> Iterator[dict[str, Any]]:
        metric = self._metrics[row]
        count, (numerator, denominator) = sums[0], sums[2 * row + 1 : 2 * row + 3]
        cuts: list[tuple[str, slice]] = [("{}", slice(1, None))]
        if metric in by_position:
            cuts += [
                (slice_key(position_slice(r)), slice(r, r + 1)) for r in range(RANGE_COUNT) if count[r].any()
            ]
        for key, ranges in cuts:
            seen = count[ranges].sum(axis=0) > 0
            if seen.any():
                yield {
                    "metric": metric,
                    "slice": key,
                    "unit": self._documents[seen],
                    "numerator": numerator[ranges].sum(axis=0)[seen],
                    "denominator": denominator[ranges].sum(axis=0)[seen],
                }


def failed_observations(
    checkpoint: str, metrics: Sequence[str], *, unit: str, reason: str, status: str = "failed"
) -> pl.DataFrame:
    """One row per metric that could not be computed on `unit` (a chunk), in place of its documents' rows.

    `status` is `skipped` for what was left out on purpose.
    """
    frames = [
        observation_frame(
            checkpoint=checkpoint, metric=metric, unit=unit, numerator=None, status=status, reason=reason
        )
        for metric in metrics
    ]
    return pl.concat(frames) if frames else pl.DataFrame(schema=OBSERVATION_SCHEMA)
