"""What a dictionary does to its input before it encodes, and undoes on its output."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["InputNormalization", "Statistics"]


class Statistics(NamedTuple):
    """What puts a token's reconstruction back: `x^ = y * std + mean`."""

    mean: Float[Tensor, "token 1"]
    std: Float[Tensor, "token 1"]


@dataclass(frozen=True)
class InputNormalization:
    """What is done to the input first (N), and undone on the output with the same token's statistics.

    | kind          | N(x)                                          | undone by         |
    |---------------|-----------------------------------------------|-------------------|
    | none          | x                                             |                   |
    | layer_norm    | (x - mean) / (std + eps), over d_model, unbiased std | * std + mean (no eps, as the libraries that train them do) |
    | constant_norm | x sqrt(d_model) / ||x||; 0 stays 0            | * ||x|| / sqrt(d_model) |
    | scale         | x * scale, one number for all tokens          | / output_scale    |
    """  # noqa: E501 - a table

    kind: Literal["none", "layer_norm", "constant_norm", "scale"] = "none"
    eps: float = 1e-5
    """Of `layer_norm`."""
    scale: float = 1.0
    """Of `scale`: the input's factor."""
    output_scale: float = 1.0
    """Of `scale`: what the output is divided by; another number than `scale` where a transcoder's two sites
    differ in size."""

    def apply(self, x: Float[Tensor, "token d_model"]) -> tuple[Float[Tensor, "token d_model"], Statistics]:
        """The normalised input, and what `undo` needs (mean 0 and std 1 for `none`)."""
        zero, one = x.new_zeros(x.shape[0], 1), x.new_ones(x.shape[0], 1)
        if self.kind == "none":
            return x, Statistics(zero, one)
        if self.kind == "scale":
            return x * self.scale, Statistics(zero, one / self.output_scale)
        if self.kind == "constant_norm":
            std = x.norm(dim=1, keepdim=True) / math.sqrt(x.shape[1])
            return x / torch.where(std > 0, std, 1.0), Statistics(zero, std)
        mean = x.mean(dim=1, keepdim=True)
        centred = x - mean
        std = centred.norm(dim=1, keepdim=True) / math.sqrt(x.shape[1] - 1)
        return centred / (std + self.eps), Statistics(mean, std)

    def undo(
        self, x_hat: Float[Tensor, "token d_out"], statistics: Statistics
    ) -> Float[Tensor, "token d_out"]:
        """A reconstruction of the normalised input, brought back into the space of the site."""
        return x_hat if self.kind == "none" else x_hat * statistics.std + statistics.mean

    def describe(self) -> str:
        """`none`, `layer_norm`, `constant_norm` or `scale(0.123)`."""
        if self.kind != "scale":
            return self.kind
        if self.scale == self.output_scale:
            return f"scale({self.scale:.4g})"
        return f"scale({self.scale:.4g}, output {self.output_scale:.4g})"
