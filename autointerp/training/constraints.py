"""Keeps decoder rows at unit norm: the gradient loses what would only lengthen a row, rows are rescaled."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["project_out_rows", "rescale_to_unit_rows"]


@torch.no_grad()
def project_out_rows(
    gradient: Float[Tensor, "latent d_model"], rows: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "latent d_model"]:
    """`g_i - <g_i, w_i> w_i` for unit rows w_i: the gradient along the sphere. Returns a new tensor.

    Without it Adam's moments fill with a component that the rescaling undoes at every step.
    """
    parallel = (gradient * rows).sum(dim=1, keepdim=True)
    return gradient - parallel * rows


@torch.no_grad()
def rescale_to_unit_rows(rows: Float[Tensor, "latent d_model"]) -> None:
    """Divide each row by its norm, in place; a row of zeros stays one."""
    rows.copy_(functional.normalize(rows, dim=1))
