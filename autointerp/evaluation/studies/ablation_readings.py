"""What ablations at some places did -> rows of READINGS, also where nothing was ablated or all went wrong."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from autointerp.evaluation.studies.ablation_effects import AblationEffects
from autointerp.evaluation.studies.ablation_places import PlaceGroup
from autointerp.evaluation.studies.ablation_rows import Subtractions
from autointerp.metrics.ablation_observations import READINGS

__all__ = ["failed_readings", "readings_of"]

_KINDS = ("latent", "random", "channel")
_NOT_FINITE = "the logits are not finite"


def readings_of(
    checkpoint: str,
    group: PlaceGroup,
    subtracted: Subtractions,
    effects: AblationEffects | None,
    *,
    no_direct: str,
) -> pl.DataFrame:
    """One row for each place of a group.

    Args:
        checkpoint: the dictionary's name.
        group: the places.
        subtracted: at all of them; `lacking` says where nothing was.
        effects: of those where something was, in order; None where that is nowhere.
        no_direct: why there is no direct path; empty where there is one.
    """
    count = len(group.places)
    columns: dict[str, Any] = {
        **_places(group),
        "kind": [subtracted.kind] * count,
        "index": [None if index < 0 else int(index) for index in subtracted.index],
        "weight": subtracted.weight,
        "status": ["undefined" if lack else "measured" for lack in subtracted.lacking],
        "reason": list(subtracted.lacking),
        "not_direct": [no_direct] * count,
    }
    there = [place for place, lack in enumerate(subtracted.lacking) if not lack]
    if effects is not None:
        columns |= {name: _spread(values, there, count) for name, values in _effect_columns(effects).items()}
    frame = _whole(checkpoint, columns)
    is_finite = pl.col("absolute").list.sum().is_finite() & pl.col("kl").list.sum().is_finite()
    is_bad = (pl.col("status") == "measured") & ~is_finite.fill_null(value=False)
    return frame.with_columns(
        status=pl.when(is_bad).then(pl.lit("failed")).otherwise("status"),
        reason=pl.when(is_bad).then(pl.lit(_NOT_FINITE)).otherwise("reason"),
    )


def failed_readings(checkpoint: str, group: PlaceGroup, reason: str) -> pl.DataFrame:
    """Rows of every kind that say why there is no number."""
    count = len(group.places)
    rest = {"status": ["failed"] * count, "reason": [reason] * count}
    return pl.concat(
        [_whole(checkpoint, {**_places(group), **rest, "kind": [kind] * count}) for kind in _KINDS]
    )


def _places(group: PlaceGroup) -> dict[str, list[str]]:
    return {
        "unit": [place.unit for place in group.places],
        "cluster": [place.document for place in group.places],
    }


def _effect_columns(effects: AblationEffects) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "vocabulary_size": [effects.vocabulary_size] * len(effects.kl),
        "absolute": effects.total.absolute.tolist(),
        "squared": effects.total.squared.tolist(),
        "kl": effects.kl.tolist(),
    }
    for name, part in (("direct", effects.direct), ("mediated", effects.mediated)):
        if part is not None:
            columns[f"{name}_absolute"] = part.absolute[:, 0].tolist()
            columns[f"{name}_squared"] = part.squared[:, 0].tolist()
    return columns


def _spread(values: Sequence[Any], places: Sequence[int], count: int) -> list[Any]:
    """By place; None where nothing was ablated."""
    spread: list[Any] = [None] * count
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread


def _whole(checkpoint: str, columns: dict[str, Any]) -> pl.DataFrame:
    """With all columns of READINGS, null where there is nothing."""
    overrides = {name: kind for name, kind in READINGS.items() if name in columns}
    frame = pl.DataFrame(columns, schema_overrides=overrides).with_columns(checkpoint=pl.lit(checkpoint))
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in READINGS.items() if name not in frame]
    return frame.with_columns(missing).select(list(READINGS))
