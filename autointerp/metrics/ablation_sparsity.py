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

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["TokenEffects", "kl_nats", "lower_medians", "sparsity", "token_concentration", "token_effects"]

_BLOCK = 1 << 20
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

    def lengthened(self, length: int) -> "TokenEffects":
        """With tokens behind on which nothing changes."""
        missing = ((0, 0), (0, length - self.absolute.shape[1]))
        return TokenEffects(np.pad(self.absolute, missing), np.pad(self.squared, missing))


def lower_medians(rows: Float[Tensor, "row vocabulary"]) -> Float[Tensor, " row"]:
    """The element of rank (V - 1) // 2 of each row: the median, for even V the lower one.

    On the CPU by numpy's partition, a fifth of the time of `torch.median`, which gives the same.
    """
    if rows.device.type != "cpu":
        return rows.median(dim=1).values
    rank = (rows.shape[1] - 1) // 2
    return torch.from_numpy(np.partition(rows.numpy(), rank, axis=1)[:, rank].copy())


def token_effects(change: Float[Tensor, "row step vocabulary"]) -> TokenEffects:
    """The two sums of each row and token. Memory: a block of a few MiB.

    Args:
        change: of the logits, in float32.
    """
    flat = change.reshape(-1, change.shape[2])
    absolute, squared = [], []
    for part in flat.split(max(1, _BLOCK // change.shape[2])):
        centred = part - lower_medians(part)[:, None]
        squared.append(torch.linalg.vecdot(centred, centred).double())
        absolute.append(centred.abs_().sum(dim=1).double())
    sums = (torch.cat(each).reshape(change.shape[:2]).cpu().numpy() for each in (absolute, squared))
    return TokenEffects(*sums)


def kl_nats(
    logits: Float[Tensor, "step vocabulary"], change: Float[Tensor, "row step vocabulary"]
) -> Float[np.ndarray, "row step"]:
    """KL(softmax(logits) || softmax(logits + change)) at each token, in nats, >= 0.

    Computed as log(1 + sum p (e^w - 1)) with w the change less its mean under p: exact for small changes as
    well, where a difference of two log-probabilities would be rounding.
    """
    p = logits.float().softmax(dim=1)
    found = []
    for part in change.split(max(1, _BLOCK // max(1, p.numel()))):
        mean = torch.linalg.vecdot(part, p)
        grown = (part - mean[..., None]).expm1_()
        found.append(torch.linalg.vecdot(grown, p).double().log1p().clamp_min(0.0))
    return torch.cat(found).cpu().numpy()


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
