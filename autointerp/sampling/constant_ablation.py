"""A vector that stands at every token of a site -> the one distribution over next tokens that it leads to.

Between two blocks the residual stream is all that the upper blocks see. If it is the same vector at every
position, attention averages equal values, whatever its weights are, so that the logits depend neither on
the token nor on the position, and a single distribution answers for the whole corpus. That is seen, not
assumed: once per site and vector the rest of the subject runs on a short probe of its own, whose
distributions must agree. They do not where something above the site lets a position or a token in by
another way (attention sinks, which take weight away from the values; recurrent blocks; embeddings that are
added in every block); then, and for places inside a block, whose block keeps its own residual stream, the
subject has to be run on every batch.

The probe's tokens do not come from the corpus, so a resumed run decides as the first one did, and whichever
batch it begins with gives the same numbers.

Cost: one re-entry with at most `PROBE_POSITIONS` tokens per site and vector, whatever the length of the
corpus. Memory: one number per entry of the vocabulary for each of them; while it is looked at,
`PROBE_POSITIONS` times as many, three times over.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.sampling.readings import SiteReading
from autointerp.subject.sites import parse_site
from autointerp.subject.subject_model import SubjectModel

__all__ = [
    "PROBE_POSITIONS",
    "TOLERANCE_NATS",
    "Ablation",
    "ConstantAblation",
    "ConstantAblations",
    "ablation_vector",
]

Ablation = Literal["zero", "mean"]
"""What stands at the site: zeros, or the calibration mean."""

PROBE_POSITIONS = 64
"""Length of the probe, or the subject's context limit where that is shorter."""
TOLERANCE_NATS = 1e-4
"""How far apart the probe's log-probabilities of one token may lie to count as one number.

Measured in float32: at most 3e-6 in ten small families, 1.4e-5 in a trained one with wider logits. Rounding
grows with the logits, and in half precision one step of it is beyond this bound: then every batch is run, as
if there were no shortcut.
"""


@dataclass(frozen=True, eq=False)
class ConstantAblation:
    """What the probe has shown of one site and vector."""

    spread_nats: float | None
    """Largest less smallest log-probability of a token over the positions, for the token where that is
    most; NaN where they are not numbers. None: no probe was run, since the place lies inside a block."""
    log_probabilities: Float[Tensor, " vocabulary"] | None
    """Their mean over the positions; None where the spread is over the tolerance."""

    @property
    def is_constant(self) -> bool:
        """Whether the one distribution stands for passes through the subject."""
        return self.log_probabilities is not None


class ConstantAblations:
    """One subject's ablations that need no pass per batch. Cost and memory: see the module.

    Args:
        subject: the language model, not to be changed from here on.
    """

    def __init__(self, subject: SubjectModel) -> None:
        """Nothing is run yet."""
        self.found: dict[tuple[str, Ablation], ConstantAblation] = {}
        """Which way was taken, by site and ablation, for those that were asked for."""
        self._subject = subject

    def losses(
        self, reading: SiteReading, ablation: Ablation, target: Int[Tensor, " prediction"]
    ) -> Float[Tensor, " prediction"] | None:
        """Cross entropy in nats with the site ablated, at least in float32.

        Args:
            reading: of the site; of its means only the first one that is seen counts.
            ablation: what stands there.
            target: id of the token that followed each place.

        Returns:
            `-log p(target)`, within `TOLERANCE_NATS` of what a pass would give; None: a pass must be run.
        """
        key = (reading.site, ablation)
        if key not in self.found:
            self.found[key] = self._look(reading, ablation)
        log_probabilities = self.found[key].log_probabilities
        return None if log_probabilities is None else -log_probabilities[target]

    def _look(self, reading: SiteReading, ablation: Ablation) -> ConstantAblation:
        if not self._is_between_blocks(reading.site):
            return ConstantAblation(None, None)
        tokens = _probe_tokens(self._subject)
        constant = ablation_vector(reading, ablation).expand(*tokens.shape, -1)
        logits = self._subject.logits_from(reading.site, constant, tokens)[0]
        return _judged(logits)

    def _is_between_blocks(self, name: str) -> bool:
        site = parse_site(name)
        if site.module is not None:
            return self._subject.blocks.is_block(site.module)
        return site.kind in ("resid_pre", "resid_post")


def ablation_vector(reading: SiteReading, ablation: Ablation) -> Float[Tensor, " d_model"]:
    """What stands at every token of the site."""
    return torch.zeros_like(reading.means.raw) if ablation == "zero" else reading.means.raw


def _judged(logits: Float[Tensor, "position vocabulary"]) -> ConstantAblation:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_probabilities = torch.log_softmax(logits.to(dtype), dim=1)
    highest, lowest = log_probabilities.amax(dim=0), log_probabilities.amin(dim=0)
    # A token that is ruled out everywhere (minus infinity twice) agrees with itself.
    spread = float((highest - lowest).masked_fill_(highest.isneginf(), 0.0).max())
    # Written so that NaN is no agreement.
    agrees = spread <= TOLERANCE_NATS
    return ConstantAblation(spread, log_probabilities.mean(dim=0) if agrees else None)


def _probe_tokens(subject: SubjectModel) -> Int[Tensor, "batch position"]:
    """One row of ids spread over the vocabulary, different ones where it has enough."""
    vocabulary_size = subject.vocabulary_size
    length = min(subject.context_limit or PROBE_POSITIONS, PROBE_POSITIONS)
    stride = max(vocabulary_size // length, 1)
    return (torch.arange(length, device=subject.device) * stride % vocabulary_size).unsqueeze(0)
