"""Takes a norm apart: what it computes before its gain and bias, and the gain.

TransformerLens has a site there (`hook_normalized`), while Hugging Face's modules return the whole. So the
module's own code is run with neutral weights. Which gain is neutral is measured: Llama's norms multiply by
the weight, Gemma's by 1 + weight.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autointerp.subject.placement import weights_at_hand

__all__ = ["Normalization", "take_apart"]

_BIAS = "bias"
_MAX_MEAN_SQUARE = 1.01
"""A row over its root mean square has mean square 1, less what epsilon takes away."""
_LARGE = 64.0
_TOLERANCE = 2e-2
"""Relative; bfloat16 rounds by up to 4e-3."""


@dataclass(frozen=True, eq=False)
class Normalization:
    """A norm without its gain and bias, and the gain: module(x) = normalized(x) * gain + bias."""

    module: nn.Module
    gain: Float[Tensor, " width"]
    neutral: float
    """The weight with which the module multiplies by one."""

    def normalized(self, x: Float[Tensor, "*token width"]) -> Float[Tensor, "*token width"]:
        """`x` (less its mean, in a LayerNorm) over its root mean square, as the module computes it."""
        return _with_gain(self.module, x, self.neutral)


@torch.no_grad()
def take_apart(module: nn.Module, example: Float[Tensor, "*token width"]) -> Normalization | None:
    """The module as a norm with a gain; None where it is something else.

    Args:
        module: what may be a norm: it holds at most a gain and a parameter named `bias`, as long as a row.
        example: an input of it.
    """
    weights = [name for name, _ in module.named_parameters() if name != _BIAS]
    width = example.shape[-1]
    is_plain = len(weights) < 2 and not any(True for _ in module.children())
    if not is_plain or any(weight.shape != (width,) for weight in module.parameters()):
        return None
    neutral = _neutral_gain(module, example) if weights else 1.0
    if neutral is None:
        return None
    with weights_at_hand(module):
        # Asked for only here, since the weights may have been fetched just now.
        gain = getattr(module, weights[0]).detach() + (1.0 - neutral) if weights else torch.ones(width)
        found = Normalization(module, gain.clone(), neutral)
        return found if _normalizes(found, example) and _explains(found, example) else None


def _neutral_gain(module: nn.Module, example: Tensor) -> float | None:
    zero, one = (_with_gain(module, example, value) for value in (0.0, 1.0))
    if not bool(zero.any()):
        return 1.0
    return 0.0 if torch.allclose(one, 2.0 * zero, rtol=_TOLERANCE, atol=1e-6) else None


def _normalizes(found: Normalization, example: Tensor) -> bool:
    """Whether rows have mean square 1, and the same values however large the input is."""
    large = example * (_LARGE / float(example.abs().max()))  # so that epsilon is nothing beside it
    once, twice = (found.normalized(value).float() for value in (large, 2.0 * large))
    is_unit = bool((once.square().mean(dim=-1) <= _MAX_MEAN_SQUARE).all())
    return is_unit and torch.allclose(once, twice, rtol=_TOLERANCE, atol=_TOLERANCE)


def _explains(found: Normalization, example: Tensor) -> bool:
    """Whether gain and bias are all that the module does to what it normalised."""
    bias = getattr(found.module, _BIAS, None)
    gain = found.gain.to(example.device)
    expected = (found.normalized(example) * gain + (0.0 if bias is None else bias)).float()
    whole = type(found.module).forward(found.module, example).float()
    return torch.allclose(expected, whole, rtol=_TOLERANCE, atol=_TOLERANCE * float(whole.abs().max()))


def _with_gain(module: nn.Module, x: Tensor, gain: float) -> Tensor:
    """What the module's own code makes of `x` with that gain and without bias; calls no hook."""
    bare: Any = object.__new__(type(module))
    bare.__dict__.update(module.__dict__)
    values = {name: 0.0 if name == _BIAS else gain for name in module._parameters}
    bare.__dict__["_parameters"] = {
        name: None if weight is None else torch.full_like(weight, values[name], device=x.device)
        for name, weight in module._parameters.items()
    }
    result: Tensor = type(module).forward(bare, x)
    return result
