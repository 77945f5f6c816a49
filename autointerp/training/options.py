"""What a training run is asked to do: one frozen record per autoencoder.

The recipe is that of Gao et al. 2024 (arXiv 2406.04093), section 2 and appendix A, at a budget that is
thousands of times smaller; where a constant depends on the budget, the docstring says how it was scaled.
"""

import math
from dataclasses import dataclass
from typing import Literal

from autointerp.errors import BadInputError

__all__ = ["Architecture", "Level", "TrainingOptions"]

Architecture = Literal["topk", "multi_topk", "relu"]
_ARCHITECTURES = ("topk", "multi_topk", "relu")
_NORMALIZATIONS = ("layer_norm", "none")
_PRODUCT_DTYPES = ("float32", "bfloat16")
_PAPER_DEAD_TOKENS = 10_000_000
_PAPER_EMA_DECAY = 0.999
_LEARNING_RATE, _LEARNING_RATE_LATENTS = 3e-3, 1024


@dataclass(frozen=True)
class Level:
    """One term of a Multi-TopK loss: the reconstruction from the k largest latents, times a weight."""

    k: int
    weight: float


@dataclass(frozen=True)
class TrainingOptions:
    """How one autoencoder is trained."""

    latent_count: int
    architecture: Architecture = "topk"
    k: int | None = None
    """Latents kept per token; None for ReLU."""
    further_levels: tuple[Level, ...] = ()
    """Multi-TopK: loss terms beside L(k). Empty there: L(4k)/8, as in the paper's section 5.3."""
    aux_k: int | None = None
    """Dead latents that reconstruct the error; 0: none; None: the power of two nearest to d_model / 2."""
    aux_coefficient: float = 1 / 32
    l1_coefficient: float = 0.0
    """ReLU: weight of the L1 term, see `losses.relu_step` for its scale."""
    l1_warmup_fraction: float = 0.05
    """ReLU: part of the budget over which the L1 weight grows from 0."""
    normalization: Literal["layer_norm", "none"] = "layer_norm"
    """layer_norm: each token centred and divided by its standard deviation, before encoding and before the
    error is taken. none: raw activations, scaled by one constant during training that is folded back."""
    learning_rate: float | None = None
    """Adam's, before warm-up and decay; None: 3e-3 up to 1024 latents, then as 1 / sqrt(latents) (the paper's
    law for the largest convergent rate). The paper's 1e-4 belongs to runs of 1e5 steps."""
    warmup_fraction: float = 0.02
    """Part of the budget over which the learning rate grows linearly from 0."""
    decay_fraction: float = 0.3
    """Part of the budget, at its end, over which the learning rate falls linearly to 0 (paper: constant)."""
    batch_tokens: int = 2048
    """Tokens per optimiser step (paper: 131,072): at a small budget more, noisier steps get further."""
    token_budget: int = 2_000_000
    """Tokens to train on, the same for all autoencoders of a run; rounded down to whole batches."""
    dead_after_tokens: int | None = None
    """A latent is dead after so many tokens without firing; None: 1/40 of the budget, at most 10M
    (the paper's)."""
    ema_decay: float | None = None
    """Decay per step of the weight average that is kept; 0: the last weights are kept; None: the paper's
    0.999, or less, so that the average reaches back over 5 % of the steps at most."""
    seed: int = 0
    product_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the dense matrix products; weights, sums and the optimiser are float32 always."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, in words."""
        _check_choices(self)
        _check_architecture(self)
        _check_numbers(self)

    @property
    def name(self) -> str:
        """`topk-1024-k8`, `multi_topk-2048-k16`, `relu-1024-l1_0.13`; must be distinct within a run."""
        setting = f"l1_{self.l1_coefficient:g}" if self.k is None else f"k{self.k}"
        return f"{self.architecture}-{self.latent_count}-{setting}"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The terms of the reconstruction loss, that of k first; empty for ReLU."""
        if self.k is None:
            return ()
        first = Level(self.k, 1.0)
        if self.architecture == "topk":
            return (first,)
        return (first, *(self.further_levels or (Level(min(4 * self.k, self.latent_count), 1 / 8),)))

    @property
    def steps(self) -> int:
        """Optimiser steps in the budget."""
        return self.token_budget // self.batch_tokens

    @property
    def dead_threshold(self) -> int:
        """Tokens without firing after which a latent is dead."""
        if self.dead_after_tokens is not None:
            return self.dead_after_tokens
        return max(1, min(_PAPER_DEAD_TOKENS, self.token_budget // 40))

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate between warm-up and decay."""
        if self.learning_rate is not None:
            return self.learning_rate
        return _LEARNING_RATE * min(1.0, (_LEARNING_RATE_LATENTS / self.latent_count) ** 0.5)

    @property
    def average_decay(self) -> float:
        """Decay per step of the weight average."""
        return (
            min(_PAPER_EMA_DECAY, max(0.0, 1 - 20 / self.steps)) if self.ema_decay is None else self.ema_decay
        )

    def aux_count(self, d_model: int) -> int:
        """Dead latents per token in the AuxK term: as asked, or the power of two nearest to d_model / 2."""
        if self.aux_k is not None:
            return self.aux_k
        return 2 ** max(0, round(math.log2(max(1.0, d_model / 2))))

    def learning_rate_scale(self, step: int) -> float:
        """Factor of the learning rate at a step (from 0): linear warm-up, 1, linear decay towards 0."""
        warmup = max(1, round(self.warmup_fraction * self.steps))
        decay = max(1, round(self.decay_fraction * self.steps))
        return min(1.0, (step + 1) / warmup, (self.steps - step) / decay if self.decay_fraction else 1.0)

    def l1_at(self, step: int) -> float:
        """Weight of the L1 term at a step: grows linearly over the warm-up."""
        warmup = max(1, round(self.l1_warmup_fraction * self.steps))
        return self.l1_coefficient * min(1.0, (step + 1) / warmup)


