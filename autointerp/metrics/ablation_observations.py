"""What ablations changed, a row each -> observations of sparsity, its nulls, concentration, effect size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from autointerp.metrics.ablation_sparsity import TokenEffects, sparsity, token_concentration
from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition, observation_frame

__all__ = ["ABLATION_METRICS", "READINGS", "ablation_observations"]

READINGS: dict[str, Any] = {
    "checkpoint": pl.String,
    "kind": pl.String,  # latent | random | channel
    "unit": pl.String,  # the ablated token: context and position
    "cluster": pl.String,  # its document
    "index": pl.Int64,  # of the latent or the channel; null for a random direction
    "weight": pl.Float64,  # how many latents were active, of which one was drawn
    "status": pl.String,
    "reason": pl.String,
    "vocabulary_size": pl.Int64,
    "absolute": pl.List(pl.Float64),  # by token, as in `TokenEffects`
    "squared": pl.List(pl.Float64),
    "kl": pl.List(pl.Float64),
    "direct_absolute": pl.Float64,  # at the ablated token; null where there is no direct path
    "direct_squared": pl.Float64,
    "mediated_absolute": pl.Float64,  # at the ablated token; behind it all is mediated
    "mediated_squared": pl.Float64,
    "not_direct": pl.String,  # why there is no direct path; empty where there is one
}
"""One row per ablation: of a latent, of a random direction as long, of one channel of the site."""

_GAO = "Gao et al. 2024 (arXiv 2406.04093), section 4.5"
_SPARSITY, _OVER_RANDOM = "ablation.sparsity", "ablation.sparsity_over_random"
_CONCENTRATION, _EFFECT = "ablation.token_concentration", "ablation.effect_kl_nats"
_DIRECT_SHARE = "ablation.direct_share"
_NULLS: dict[str, Mapping[str, Any]] = {
    "latent": {},
    "channel": {"null": "channels"},
    "random": {"null": "random_directions"},
}
_NOTHING = "no logit changed"
_FIRST: Mapping[str, Any] = {"horizon": 1}

ABLATION_METRICS: tuple[MetricDefinition, ...] = (
    MetricDefinition(
        name=_SPARSITY,
        title="Ablation sparsity",
        meaning="A latent's contribution is subtracted at one token; of the change of all V logits at that "
        "token and the next T - 1, each token's median taken off, (L1 / L2)^2 / (V T). Mean over pairs of a "
        "token and a latent active on it. Near 0: few logits change; 2/pi: as if all changed at random. It "
        "falls with depth for any direction, so read it beside its nulls: random directions as long, single "
        f"channels set to their mean, the random dictionary. {_GAO}.",
        unit="fraction",
        better="lower",
        functional="ratio",
        sampled="sample",
        lowest=0.0,
        highest=1.0,
    ),
    MetricDefinition(
        name=_OVER_RANDOM,
        title="Sparsity over random",
        meaning="Ablation sparsity of the latents over that of random directions as long as what was "
        "subtracted, at the same tokens: ratio of the two sums. 1: no sparser than any direction there.",
        unit="ratio",
        better="lower",
        functional="ratio",
        sampled="sample",
        lowest=0.0,
    ),
    MetricDefinition(
        name=_CONCENTRATION,
        title="Token concentration",
        meaning="Over how many of the T tokens the effect is spread: (sum sigma_t)^2 / (T sum sigma_t^2), "
        "sigma_t the L2 norm of the change of token t's logits, median taken off. 1/T: one token alone; 1: "
        "all alike. Says how much of a low sparsity is due to few tokens.",
        unit="fraction",
        better="neither",
        functional="ratio",
        sampled="sample",
        lowest=0.0,
        highest=1.0,
        in_summary=False,
    ),
    MetricDefinition(
        name=_EFFECT,
        title="Ablation effect",
        meaning="KL of the predictions without the latent from those with it, summed over the T tokens: "
        "sparsity does not depend on how large an effect is, this says it. Mean as for sparsity.",
        unit="nats",
        better="neither",
        functional="ratio",
        sampled="sample",
        lowest=0.0,
        in_summary=False,
    ),
    MetricDefinition(
        name=_DIRECT_SHARE,
        title="Direct share",
        meaning="Share of the effect that goes through the final norm and the unembedding alone: squared L2 "
        "norm of the direct change of the logits over that of direct and mediated ones, each token's median "
        "taken off. Mean as for sparsity. Near 1: the latent writes to the logits; near 0: later blocks read "
        "it.",
        unit="fraction",
        better="neither",
        functional="ratio",
        sampled="sample",
        lowest=0.0,
        highest=1.0,
        in_summary=False,
    ),
)
"""In reading order. Slices: `{"horizon": 1}` (the ablated token alone), `{"null": ...}`, `{"path": ...}`."""


@dataclass(frozen=True, eq=False)
class _Ablations:
    """Rows of one kind, as arrays; those without a number hold NaN."""

    frame: pl.DataFrame
    effects: TokenEffects
    kl: Float[np.ndarray, "row step"]
    direct: TokenEffects
    """One token long; NaN where there is no direct path."""
    mediated: TokenEffects
    vocabulary_size: int

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "_Ablations":
        lengths = frame["absolute"].list.len().drop_nulls()
        length = int(lengths[0]) if len(lengths) else 1
        sizes = frame["vocabulary_size"].drop_nulls()
        absolute, squared, kl = (_grid(frame[name], length) for name in ("absolute", "squared", "kl"))
        direct = [_numbers(frame[f"direct_{name}"])[:, None] for name in ("absolute", "squared")]
        at_token = [_numbers(frame[f"mediated_{name}"])[:, None] for name in ("absolute", "squared")]
        behind = (absolute[:, 1:], squared[:, 1:])
        mediated = [np.hstack(pair) for pair in zip(at_token, behind, strict=True)]
        return cls(
            frame,
            TokenEffects(absolute, squared),
            kl,
            TokenEffects(*direct),
            TokenEffects(*mediated),
            int(sizes[0]) if len(sizes) else 1,
        )

    @property
    def horizon(self) -> int:
        return self.kl.shape[1]

    def sparsity(self, effects: TokenEffects) -> Float[np.ndarray, " row"]:
        return sparsity(effects, vocabulary_size=self.vocabulary_size)

    @property
    def direct_share(self) -> Float[np.ndarray, " row"]:
        direct, mediated = self.direct.squared.sum(axis=1), self.mediated.squared.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return direct / (direct + mediated)

    def rows(
        self,
        metric: str,
        settings: Mapping[str, Any],
        numerator: Float[np.ndarray, " row"],
        denominator: Float[np.ndarray, " row"] | float = 1.0,
        *,
        reason: str = _NOTHING,
    ) -> pl.DataFrame:
        """Observations; a measured ablation without a number here is undefined for `reason`."""
        frame = self.frame
        there = (frame["status"] == "measured").to_numpy()
        known = np.isfinite(numerator) & np.isfinite(denominator)
        status = np.where(there & ~known, "undefined", frame["status"].to_numpy())
        why = np.where(there & ~known, reason, frame["reason"].to_numpy())
        return observation_frame(
            checkpoint=frame["checkpoint"],
            metric=metric,
            slice={**_NULLS[frame["kind"][0]], **settings},
            unit=frame["unit"],
            cluster=frame["cluster"],
            numerator=pl.Series(np.where(there & known, numerator, np.nan)).fill_nan(None),
            denominator=pl.Series(np.where(there & known, denominator, np.nan)).fill_nan(None),
            sampling_weight=frame["weight"].fill_null(0.0),
            status=pl.Series(status, dtype=pl.String),
            reason=pl.Series(why, dtype=pl.String),
        )


def ablation_observations(readings: pl.DataFrame) -> pl.DataFrame:
    """A row per metric, slice, checkpoint and ablated token; columns of `readings` as in READINGS.

    All rows are of one horizon and one vocabulary. Over random directions only what both have a number of.
    """
    frames = [pl.DataFrame(schema=OBSERVATION_SCHEMA)]
    kinds = {
        kind: _Ablations.of(frame)
        for kind in _NULLS
        if (frame := readings.filter(pl.col("kind") == kind).sort("checkpoint", "unit")).height
    }
    for found in kinds.values():
        frames += _of_kind(found)
    if "latent" in kinds:
        latent = kinds["latent"]
        frames += _parts(latent)
        frames += _over_random(latent, readings.filter(pl.col("kind") == "random"))
    return pl.concat(frames)


def _of_kind(found: _Ablations) -> list[pl.DataFrame]:
    """What latents and their nulls are both asked."""
    first = found.effects.part(slice(1))
    no_share = next((reason for reason in found.frame["not_direct"].drop_nulls() if reason), _NOTHING)
    frames = [
        found.rows(_SPARSITY, {}, found.sparsity(found.effects)),
        found.rows(_CONCENTRATION, {}, token_concentration(found.effects)),
        found.rows(_EFFECT, {}, found.kl.sum(axis=1)),
        found.rows(_DIRECT_SHARE, {}, found.direct_share, reason=no_share),
    ]
    if found.horizon > 1:
        frames.append(found.rows(_SPARSITY, _FIRST, found.sparsity(first)))
        frames.append(found.rows(_EFFECT, _FIRST, found.kl[:, 0]))
    return frames


def _parts(found: _Ablations) -> list[pl.DataFrame]:
    """Sparsity of the direct and the mediated change; nothing where there is no direct path."""
    if found.frame["direct_absolute"].is_null().all():
        return []
    parts = {"direct": found.direct, "mediated": found.mediated}
    return [
        found.rows(_SPARSITY, {"path": path}, found.sparsity(effects), reason=f"nothing is {path}")
        for path, effects in parts.items()
    ]


def _over_random(latent: _Ablations, random: pl.DataFrame) -> list[pl.DataFrame]:
    keys = ["checkpoint", "unit"]
    columns = [name for name in READINGS if name not in ("checkpoint", "unit")]
    paired = latent.frame.select(keys).join(random, on=keys, how="left", maintain_order="left")
    other = _Ablations.of(paired.with_columns(pl.col("kind").fill_null("random")).select(*keys, *columns))
    reason = "a logit changed for one of the two only"
    frames = []
    for settings, steps in (({}, slice(None)), (_FIRST, slice(1))):
        if settings and latent.horizon == 1:
            continue
        numerator = latent.sparsity(latent.effects.part(steps))
        denominator = other.sparsity(other.effects.part(steps))
        frames.append(latent.rows(_OVER_RANDOM, settings, numerator, denominator, reason=reason))
    return frames


def _grid(lists: pl.Series, length: int) -> Float[np.ndarray, "row step"]:
    filled = [[float("nan")] * length if values is None else values for values in lists.to_list()]
    return np.array(filled, dtype=np.float64).reshape(len(filled), length)


def _numbers(column: pl.Series) -> Float[np.ndarray, " row"]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
