"""Every sampler: what it means, in reading order."""

from dataclasses import dataclass

__all__ = ["SAMPLER_NAMES", "SamplerEntry"]


@dataclass(frozen=True)
class SamplerEntry:
    """What a reader and a run need to know of a sampler before it is made."""

    meaning: str
    """One line."""
    is_silent: bool
    """Whether the latent fires nowhere in the contexts that it gives."""


SAMPLER_NAMES: dict[str, SamplerEntry] = {
    "top": SamplerEntry("The contexts in which the latent fires most strongly.", is_silent=False),
    "uniform": SamplerEntry("Random firings, each as likely as any other.", is_silent=False),
    "quantiles": SamplerEntry(
        "Random contexts from each of several ranges of the strength of firing.",
        is_silent=False,
    ),
    "importance": SamplerEntry(
        "Random contexts, the likelier the more strongly the latent fires there.", is_silent=False
    ),
    "silent": SamplerEntry("Random contexts in which the latent does not fire.", is_silent=True),
    "same_token": SamplerEntry(
        "Silent contexts that hold a token at which the latent typically fires.",
        is_silent=True,
    ),
    "neighbours": SamplerEntry(
        "Silent contexts in which a latent fires that is close by direction or by company.",
        is_silent=True,
    ),
    "similar": SamplerEntry(
        "The silent contexts whose activations are most like those where the latent fires.",
        is_silent=True,
    ),
    "near_misses": SamplerEntry(
        "The silent contexts in which the latent came closest to firing.",
        is_silent=True,
    ),
}
"""By name, as in a suite and in the column `sampler` of the examples."""