def _refuse(what: str, remedy: str = "") -> None:
    raise BadInputError(what, where="training options", remedy=remedy)


def _check_choices(options: TrainingOptions) -> None:
    for field, known in (
        ("architecture", _ARCHITECTURES),
        ("normalization", _NORMALIZATIONS),
        ("product_dtype", _PRODUCT_DTYPES),
    ):
        if getattr(options, field) not in known:
            _refuse(f"{field} {getattr(options, field)!r} is not known", f"choose one of {', '.join(known)}")


def _check_architecture(options: TrainingOptions) -> None:
    if options.architecture == "relu":
        if options.k is not None:
            _refuse("k has no meaning for relu", "leave it out; l1_coefficient sets the sparsity")
        if options.l1_coefficient <= 0:
            _refuse("relu without an L1 term is not sparse", "set l1_coefficient (--l1) above 0, e.g. 0.13")
    elif options.k is None or not 1 <= options.k <= options.latent_count:
        _refuse(f"k must lie between 1 and the {options.latent_count} latents, got {options.k}")
    elif options.l1_coefficient:
        _refuse("the L1 term belongs to relu", "leave l1_coefficient out")
    if options.further_levels and options.architecture != "multi_topk":
        _refuse("further loss terms belong to multi_topk", "leave further_levels out")
    if any(not 1 <= level.k <= options.latent_count for level in options.further_levels):
        _refuse(f"every k of a loss term must lie between 1 and the {options.latent_count} latents")


def _check_numbers(options: TrainingOptions) -> None:
    if options.latent_count < 1 or options.batch_tokens < 1:
        _refuse("latent_count and batch_tokens must be at least 1")
    if options.token_budget < options.batch_tokens:
        _refuse(
            f"the budget of {options.token_budget} tokens is less than one batch of {options.batch_tokens}",
            "raise token_budget (--tokens) or lower batch_tokens",
        )
    if options.peak_learning_rate <= 0 or not 0 <= (options.ema_decay or 0) < 1:
        _refuse("learning_rate must be above 0 and ema_decay in [0, 1)")
    if min(options.aux_k or 0, options.dead_after_tokens or 0, options.aux_coefficient) < 0:
        _refuse("aux_k, aux_coefficient and dead_after_tokens must not be negative")
