"""Settings of refined activations."""

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["RefinementSection"]


class RefinementSection(Section):
    """How activations are refined. Used where `metrics.families` has `refinement`."""

    tokens: int = Field(default=8192, ge=1)
    """How many tokens of the evaluated text, at most."""
    steps: int = Field(default=100, ge=1)
    """Of projected gradient descent."""
