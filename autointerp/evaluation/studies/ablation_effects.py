"""Vectors to be subtracted at some tokens -> what that does to the subject's logits, summed over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.metrics.ablation_sparsity import TokenEffects, kl_nats, token_effects
from autointerp.subject.continued_pass import ContinuedPass, KeptContexts, Starts
from autointerp.subject.direct_path import writes_to_stream
from autointerp.subject.sites import block_site_name, parse_site
from autointerp.subject.subject_model import SubjectModel

__all__ = ["AblationEffects", "Ablator"]

_LOGITS = 1 << 24
"""Numbers of logits held at a time; so many that the unembedding is used well, so few that memory is not."""


@dataclass(frozen=True, eq=False)
class AblationEffects:
    """Of each row, token by token; see `metrics.ablation_sparsity`."""

    total: TokenEffects
    kl: Float[np.ndarray, "row step"]
    direct: TokenEffects | None
    """At the ablated token alone; None where there is no direct path."""
    mediated: TokenEffects | None
    """At the ablated token: the total less the direct change. Behind it all is mediated."""
    vocabulary_size: int
    """V: logits that are finite before anything is subtracted."""

    def only(self, rows: np.ndarray) -> "AblationEffects":
        """Some of the rows, by a mask."""
        direct, mediated = (
            None if part is None else part.only(rows) for part in (self.direct, self.mediated)
        )
        return AblationEffects(self.total.only(rows), self.kl[rows], direct, mediated, self.vocabulary_size)


class Ablator:
    """Subtracts at one token of a context, many times over, and follows what that does."""

    def __init__(self, subject: SubjectModel, sites: Sequence[str], *, horizon: int) -> None:
        """Nothing is run yet.

        Args:
            subject: the language model.
            sites: that will be read or changed.
            horizon: T, tokens that an ablation is followed over, the ablated one included.

        Raises:
            SiteError: the subject has no such site.
        """
        self._subject, self._horizon = subject, horizon
        self._last = block_site_name(subject.layer_count - 1, "resid_post")
        self.passes = ContinuedPass(subject, [*sites, self._last])

    def no_direct_path(self, site: str) -> str:
        """Why nothing can be told of what goes from a site straight to the logits; empty where it can."""
        if not writes_to_stream(self._subject, site):
            return "vectors at this site are not added to the residual stream"
        kind = parse_site(self._subject.canonical_site(site)).kind
        factor = getattr(self._subject.model.config.get_text_config(), "residual_multiplier", None)
        if kind in ("attn_out", "mlp_out") and factor not in (None, 1, 1.0):
            return "this model adds its branches to the residual stream times a constant"
        return ""

    def reach(self, site: str) -> int:
        """How many tokens something changed there can change: behind the last block only its own."""
        is_last = self._subject.reentry.first_block(self._subject.places.checked(site)) == (
            self._subject.layer_count
        )
        return 1 if is_last else self._horizon

    @torch.no_grad()
    def effects(
        self,
        kept: KeptContexts,
        site: str,
        starts: Starts,
        vectors: Float[Tensor, "row width"],
    ) -> AblationEffects:
        """What subtracting each row's vector from what stands at its start does.

        The logits before come from the same batch as those after, so that what cannot change does not seem
        to by rounding. Cost and memory: of `ContinuedPass.logits`, for all rows and one more for each start
        and batch; logits of about 16 million numbers are held at a time.

        Args:
            kept: contexts, from `passes.keep`.
            site: where.
            starts: the ablated token of each row; rows of one token lie side by side.
            vectors: what is subtracted.
        """
        has_direct = not self.no_direct_path(site)
        most = max(1, _LOGITS // (self._subject.vocabulary_size * self.reach(site)))
        parts = [
            self._part(kept, site, starts.part(slice(begin, begin + most)), vectors[begin : begin + most])
            for begin in range(0, len(vectors), most)
        ]
        return AblationEffects(
            _joined([part.total for part in parts]).lengthened(self._horizon),
            np.pad(
                np.concatenate([part.kl for part in parts]), ((0, 0), (0, self._horizon - self.reach(site)))
            ),
            _joined([part.direct for part in parts if part.direct is not None]) if has_direct else None,
            _joined([part.mediated for part in parts if part.mediated is not None]) if has_direct else None,
            parts[0].vocabulary_size,
        )

    def _part(self, kept: KeptContexts, site: str, starts: Starts, vectors: Tensor) -> AblationEffects:
        change, before, counts = self._change(kept, site, starts, vectors, self.reach(site))
        usable = before.isfinite().flatten(0, 1).all(dim=0)  # some models rule tokens out
        if not bool(usable.all()):
            change, before = change[..., usable], before[..., usable]
        kl = [kl_nats(logits, rows) for logits, rows in zip(before, change.split(counts), strict=True)]
        direct = mediated = None
        if not self.no_direct_path(site):
            straight = change[:, :1]
            if site != self._last:
                straight = self._change(kept, self._last, starts, vectors, 1)[0][..., usable]
            direct, mediated = token_effects(straight), token_effects(change[:, :1] - straight)
        return AblationEffects(token_effects(change), np.concatenate(kl), direct, mediated, int(usable.sum()))

    def _change(
        self, kept: KeptContexts, site: str, starts: Starts, vectors: Tensor, length: int
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Of the logits by row; the logits before by start; how many rows each start has."""
        first, counts = _runs(starts)
        own = starts.part(first)
        all_starts = Starts(*(torch.cat(pair) for pair in zip(own, starts, strict=True)))
        stands = all_starts.of(kept.activations[site], 1)[:, 0].float()
        stands[len(first) :] -= vectors.to(stands)
        logits = self.passes.logits(kept, site, all_starts, stands, length=length).float()
        before, after = logits[: len(first)], logits[len(first) :]
        for logits_before, rows in zip(before, after.split(counts), strict=True):
            rows -= logits_before  # noqa: PLW2901 - in place, a view of `after`
        return after, before, counts


def _runs(starts: Starts) -> tuple[Int[Tensor, " start"], list[int]]:
    """The first row of each run of rows that begin at the same place, and the runs' lengths."""
    both = torch.stack(list(starts), dim=1)
    _, counts = torch.unique_consecutive(both, dim=0, return_counts=True)
    return counts.cumsum(0) - counts, counts.tolist()


def _joined(parts: Sequence[TokenEffects]) -> TokenEffects:
    return TokenEffects(
        np.concatenate([part.absolute for part in parts]), np.concatenate([part.squared for part in parts])
    )
