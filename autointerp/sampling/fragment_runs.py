"""Runs short token sequences, each once for all latents and checkpoints that ask, and keeps their last token.

What a dictionary says of a fragment's last token depends on what stands at its site there, which is the same
for all of its latents and for all dictionaries on that site. So fragments that are asked for several times
are run once, up to the deepest site that is asked for, in batches of equal length, without padding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.checkpoints.activation_functions import Gated, Identity, JumpReLU, ReLU
from autointerp.checkpoints.topk_functions import AbsTopK, GroupMax, TopK
from autointerp.sampling.readings import Checkpoint
from autointerp.subject.subject_model import SubjectModel

__all__ = ["Ask", "FragmentRuns", "RunCounts"]

_ALONE = (ReLU, Identity, JumpReLU, Gated)
"""Functions of which a latent depends on its own pre-activation only."""
_CHOOSING = (TopK, AbsTopK, GroupMax)
"""Functions that leave a pre-activation p as it is, or max(p, 0), or make it 0."""


class Ask(NamedTuple):
    """What is asked: the strength of a latent on the last token of a fragment."""

    fragment: tuple[int, ...]
    """Ids; what stands in front of every fragment is not among them."""
    dictionary: str
    latent: int
    sign: int = 1
    """-1 of a latent whose negative activations are its strength."""
    least: float = 0.0
    """Whoever asks need not know a strength below this; it may come back as 0."""


@dataclass(frozen=True)
class RunCounts:
    """What was asked, and what of it was run."""

    asked: int = 0
    """Pairs of fragment and latent."""
    fragments: int = 0
    """Fragments that were run."""
    tokens: int = 0
    """Of these, with what stands in front."""
    encoded: int = 0
    """Vectors of which a dictionary needed all pre-activations."""

    def plus(self, **more: int) -> "RunCounts":
        """With more of each."""
        return replace(self, **{name: getattr(self, name) + count for name, count in more.items()})


class FragmentRuns:
    """A subject with its dictionaries. One call at a time, as the subject has it."""

    def __init__(
        self,
        subject: SubjectModel,
        checkpoints: Mapping[str, Checkpoint],
        *,
        front: Sequence[int] = (),
        batch_tokens: int = 4096,
        is_shared: bool = True,
    ) -> None:
        """Nothing is run yet.

        Args:
            subject: the language model.
            checkpoints: dictionaries by name, on the subject's device.
            front: ids that stand before every fragment, such as BOS.
            batch_tokens: positions run at once.
            is_shared: whether equal fragments are run once; only a measurement of what that saves says no.
        """
        self._subject, self._checkpoints = subject, dict(checkpoints)
        self._front, self._batch_tokens, self._is_shared = tuple(front), batch_tokens, is_shared
        self.counts = RunCounts()

    @torch.no_grad()
    def strengths(self, asks: Sequence[Ask]) -> Float[np.ndarray, " ask"]:
        """The strength sign * z of each ask's latent on the last token of its fragment.

        What is returned does not depend on the order of the asks. Memory: one batch, and 8 bytes per ask.
        """
        found = np.zeros(len(asks))
        batches = list(self._batches(asks))
        for fragments, rows, sites in batches:
            read = self._read(fragments, sites)
            owners: dict[str, list[tuple[int, int]]] = {}
            for row, own in enumerate(rows):
                for place in own:
                    owners.setdefault(asks[place].dictionary, []).append((row, place))
            for name, pairs in owners.items():
                row, place = (list(part) for part in zip(*pairs, strict=True))
                x = read[self._checkpoints[name].reads]
                found[place] = self._values(name, x, row, [asks[each] for each in place])
        self.counts = self.counts.plus(asked=len(asks))
        return found

    def _batches(
        self, asks: Sequence[Ask]
    ) -> Iterator[tuple[list[tuple[int, ...]], list[list[int]], tuple[str, ...]]]:
        """Fragments of equal length with the asks about each, and the sites at which they are asked about."""
        askers: dict[Any, list[int]] = {}
        for place, ask in enumerate(asks):
            askers.setdefault(ask.fragment if self._is_shared else (ask.fragment, place), []).append(place)
        groups: dict[tuple[int, tuple[str, ...]], list[tuple[tuple[int, ...], list[int]]]] = {}
        for places in askers.values():
            fragment = asks[places[0]].fragment
            reads = {self._checkpoints[asks[place].dictionary].reads for place in places}
            groups.setdefault((len(fragment), tuple(sorted(reads))), []).append((fragment, places))
        for length, sites in sorted(groups):
            group = groups[length, sites]
            step = max(1, self._batch_tokens // (length + len(self._front)))
            for start in range(0, len(group), step):
                fragments, rows = zip(*group[start : start + step], strict=True)
                yield list(fragments), list(rows), sites

    def _read(
        self, fragments: Sequence[tuple[int, ...]], sites: tuple[str, ...]
    ) -> dict[str, Float[Tensor, "fragment d_model"]]:
        tokens = torch.from_numpy(np.array(fragments, dtype=np.int64).reshape(len(fragments), -1))
        front = torch.tensor(self._front, dtype=torch.int64).expand(len(fragments), -1)
        tokens = torch.cat([front, tokens], dim=1)
        self.counts = self.counts.plus(fragments=len(fragments), tokens=tokens.numel())
        read = self._subject.read(tokens, list(sites))
        return {site: _at_least_float32(x[:, -1]).to(self._subject.device) for site, x in read.items()}

    def _values(
        self, name: str, x: Float[Tensor, "fragment d_model"], rows: list[int], asks: Sequence[Ask]
    ) -> Float[np.ndarray, " ask"]:
        """The strengths of pairs of a row of `x` and a latent."""
        sae = self._checkpoints[name].sae
        signs = np.array([ask.sign for ask in asks], dtype=np.float64)
        latents = np.array([ask.latent for ask in asks])
        row = np.array(rows)
        if not isinstance(sae.activation, (*_ALONE, *_CHOOSING)):
            return signs * self._encoded(name, x, row, latents)
        chosen, column = np.unique(latents, return_inverse=True)
        wanted = torch.from_numpy(chosen).to(sae.device)
        used, own = np.unique(row, return_inverse=True)
        pre = sae.pre_activations_of(x[torch.from_numpy(used).to(x.device)], wanted)
        if isinstance(sae.activation, _ALONE):
            parts = {key: part[wanted.to(part.device)] for key, part in sae.activation.tensors().items()}
            z = (replace(sae.activation, **parts) if parts else sae.activation)(pre)
            return signs * _numbers(z)[own, column]
        # Whatever is chosen, the strength is the pre-activation's or 0: only where it could be large enough
        # does it matter which, and only there all latents are looked at.
        strength = signs * _numbers(pre)[own, column]
        least = np.array([ask.least for ask in asks])
        open_ = np.flatnonzero((strength > 0) & (strength >= least))
        found = np.zeros(len(asks))
        if len(open_):
            found[open_] = signs[open_] * self._encoded(name, x, row[open_], latents[open_])
        return found

    def _encoded(
        self,
        name: str,
        x: Float[Tensor, "fragment d_model"],
        row: Int[np.ndarray, " ask"],
        latents: Int[np.ndarray, " ask"],
    ) -> Float[np.ndarray, " ask"]:
        """Activations by encoding each row that is asked about."""
        sae = self._checkpoints[name].sae
        used, own = np.unique(row, return_inverse=True)
        fired = sae.encode_sparse(x[torch.from_numpy(used).to(x.device)])
        self.counts = self.counts.plus(encoded=len(used))
        key = fired.token_indices().cpu().numpy() * fired.latent_count + fired.indices.cpu().numpy()
        asked = own * fired.latent_count + latents
        if not len(key):
            return np.zeros(len(asked))
        place = np.minimum(np.searchsorted(key, asked), len(key) - 1)
        return np.where(key[place] == asked, _numbers(fired.values)[place], 0.0)


def _at_least_float32(x: Float[Tensor, "fragment d_model"]) -> Float[Tensor, "fragment d_model"]:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _numbers(values: Float[Tensor, "..."]) -> Float[np.ndarray, "..."]:
    return values.double().cpu().numpy()
