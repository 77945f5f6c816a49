"""How sparse, how large and how direct the effect of one latent on the subject's predictions is.

A latent's contribution is subtracted at one token, and the subject goes on from there. With v[t, i] the
change of logit i at the t-th token from there on (t = 0 is the token itself, T tokens in all, V logits each)
and u[t] = v[t] - median(v[t]), sigma_t = ||u[t]||_2:

    sparsity              (||u||_1 / ||u||_2)^2 / (V T)                in (0, 1], lower = sparser
    token concentration   (sum_t sigma_t)^2 / (T sum_t sigma_t^2)      in (0, 1], lower = on fewer tokens
    effect                sum_t KL(softmax(l[t]) || softmax(l[t] + v[t])), l the logits before, in nats

The median is over the vocabulary, for each token by itself; for even V it is the lower of the two in the
middle. sparsity times V T is an effective number of changed logits: 1/(V T) where one changes, 1 where all do
by as much, 2/pi for independent Gaussian changes. It does not depend on how large the change is.

Direct is what the change does through the final norm and the unembedding alone, at the ablated token;
mediated is the rest, v less the direct part. The direct part's sparsity is over V, the mediated part's over
V T.

Source: Gao et al. 2024 (arXiv 2406.04093), section 4.5; it leaves open what is subtracted from what, which
latents and tokens are averaged, and how the median is taken. Nulls, the ratio to random directions, the
concentration, and direct and mediated parts are ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["TokenEffects", "kl_nats", "lower_medians", "sparsity", "token_concentration", "token_effects"]

_BLOCK = 1 << 17
"""Numbers worked on at a time: few enough to stay in a processor's cache, for all is gone over ten times."""


@dataclass(frozen=True, eq=False)
class TokenEffects:
    """Sums over the vocabulary of a change of logits less its median, token by token, in float64."""

    absolute: Float[np.ndarray, "row step"]
    """||u[t]||_1."""
    squared: Float[np.ndarray, "row step"]
    """||u[t]||_2^2 = sigma_t^2."""

    def part(self, steps: slice) -> "TokenEffects":
        """Some of the tokens."""
        return TokenEffects(self.absolute[:, steps], self.squared[:, steps])

    def only(self, rows: np.ndarray) -> "TokenEffects":
        """Some of the rows, by a mask."""
        return TokenEffects(self.absolute[rows], self.squared[rows])

    def lengthened(self, length: int) -> "TokenEffects":
        """With tokens behind on which nothing changes."""
        missing = ((0, 0), (0, length - self.absolute.shape[1]))
        return TokenEffects(np.pad(self.absolute, missing), np.pad(self.squared, missing))


def lower_medians(rows: Float[np.ndarray, "row vocabulary"]) -> Float[np.ndarray, " row"]:
    """The element of rank (V - 1) // 2 of each row: the median, for even V the lower one.

    As `torch.median` has it, in a fifth of its time.
    """
    rank = (rows.shape[1] - 1) // 2
    return np.partition(rows, rank, axis=1)[:, rank]


def token_effects(change: Float[Tensor, "row step vocabulary"]) -> TokenEffects:
    """The two sums of each row and token. Memory: less than a MiB; on a GPU, twice the change.

    Args:
        change: of the logits, in float32.
    """
    if change.device.type != "cpu":
        centred = change - change.median(dim=2, keepdim=True).values
        sums = (centred.abs().sum(dim=2), torch.linalg.vecdot(centred, centred))
        return TokenEffects(*(each.double().cpu().numpy() for each in sums))
    flat = change.reshape(-1, change.shape[2]).numpy()
    found = np.empty((2, len(flat)))
    for part in _parts(flat):
        rows = flat[part]
        centred = rows - lower_medians(rows)[:, None]
        found[1, part] = np.vecdot(centred, centred)
        found[0, part] = np.abs(centred, out=centred).sum(axis=1)
    return TokenEffects(*found.reshape(2, *change.shape[:2]))


def kl_nats(
    logits: Float[Tensor, "step vocabulary"], change: Float[Tensor, "row step vocabulary"]
) -> Float[np.ndarray, "row step"]:
    """KL(softmax(logits) || softmax(logits + change)) at each token, in nats, >= 0.

    Computed as log(1 + sum p (e^w - 1)) with w the change less its mean under p: exact for small changes as
    well, where a difference of two log-probabilities would be rounding.
    """
    p = logits.float().softmax(dim=1)
    if change.device.type != "cpu":
        grown = (change - torch.linalg.vecdot(change, p)[..., None]).expm1_()
        return torch.linalg.vecdot(grown, p).double().log1p().clamp_min(0.0).cpu().numpy()
    found = np.empty(change.shape[:2])
    for row, steps in enumerate(change.numpy()):
        for part in _parts(steps):
            weights = p.numpy()[part]
            centred = steps[part] - np.vecdot(steps[part], weights)[:, None]
            found[row, part] = np.vecdot(np.expm1(centred, out=centred), weights)
    return np.maximum(np.log1p(found), 0.0)


def _parts(rows: Float[np.ndarray, "row vocabulary"]) -> Iterator[slice]:
    """Few rows at a time, on one thread: threads that wait for each other at every step took longer."""
    step = max(1, _BLOCK // rows.shape[1])
    return (slice(first, first + step) for first in range(0, len(rows), step))


def sparsity(effects: TokenEffects, *, vocabulary_size: int) -> Float[np.ndarray, " row"]:
    """`(L1 / L2)^2 / (V T)` over all tokens of each row; NaN where nothing changes."""
    size = vocabulary_size * effects.absolute.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return effects.absolute.sum(axis=1) ** 2 / (effects.squared.sum(axis=1) * size)


def token_concentration(effects: TokenEffects) -> Float[np.ndarray, " row"]:
    """`(sum_t sigma_t)^2 / (T sum_t sigma_t^2)` of each row; NaN where nothing changes.

    1/T where one token alone changes, 1 where all do by as much.
    """
    length = effects.squared.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(effects.squared).sum(axis=1) ** 2 / (length * effects.squared.sum(axis=1))
