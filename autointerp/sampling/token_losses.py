"""Logits -> cross entropy and KL divergence per predicted token, in blocks, so that memory stays small.

Memory: one block holds at most `BLOCK_VALUES` logits (off the CPU `ACCELERATOR_BLOCK_VALUES`); the clean
log-probabilities are the only tensor of shape (prediction, vocabulary) that is kept, for as long as one
batch lasts.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "BLOCK_VALUES",
    "CleanPredictions",
    "SubstitutedLosses",
    "clean_predictions",
    "cross_entropy",
    "substituted_losses",
]

BLOCK_VALUES = 1 << 18
"""Logits in a block: 1 MiB of float32, small enough to stay in a core's cache between the steps."""
ACCELERATOR_BLOCK_VALUES = 1 << 26
"""The same off the CPU, where many small steps cost more than memory: 256 MiB of float32."""


class CleanPredictions(NamedTuple):
    """The subject's own predictions of one batch."""

    log_probabilities: Float[Tensor, "prediction vocabulary"]
    cross_entropy: Float[Tensor, " prediction"]
    rules_out: bool
    """Whether some token has probability 0 (a logit of minus infinity)."""


class SubstitutedLosses(NamedTuple):
    """What a substitution does to the predictions, in nats."""

    cross_entropy: Float[Tensor, " prediction"]
    kl: Float[Tensor, " prediction"]
    """KL(clean || substituted)."""


def clean_predictions(
    logits: Float[Tensor, "place vocabulary"],
    flat_index: Int[Tensor, " prediction"],
    target: Int[Tensor, " prediction"],
) -> CleanPredictions:
    """Log-probabilities at the places that count, and the loss of what followed.

    Args:
        logits: of every place of the flattened batch.
        flat_index: the places that count.
        target: id of the token that followed each of them.

    Returns:
        float32 (float64 where the logits are): half-precision logits would not resolve a KL of 1e-3.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_probabilities = torch.empty(len(flat_index), logits.shape[1], dtype=dtype, device=logits.device)
    for rows in _blocks(len(flat_index), logits):
        block = logits[flat_index[rows]].to(dtype)
        log_probabilities[rows] = torch.log_softmax(block, dim=1)
    rules_out = bool(log_probabilities.isneginf().any())
    return CleanPredictions(log_probabilities, -_at(log_probabilities, target), rules_out)


def substituted_losses(
    clean: CleanPredictions,
    logits: Float[Tensor, "place vocabulary"],
    flat_index: Int[Tensor, " prediction"],
    target: Int[Tensor, " prediction"],
) -> SubstitutedLosses:
    """Cross entropy of the substituted logits, and their KL divergence from the clean ones.

    The KL is summed over differences of log-probabilities, token of the vocabulary by token, so that it is
    exactly 0 where the logits are the same.
    """
    dtype = clean.log_probabilities.dtype
    cross, kl = clean.cross_entropy.new_empty(len(target)), clean.cross_entropy.new_empty(len(target))
    for rows in _blocks(len(flat_index), logits):
        substituted = torch.log_softmax(logits[flat_index[rows]].to(dtype), dim=1)
        cross[rows] = -_at(substituted, target[rows])
        log_clean = clean.log_probabilities[rows]
        difference = torch.sub(log_clean, substituted, out=substituted)
        if clean.rules_out:
            difference.masked_fill_(log_clean.isneginf(), 0.0)  # 0 log 0 = 0
        kl[rows] = torch.linalg.vecdot(log_clean.exp(), difference)
    return SubstitutedLosses(cross, kl)


def cross_entropy(
    logits: Float[Tensor, "place vocabulary"],
    flat_index: Int[Tensor, " prediction"],
    target: Int[Tensor, " prediction"],
) -> Float[Tensor, " prediction"]:
    """Cross entropy alone, in nats, for passes whose KL nobody asks for."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    losses = torch.empty(len(target), dtype=dtype, device=logits.device)
    for rows in _blocks(len(flat_index), logits):
        block = logits[flat_index[rows]].to(dtype)
        losses[rows] = torch.logsumexp(block, dim=1) - _at(block, target[rows])
    return losses


def _at(
    values: Float[Tensor, "prediction vocabulary"], target: Int[Tensor, " prediction"]
) -> Float[Tensor, " prediction"]:
    return values.gather(1, target.unsqueeze(1)).squeeze(1)


def _blocks(row_count: int, logits: Float[Tensor, "place vocabulary"]) -> list[slice]:
    limit = BLOCK_VALUES if logits.device.type == "cpu" else ACCELERATOR_BLOCK_VALUES
    height = max(1, limit // logits.shape[1])
    return [slice(start, min(start + height, row_count)) for start in range(0, row_count, height)]
