"""A little text, before the pass -> the checkpoints whose numbers would be nonsense, and why they are.

A dictionary on the wrong site, or without the normalisation that it was trained with, loads without a fault
and gives numbers. They are far worse than those of answering the mean, which scores 1: that is asked here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.errors import AutointerpError
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.work import Work
from autointerp.metrics.reconstruction import normalized_mse_terms
from autointerp.run_store import MemoryStore, RunStore
from autointerp.sampling.contexts import TokenBatch
from autointerp.sampling.readings import (
    Checkpoint,
    SiteCalibration,
    SiteMeans,
    SiteReading,
    TokenTable,
)
from autointerp.subject.sites import parse_site

__all__ = ["first_look", "stopped_names"]

_KEY = "checks/first_look"
_SCHEMA = {"checkpoint": pl.String, "reason": pl.String}
_TOKENS = 2048
"""One batch of the default size, whatever a run's is: what a run finds does not depend on that."""
_CLEARLY_BETTER = 0.5
"""Fraction of the normalised MSE below which another site or normalisation is named as a likely one."""


@torch.no_grad()
def first_look(
    work: Work, entries: Sequence[Measurable], calibration: Mapping[str, SiteCalibration]
) -> dict[str, str]:
    """Why checkpoints are stopped, by name: a normalised MSE over `checks.largest_normalized_mse`.

    Looks at the scored tokens at positions >= 1 of the first 2048 tokens of the calibration text. What is
    found is kept, so that a resumed run decides as the first one did. A checkpoint that cannot be run at all
    is left to the pass, which records why. Cost: one pass of the subject over them for each site, and one
    reconstruction each.
    """
    if not work.store.has(_KEY):
        look = _Look(work, calibration)
        found = [(entry.summary.name, look.reason(entry.checkpoint)) for entry in entries]
        rows = [{"checkpoint": name, "reason": reason} for name, reason in found if reason is not None]
        work.store.write(_KEY, pl.DataFrame(rows, schema=_SCHEMA))
    return dict(work.store.read(_KEY).select("checkpoint", "reason").iter_rows())


def stopped_names(store: RunStore | MemoryStore) -> frozenset[str]:
    """The checkpoints that a run's first look stopped; running it again would stop them again."""
    return frozenset(store.read(_KEY)["checkpoint"].to_list()) if store.has(_KEY) else frozenset()


class _Look:
    """The first text, and what its sites look like."""

    def __init__(self, work: Work, calibration: Mapping[str, SiteCalibration]) -> None:
        self._subject = work.subject
        self._calibration = calibration
        self._limit = work.suite.checks.largest_normalized_mse
        token_count = min(_TOKENS, work.suite.corpus.calibration_tokens)
        chunks = work.chunks("calibration", token_count)
        self._batches = [batch.to(work.subject.device) for chunk in chunks for batch in chunk.batches]
        self._places = [_looked_at(batch) for batch in self._batches]
        self._read: dict[str, Float[Tensor, "token d_model"]] = {}

    def reason(self, checkpoint: Checkpoint) -> str | None:
        """Why it must not be measured; None where it may be."""
        mse = self._normalized_mse(checkpoint)
        if mse is None or mse <= self._limit:
            return None
        found = self._explanations(checkpoint, mse)
        causes = (
            f"it would be {', '.join(found)}"
            if found
            else "likely causes: another site or layer than it was trained on, an input normalisation, a "
            "scale or a beginning-of-text token that it was trained with and its file does not mention"
        )
        return (
            f"normalised MSE {mse:.3g} on the first {sum(map(len, self._places))} tokens, where the mean "
            f"as answer has 1 and the limit is {self._limit:g}; {causes}. "
            "To measure it all the same, in another --out: --set checks.largest_normalized_mse=1e9"
        )

    def _explanations(self, checkpoint: Checkpoint, mse: float) -> list[str]:
        """What would be clearly better: another normalisation of the input, a neighbouring layer."""
        tries: list[tuple[str, Checkpoint]] = []
        for kind in ("none", "layer_norm", "constant_norm"):
            if kind != checkpoint.sae.normalization.kind:
                words = "raw inputs" if kind == "none" else f"{kind} inputs"
                sae = replace(checkpoint.sae, normalization=InputNormalization(kind))
                tries.append((f"with {words}", replace(checkpoint, sae=sae)))
        if checkpoint.input_site is None:
            tries += [
                (f"at {site}", replace(checkpoint, site=site)) for site in self._neighbours(checkpoint.site)
            ]
        found = [(self._normalized_mse(other), words) for words, other in tries]
        better = sorted(
            (value, words) for value, words in found if value is not None and value < _CLEARLY_BETTER * mse
        )
        return [f"{value:.3g} {words}" for value, words in better if value < 1]

    def _neighbours(self, name: str) -> list[str]:
        site = parse_site(name)
        if site.layer is None:
            return []
        layers = (site.layer - 1, site.layer + 1)
        return [
            name.replace(f"blocks.{site.layer}.", f"blocks.{layer}.")
            for layer in layers
            if 0 <= layer < self._subject.layer_count
        ]

    def _normalized_mse(self, checkpoint: Checkpoint) -> float | None:
        """Of that text, about its own mean where the site was not calibrated; None if it cannot be had."""
        try:
            x = self._activations(checkpoint.site)
            x_hat, _ = checkpoint.sae.reconstruct_sparse(self._activations(checkpoint.reads))
            terms = normalized_mse_terms(self._reading(checkpoint.site, x), x_hat.to(x))
        except (AutointerpError, ValueError, RuntimeError):
            return None
        value = float(terms.numerator.double().sum() / terms.denominator.double().sum())
        return value if math.isfinite(value) else None  # what is no number is left to the pass

    def _reading(self, site: str, x: Float[Tensor, "token d_model"]) -> SiteReading:
        known = self._calibration.get(site)
        if known is not None:
            return SiteReading(site, x, SiteMeans(known.mean.to(x), known.unit_mean.to(x)))
        centred = x - x.mean(dim=1, keepdim=True)
        unit = torch.nn.functional.normalize(centred, dim=1)
        return SiteReading(site, x, SiteMeans(x.mean(dim=0), unit.mean(dim=0)))

    def _activations(self, site: str) -> Float[Tensor, "token d_model"]:
        if site not in self._read:
            grids = [
                self._subject.read(batch.tokens, [site], batch.attention_mask)[site]
                for batch in self._batches
            ]
            flat = [
                grid.to(self._subject.device).reshape(-1, grid.shape[-1])[places]
                for grid, places in zip(grids, self._places, strict=True)
            ]
            x = torch.cat(flat)
            self._read[site] = x.to(torch.promote_types(x.dtype, torch.float32))
        return self._read[site]


def _looked_at(batch: TokenBatch) -> Int[Tensor, " token"]:
    """Places of the scored tokens at positions >= 1 in the flattened batch."""
    table = TokenTable.of(batch)
    return table.flat_index[table.is_scored & (table.position >= 1)]
