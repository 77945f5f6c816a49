"""What judges and simulators said, one row per question, beside the truth: all that scores are made from."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

import polars as pl

__all__ = ["PREDICTIONS", "ScoredPassage", "prediction_frame"]

PREDICTIONS: dict[str, Any] = {
    "checkpoint": pl.String,
    "latent": pl.UInt32,
    "latent_id": pl.String,
    "sampling_weight": pl.Float64,
    "explainer": pl.String,
    "explanation": pl.String,  # own | borrowed | empty
    "method": pl.String,
    "judge": pl.String,
    "passage": pl.String,
    "document": pl.String,
    "sampler": pl.String,
    "stratum": pl.Int16,
    "fires": pl.Boolean,
    "value": pl.Float64,
    "is_probability": pl.Boolean,
    "truth": pl.List(pl.Float64),
    "predicted": pl.List(pl.Float64),
    "calibrated": pl.List(pl.Float64),
    "status": pl.String,  # measured | refused | undefined | failed | skipped
    "cause": pl.String,
    "weight": pl.Float64,
}
"""Columns of `ScoredPassage`, one row each."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredPassage:
    """One answer of one judge about one latent's explanation, beside the truth.

    By method:
        detection, embedding, surprisal: `fires` is whether the latent fires in the passage, `value` what the
            judge says (a probability, a cosine, nats by which the explanation lowers the surprise).
        fuzzing: `fires` is whether the marked tokens are those at which the latent fires.
        simulation, token_table, graph: `truth` and `predicted` hold a number per token; `value` stays None.
        intruder: a row is a question; `value` is 1 where the judge found the intruder, else 0; `fires` None.
        generation: a row is a text that the LLM wrote; `fires` is whether it was to fire the latent, `value`
            the largest |activation| of the latent in it, 0 where it does not fire.
        steering: `fires` is whether the text was made with the latent raised, `value` what the judge says.

    A latent of which nothing could be asked (no explanation) has a row for each passage that would have been
    asked, refused with cause `no_explanation`; where not even these are known, one row with passage "".
    """

    checkpoint: str
    latent: int
    latent_id: str
    """The same in every run: the unit of the dictionary's estimates."""
    explainer: str
    """Whose explanation it is, or was before it was lent to another latent."""
    method: str
    """A name of `explanation_sections.MethodName`."""
    judge: str
    """Name of the judge or simulator; `constant` is the null that always says no."""
    passage: str
    explanation: Literal["own", "borrowed", "empty"] = "own"
    sampling_weight: float = 1.0
    """How many live latents of the dictionary this one stands for."""
    document: str = ""
    """What makes passages dependent; "": the passage stands alone."""
    sampler: str = ""
    """Where the passage is from: a name of `SAMPLER_NAMES`, or what the method names (`generated`)."""
    stratum: int = 0
    """Of sampler `quantiles`: 0 the weakest range of strength."""
    fires: bool | None = None
    value: float | None = None
    is_probability: bool = False
    truth: tuple[float, ...] | None = None
    """|activation|, one per token; also of a refused passage, for the bounds."""
    predicted: tuple[float, ...] | None = None
    """NaN where the simulator says nothing of a token."""
    calibrated: tuple[float, ...] | None = None
    """`predicted` in units of activation, for R^2 and deviation; None: as `predicted`."""
    status: Literal["measured", "refused", "undefined", "failed", "skipped"] = "measured"
    """refused: asked and no usable answer; skipped: not asked (budget); undefined: has no answer."""
    cause: str = ""
    """Why there is no answer: a `RefusalCause`, or one line."""
    weight: float = 1.0
    """How many of the sampler's population the passage stands for."""


def prediction_frame(rows: Iterable[ScoredPassage]) -> pl.DataFrame:
    """The rows as a table with the columns of `PREDICTIONS`."""
    rows = list(rows)
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(ScoredPassage)}
    return pl.DataFrame({name: columns[name] for name in PREDICTIONS}, schema=PREDICTIONS)
