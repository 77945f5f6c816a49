"""Counts, per latent, the tokens since it last fired."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

__all__ = ["SilenceCounter"]


@dataclass
class SilenceCounter:
    """How long each latent has been silent. A latent fires when its value after the activation is above 0.

    Only the main reconstruction counts: neither the AuxK term, which uses dead latents on purpose, nor the
    larger k of a Multi-TopK term revives anybody.
    """

    tokens_since_fired: Int[Tensor, " latent"]

    @classmethod
    def new(cls, latent_count: int, device: torch.device | str = "cpu") -> "SilenceCounter":
        """Nobody has been silent yet."""
        return cls(torch.zeros(latent_count, dtype=torch.int64, device=device))

    def observe(self, fired: Bool[Tensor, " latent"], token_count: int) -> None:
        """Take in a batch: who fired on any of its tokens starts again at 0, the others get older."""
        self.tokens_since_fired += token_count
        self.tokens_since_fired[fired] = 0

    def dead(self, threshold: int) -> Bool[Tensor, " latent"]:
        """Who has not fired on the last `threshold` tokens."""
        return self.tokens_since_fired >= threshold
