"""The exponential moving average of the weights, which is what a run hands out."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["WeightAverage"]


@dataclass
class WeightAverage:
    """`s_t = d s_{t-1} + (1 - d) w_t` from `s_0 = 0`; the average is `s_t / (1 - d^t)`.

    The division makes the weights of all past steps sum to 1, so the random start does not linger.
    With d = 0 it is the last weights. Source: Gao et al. 2024, appendix A.2 (d = 0.999).
    """

    decay: float
    sums: list[Tensor]
    steps: int = 0

    @classmethod
    def of(cls, tensors: list[Tensor], decay: float) -> "WeightAverage":
        """An average over nothing yet, of the shapes of `tensors`."""
        return cls(decay, [torch.zeros_like(tensor, requires_grad=False) for tensor in tensors])

    @torch.no_grad()
    def observe(self, tensors: list[Tensor]) -> None:
        """Take in the weights after a step."""
        for total, tensor in zip(self.sums, tensors, strict=True):
            total.lerp_(tensor, 1 - self.decay)
        self.steps += 1

    def values(self) -> list[Tensor]:
        """The average after at least one step."""
        if self.steps == 0:
            raise ValueError("the average of no steps does not exist")
        return [total / (1 - self.decay**self.steps) for total in self.sums]
