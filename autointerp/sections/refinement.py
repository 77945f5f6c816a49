"""Settings of refined activations."""

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["RefinementSection"]


class RefinementSection(Section):
    """How activations are refined. Used where `metrics.families` has `refinement`."""

    tokens: int = Field(default=8192, ge=1)
    """How many tokens of the evaluated text, at most. The shifts that refinement shows are large beside their
    spread over documents: on the embedded subject 8192 tokens tell a gain in normalised MSE to a tenth."""
    tolerance: float = Field(default=1e-6, gt=0, lt=1)
    """When a token is done: no active direction has an inner product with what is left of the error above
    this share of the activation's length (its distance to the decoder's bias); at zero only growth counts."""
    rounds: int = Field(default=50, ge=1)
    """Of projected gradient steps and conjugate gradients, at most. A token that needs more keeps the best
    values found, and `refinement.unsolved_fraction` counts it."""
