"""Settings of ablation sparsity."""

from typing import Literal

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["AblationSection"]


class AblationSection(Section):
    """What is ablated, and how far its effect is followed. Used where `metrics.families` has `ablation`."""

    samples: int = Field(default=200, ge=1)
    """Tokens, drawn uniformly from the evaluated text and the same for all checkpoints; of each, every
    checkpoint has one of its active latents ablated. With 200 the standard error of the mean sparsity was
    about a thirtieth of it."""
    horizon: int = Field(default=16, ge=1)
    """T: the ablated token and those after it (Gao et al. 2024, section 4.5). Tokens with fewer than T - 1
    after them in their context are not drawn."""
    subtract_from: Literal["activation", "reconstruction"] = "activation"
    """What the latent's contribution is taken away from; the paper does not say. `activation`: from what the
    model computes itself, so that nothing but the latent changes and all checkpoints, good or bad, are judged
    on the same model. `reconstruction`: the checkpoint's reconstruction stands at the site at all tokens,
    with the latent and without: what somebody sees who runs the model through the checkpoint."""
