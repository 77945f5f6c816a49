"""Settings of ablation sparsity."""

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["AblationSection"]


class AblationSection(Section):
    """What is ablated, and how far its effect is followed. Used where `metrics.families` has `ablation`."""

    samples: int = Field(default=200, ge=1)
    """(context, token, latent) triples of each checkpoint."""
    horizon: int = Field(default=16, ge=1)
    """T: the ablated token and those after it (Gao et al. 2024, section 4.5)."""
