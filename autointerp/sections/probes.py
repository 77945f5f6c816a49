"""Settings of probe loss and of known features."""

from typing import Literal

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["PROBE_SETS", "ProbeSection"]

PROBE_SETS = ("stdlib", "gao61")
"""Sets of tasks that ship with the package."""


class ProbeSection(Section):
    """Which tasks are probed, and how. Used where `metrics.families` has `probe`."""

    tasks: tuple[str, ...] = Field(default=("stdlib",), min_length=1)
    """Sets (`stdlib`, `gao61`), single tasks (`stdlib/in_docstring`), or folders of your own with `task.toml`
    and `examples.jsonl`."""
    examples: int = Field(default=1000, ge=20)
    """Of each task, at most; as many of either label."""
    values: Literal["pre_activations", "activations"] = "pre_activations"
    """What probes read of a latent. Before the activation function every latent says something of every token
    (Gao et al. 2024, section 4.2); after it most are 0. Known features always read activations."""
    inverse_penalty: float = Field(default=1.0, gt=0)
    """C of scikit-learn's LogisticRegression: the penalty on the mean loss is |w|^2 / (2 C n), with z
    standardised on the n train examples. The same for all probes."""
    sparse_counts: tuple[int, ...] = (1, 2, 5, 16, 128)
    """Numbers k of latents that are probed together: those whose class means differ most on train, in units
    of their own standard deviation (after Gurnee et al. 2023 and SAEBench)."""
