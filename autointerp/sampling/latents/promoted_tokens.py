"""Directions -> the tokens whose logits each raises and lowers most, straight through the unembedding."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autointerp.errors import SubjectError
from autointerp.sampling.latents.ranking import largest_of
from autointerp.sampling.latents.tables import PROMOTED
from autointerp.subject.direct_path import DirectPath
from autointerp.subject.subject_model import SubjectModel

__all__ = ["PROMOTED_SCHEMA", "promoted_tokens"]

PROMOTED_SCHEMA = {name: kind for name, kind in PROMOTED.items() if name != "checkpoint"}

_BLOCK_BYTES = 64 * 2**20
_SIGNS = ("promoted", "demoted")


@torch.no_grad()
def promoted_tokens(
    subject: SubjectModel,
    directions: Float[Tensor, "latent d_model"],
    *,
    latents: Sequence[int] | None = None,
    count: int = 10,
    path: DirectPath | None = None,
) -> pl.DataFrame:
    """The tokens that each direction promotes and demotes most: direct logit attribution.

        logit = s W (g * c(d)) - its mean over the vocabulary

    with the final norm's gain and centring, the unembedding and constant factors as `DirectPath` says (which
    names the sources); the mean goes, since the softmax does not see it. The unit is logits per unit of
    activation, times the final norm's scale: so tokens of one latent compare, and latents of one dictionary
    whose directions are comparable. Later blocks are left out: what they make of the direction is not told.

    The directions must be of vectors that are added to the residual stream, in its own space: see
    `writes_to_stream`; for a transcoder it is the output side. The vocabulary is that of the tokenizer: rows
    of the unembedding that belong to no token count neither in the mean nor in the lists.

    Cost: 2 latents x d_model x vocabulary flops, and without `path` a pass over 12 tokens. Memory: about
    twice a block of (some latents, vocabulary) in float32 of at most 64 MiB, or of one row; and what
    `DirectPath.logits` says.

    Args:
        subject: whose logits.
        directions: one row per latent, for a unit of its activation.
        latents: what the rows are called; without them, their numbers.
        count: how many tokens of each sign.
        path: of this subject, where it has been found before.

    Returns:
        By row of `directions`, sign (promoted first) and rank, which counts from 0: PROMOTED_SCHEMA. Equal
        logits are ranked by token. Promoted tokens have logits above 0, demoted ones below: of a direction
        that is zero there are none.

    Raises:
        SubjectError: the subject has no direct path; the error says why.
        SiteError: the directions are not as long as the residual stream is wide.
        ValueError: `count` is below 1, or there is not one label per row.
    """
    if count < 1:
        raise ValueError(f"count is {count}, it must be at least 1")
    labels = np.arange(len(directions)) if latents is None else np.array(latents, dtype=np.int64)
    if len(labels) != len(directions):
        raise ValueError(f"{len(labels)} labels for {len(directions)} directions")
    found = path or DirectPath.of(subject)
    if isinstance(found, str):
        raise SubjectError(f"no direct path to the logits: {found}", where=subject.name)
    is_token = _is_token(subject)
    rows_at_a_time = max(1, _BLOCK_BYTES // (4 * found.vocabulary_size))
    with found.at_hand():
        blocks = [
            _extremes(found.logits(block), is_token, count) for block in directions.split(rows_at_a_time)
        ]
    logits, tokens = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return _frame(labels, tokens, logits)


def _is_token(subject: SubjectModel) -> Bool[Tensor, " vocabulary"]:
    """Which logits belong to a token; tokenizers have gaps, so their length does not tell."""
    ids = torch.tensor(sorted(subject.tokenizer.get_vocab().values()))
    is_token = torch.zeros(subject.vocabulary_size, dtype=torch.bool)
    is_token[ids[ids < subject.vocabulary_size]] = True
    return is_token


def _extremes(
    logits: Float[Tensor, "latent vocabulary"], is_token: Bool[Tensor, " vocabulary"], count: int
) -> tuple[Float[np.ndarray, "latent 2 rank"], np.ndarray]:
    """Values and tokens of the largest and the smallest logits; `logits` is used up."""
    is_absent = ~is_token.to(logits.device)
    logits.masked_fill_(is_absent, 0.0)
    logits -= logits.sum(dim=1, keepdim=True) / is_token.sum().item()
    count = min(count, int(is_token.sum()))
    largest = largest_of(logits.masked_fill_(is_absent, -torch.inf), count)
    smallest = largest_of(logits.neg_().masked_fill_(is_absent, -torch.inf), count)
    values = torch.stack([largest.values, -smallest.values], dim=1)
    tokens = torch.stack([largest.columns, smallest.columns], dim=1)
    return values.cpu().numpy(), tokens.cpu().numpy()


def _frame(labels: np.ndarray, tokens: np.ndarray, logits: np.ndarray) -> pl.DataFrame:
    """One row per latent, sign and rank, less those that are not on their sign's side of 0."""
    shape = logits.shape
    sign = np.arange(2)[:, None]
    is_there = (np.where(sign == 0, logits, -logits) > 0).ravel()
    columns = {
        "latent": np.broadcast_to(labels[:, None, None], shape),
        "sign": np.broadcast_to(sign, shape),
        "rank": np.broadcast_to(np.arange(shape[2]), shape),
        "token": tokens,
        "logit": logits,
    }
    frame = pl.DataFrame({name: column.ravel()[is_there] for name, column in columns.items()})
    names = pl.when(pl.col("sign") == 0).then(pl.lit(_SIGNS[0])).otherwise(pl.lit(_SIGNS[1]))
    return frame.with_columns(sign=names).cast(PROMOTED_SCHEMA)  # type: ignore[arg-type]
