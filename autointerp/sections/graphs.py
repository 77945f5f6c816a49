"""Settings of Neuron-to-Graph."""

from typing import Literal

from pydantic import Field

from autointerp.sections.section import Section

__all__ = ["GraphSection"]


class GraphSection(Section):
    """How graphs are built and scored. Used where `metrics.families` has `n2g`; needs `[sampling]`.

    Defaults are those of the code that Gao et al. 2024 released, except `front`, `filler` and
    `prefix_tokens`.
    """

    latent_count: int | None = Field(default=None, ge=1)
    """Of each checkpoint's sampled latents, at most, the same that are explained; default: all."""
    graph_examples: int = Field(default=16, ge=1)
    """Random activations from which a graph is built (Gao et al. 2024, section 4.3); no more than
    `sampling.examples`."""
    recall_sequences: int = Field(default=16, ge=1)
    """Random activations of scored text on which recall is measured (section 4.3), at most."""
    precision_sequences: int | None = Field(default=None, ge=1)
    """Random places of scored text at which the graph fires, for precision. The paper does not say how many;
    default: all, which costs nothing here, as the true activation of every place is known."""
    fire_threshold: float = Field(default=0.0, ge=0)
    """A latent fires where its |activation| is above this."""
    suffix_share: float = Field(default=0.5, gt=0, le=1)
    """A suffix is long enough when the latent reaches this share of its activation on it."""
    saliency_threshold: float = Field(default=0.5, gt=0, le=1)
    """Tokens of smaller saliency become wildcards. Foote et al. 2023 have 0.75."""
    match: Literal["first", "longest"] = "first"
    """Which path counts where several end on the way back from a token: the shortest, as in the paper's code,
    or the longest, as in Foote et al. 2023."""
    filler: str | None = None
    """Text of the token that stands for no token in particular; the paper has GPT-2's ` _`. Default: the
    token of ` _` where the subject has it, else the most common token of the text."""
    fillers: int = Field(default=1, ge=1)
    """How many fillers a saliency is the mean over (mean ablation): beyond the first, tokens drawn from the
    text as often as they occur. The paper has one."""
    front: Literal["kept", "bare"] = "kept"
    """Whether what stands before the text in every context (BOS, a chat template's head) stands before
    fragments, too. The paper's code runs them bare, which dictionaries that were trained with BOS never saw:
    the first token's activation is unlike all others."""
    prefix_tokens: int = Field(default=16, ge=1)
    """How far back a path can reach, in tokens. An activation that needs more gives no path. The paper has
    its contexts' 64; on the embedded suite 16 changes no score by .001 and takes a fifth of the time."""
    reconstruction: Literal["none", "first", "all"] | tuple[str, ...] = "none"
    """Of which checkpoints all latents are simulated and their reconstruction is put into the subject
    (section 4.4): `first` of the suite, `all`, or those named."""
    reconstruction_paths: int = Field(default=4, ge=1)
    """Random activations from which each latent's graph is built there. The paper has 16."""
    reconstruction_tokens: int = Field(default=16_384, ge=1)
    """Of scored text, about so many, on which the loss is measured."""
