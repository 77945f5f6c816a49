"""What fires, as compressed rows: the result of encoding without a dense array."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["SparseLatents"]


@dataclass(frozen=True, eq=False)
class SparseLatents:
    """What fires, in compressed rows: the latents of token t lie at `offsets[t]:offsets[t + 1]`.

    Within a token the latent indices ascend. No value is exactly zero. Memory: 12 bytes per firing latent
    (float32) + 8 per token.
    """

    indices: Int[Tensor, " active"]
    values: Float[Tensor, " active"]
    offsets: Int[Tensor, " token_and_end"]
    latent_count: int

    @property
    def token_count(self) -> int:
        """Number of tokens, silent ones included."""
        return self.offsets.shape[0] - 1

    def active_count_per_token(self) -> Int[Tensor, " token"]:
        """How many latents fire on each token (its L0)."""
        return self.offsets.diff()

    def token_indices(self) -> Int[Tensor, " active"]:
        """The token of each entry of `indices`."""
        tokens = torch.arange(self.token_count, device=self.indices.device)
        return tokens.repeat_interleave(self.active_count_per_token(), output_size=self.indices.shape[0])

    def dense(self) -> Float[Tensor, "token latent"]:
        """The same latents as a dense array: for tests and small inputs."""
        z = self.values.new_zeros(self.token_count, self.latent_count)
        return z.index_put_((self.token_indices(), self.indices), self.values)
