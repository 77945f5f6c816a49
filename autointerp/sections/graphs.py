"""Settings of Neuron-to-Graph."""

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["GraphSection"]


class GraphSection(Section):
    """How graphs are built and scored. Used where `metrics.families` has `n2g`."""

    latent_count: int | None = Field(default=None, ge=1)
    """Of each checkpoint's sampled latents, at most; default: all."""
    graph_examples: int = Field(default=16, ge=1)
    """Random activations from which a graph is built (Gao et al. 2024, section 4.3)."""
