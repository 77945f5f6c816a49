"""Goes on from one position of a context, with another vector there, and runs nothing that lies before it.

What stands before a position reaches what stands at it and behind it through the keys and values of the
blocks alone. They are kept from one pass over the contexts, which all continuations share; so a continuation
runs only the changed position and some behind it, and only through the blocks above the site.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.subject.attaching import keeper, reading, replacing
from autointerp.subject.hooks import StopReadingError, on_input, on_output
from autointerp.subject.subject_model import SubjectModel

__all__ = ["ContinuedPass", "KeptContexts", "Starts"]

TOLERANCE = 1e-4
"""By how much logits of a continuation may differ from those of a whole pass, in units of their spread."""
_ROUNDING_STEPS = 8
"""The same in machine epsilons, where the subject computes in half precision."""
_TRIED_ROWS = 8
_FAULTS = (LookupError, AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError)
"""What a model may raise that keeps something else than keys and values, or nothing."""


class Starts(NamedTuple):
    """Where continuations begin."""

    context: Int[Tensor, " row"]
    """Place of the context in the batch that was kept."""
    position: Int[Tensor, " row"]

    def part(self, rows: slice | Int[Tensor, " part"]) -> "Starts":
        """Some of the rows."""
        return Starts(self.context[rows], self.position[rows])

    def of(
        self, grid: Float[Tensor, "batch position width"] | Int[Tensor, "batch position"], length: int
    ) -> Float[Tensor, "row step width"] | Int[Tensor, "row step"]:
        """What stands in a grid at the positions from each start on."""
        context, position = self.context.to(grid.device), self.position.to(grid.device)
        return grid[context[:, None], position[:, None] + torch.arange(length, device=grid.device)]


class _LayerCache(NamedTuple):
    """What a block's attention kept of the contexts."""

    keys: Float[Tensor, "batch head position width"]
    values: Float[Tensor, "batch head position _"]


@dataclass(frozen=True, eq=False)
class KeptContexts:
    """One pass over some contexts: what continuing from any of their positions needs."""

    tokens: Int[Tensor, "batch position"]
    attention_mask: Bool[Tensor, "batch position"] | None
    activations: Mapping[str, Float[Tensor, "batch position _"]]
    """What stood at the sites, by name."""
    block_inputs: Mapping[int, Float[Tensor, "batch position d_model"]] = field(default_factory=dict)
    """What went into the blocks that hold sites."""
    cache: tuple[_LayerCache, ...] = ()
    """By block; empty where the model keeps something else."""


class ContinuedPass:
    """Continuations from some sites of one subject. One call at a time, as the subject has it.

    Whether a subject can go on from kept keys and values is tried, not looked up: of the first continuations
    from each site, the logits must be those of passes over whole contexts to 1e-4 of their spread. Where they
    are not, or where the model keeps something else (state-space models), whole contexts are run from the
    site on, which is slower and gives the same numbers; `why_whole` then says why.
    """

    def __init__(self, subject: SubjectModel, sites: Sequence[str]) -> None:
        """Nothing is run yet.

        Raises:
            SiteError: the subject has no such site.
        """
        self._subject = subject
        self._sites = {name: subject.places.checked(name) for name in sites}
        self._takes_positions = "position_ids" in inspect.signature(subject.model.forward).parameters
        self.why_whole: dict[str, str] = {}
        """By site, once tried: why whole contexts are run; empty where they are not."""
        self.differences: dict[str, float] = {}
        """By site: how far the tried continuations were from whole passes, in units of the logits' spread."""
        for name, site in self._sites.items():
            if subject.reentry.first_block(site) is None:
                self.why_whole[name] = "it lies outside the blocks"

    # ---- keeping ------------------------------------------------------------------------------------

    @torch.no_grad()
    def keep(
        self,
        tokens: Int[Tensor, "batch position"],
        attention_mask: Bool[Tensor, "batch position"] | None = None,
        *,
        put: tuple[str, Float[Tensor, "batch position _"]] | None = None,
    ) -> KeptContexts:
        """Run the contexts once, without their logits.

        Cost: one pass through all blocks. Memory: keys and values of all blocks at all positions, and the
        activations at the sites.

        Args:
            tokens: ids, padded on the right.
            attention_mask: true where there is a token; None when there is no padding.
            put: a site, and what stands there at all positions instead of what the model computes.
        """
        tokens = tokens.to(self._subject.device)
        mask = None
        if attention_mask is not None and not bool(attention_mask.all()):
            mask = attention_mask.to(self._subject.device)
        cached = not all(self.why_whole.get(name) for name in self._sites)
        if cached:
            with suppress(*_FAULTS):
                return self._kept(tokens, mask, put, cached=True)
            for name in self._sites:
                self.why_whole.setdefault(name, "the model keeps no keys and values that can be gone on from")
        return self._kept(tokens, mask, put, cached=False)

    def _kept(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        put: tuple[str, Tensor] | None,
        *,
        cached: bool,
    ) -> KeptContexts:
        subject = self._subject
        places, blocks = subject.places, subject.blocks
        activations: dict[Any, Tensor] = {}
        block_inputs: dict[Any, Tensor] = {}
        layers = {places.inner_layer(site) for site in self._sites.values()} - {None}
        are_inside = all(subject.reentry.first_block(site) is not None for site in self._sites.values())
        cache = _empty_cache() if cached else None
        with ExitStack() as stack:
            if put is not None:  # first, so that what is read behind it is what it led to
                stack.enter_context(replacing(places, blocks, self._sites[put[0]], put[1]))
            for name, site in self._sites.items():
                stack.enter_context(reading(places, site, keeper(activations, name, tokens)))
            for layer in layers:
                keep = keeper(block_inputs, layer, tokens)
                stack.enter_context(on_input(blocks.modules[layer or 0], keep))
            if are_inside:
                stack.enter_context(on_output(blocks.modules[-1], _stop))
            with suppress(StopReadingError):
                self._run(tokens, mask, cache)
        if put is not None:
            activations[put[0]] = put[1].to(activations[put[0]])
        kept = () if cache is None else self._layers(cache, tokens)
        return KeptContexts(tokens, mask, activations, block_inputs, kept)

    def _layers(self, cache: Any, tokens: Tensor) -> tuple[_LayerCache, ...]:
        """The keys and values of all blocks; of those that are never run again those of one token only.

        Raises:
            ValueError: some block kept something else.
        """
        firsts = [self._subject.reentry.first_block(site) for site in self._sites.values()]
        lowest = min(first for first in firsts if first is not None)
        found = []
        for number, layer in enumerate(cache.layers):
            for each in (layer.keys, layer.values):
                if each.ndim != 4 or (each.shape[0], each.shape[2]) != tuple(tokens.shape):
                    raise ValueError("not one key and value for each token")
            part = slice(None) if number >= lowest else slice(1)
            found.append(_LayerCache(layer.keys[part, :, part].clone(), layer.values[part, :, part].clone()))
        if len(found) != self._subject.layer_count:
            raise ValueError(f"{len(found)} layers were kept of {self._subject.layer_count}")
        return tuple(found)

    # ---- continuing ---------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(
        self,
        kept: KeptContexts,
        site: str,
        starts: Starts,
        vectors: Float[Tensor, "row width"],
        *,
        length: int,
    ) -> Float[Tensor, "row step vocabulary"]:
        """The logits at each start and the `length - 1` positions behind it.

        At the site stands `vectors` at the start, and behind it what stood there in the kept pass (which for
        places before a block's attention is what it would have been as well).

        Cost: `length` positions a row, through the blocks above the site and the unembedding. Memory: the
        result, and the rows' keys and values.

        Args:
            kept: from `keep`.
            site: one of the sites.
            starts: where each row begins; `position + length` lies within its context.
            vectors: what stands there.
            length: how many positions are run.
        """
        if self.why_whole.get(site):
            return self._whole(kept, site, starts, vectors, length)
        if site not in self.why_whole:
            tried = torch.linspace(0, len(vectors) - 1, min(_TRIED_ROWS, len(vectors))).round().long()
            self._try(kept, site, starts.part(tried), vectors[tried.to(vectors.device)], length)
            return self.logits(kept, site, starts, vectors, length=length)
        return self._continued(kept, site, starts, vectors, length)

    def _try(self, kept: KeptContexts, site: str, starts: Starts, vectors: Tensor, length: int) -> None:
        expected = self._whole(kept, site, starts, vectors, length).float()
        try:
            found = self._continued(kept, site, starts, vectors, length).float()
        except _FAULTS as error:
            self.why_whole[site] = f"going on from keys and values raised {type(error).__name__}"
            return
        usable = expected.isfinite()  # some models rule tokens out
        spread = float(expected[usable].std()) if int(usable.sum()) > 1 else 0.0
        largest = float((found - expected)[usable].abs().max()) if bool(usable.any()) else 0.0
        bound = max(TOLERANCE, _ROUNDING_STEPS * torch.finfo(self._subject.dtype).eps)
        self.differences[site] = largest / spread if spread > 0 else 0.0
        is_same = largest <= bound * spread and bool((found.isfinite() == usable).all())
        self.why_whole[site] = "" if is_same else "going on from keys and values gave other logits"

    def _continued(
        self, kept: KeptContexts, site: str, starts: Starts, vectors: Tensor, length: int
    ) -> Float[Tensor, "row step vocabulary"]:
        subject, place = self._subject, self._sites[site]
        first = subject.reentry.first_block(place) or 0
        prefix = int(starts.position.max())
        # Prefixes are padded on the left, as for generating: so distances between positions stay right for
        # whatever reads them off the cache (sliding windows, ALiBi).
        index = starts.position[:, None] - prefix + torch.arange(prefix, device=starts.position.device)
        mask = None
        if bool((index < 0).any()):
            own = torch.ones(len(index), length, dtype=torch.bool, device=index.device)
            mask = torch.cat([index >= 0, own], dim=1).to(subject.device)
        cache = _empty_cache()
        for layer, of_layer in enumerate(kept.cache if prefix else ()):
            rows = [_prefix(each, starts, index, is_used=layer >= first) for each in of_layer]
            cache.update(*rows, layer)
        tokens = starts.of(kept.tokens, length)
        positions = starts.position[:, None] + torch.arange(length, device=starts.position.device)
        inputs = {layer: starts.of(given, length) for layer, given in kept.block_inputs.items()}
        stands = _with_first(starts.of(kept.activations[site], length), vectors)
        below = subject.reentry.skipping_below(place, inputs)
        with below, replacing(subject.places, subject.blocks, place, stands):
            return self._run(tokens, mask, cache, positions.to(subject.device))

    def _whole(
        self, kept: KeptContexts, site: str, starts: Starts, vectors: Tensor, length: int
    ) -> Float[Tensor, "row step vocabulary"]:
        """The same by running whole contexts, up to the last position that is asked for."""
        end = int(starts.position.max()) + length
        context = starts.context.to(kept.tokens.device)
        tokens = kept.tokens[context, :end]
        mask = None if kept.attention_mask is None else kept.attention_mask[context, :end]
        grid = kept.activations[site]
        stands = grid[context.to(grid.device), :end].clone()
        rows = torch.arange(len(context), device=grid.device)
        stands[rows, starts.position.to(grid.device)] = vectors.to(grid)
        found = []
        step = max(1, len(rows) * length // end)  # no more logits at once than are asked for
        for begin in range(0, len(rows), step):
            part = slice(begin, begin + step)
            logits = self._subject.logits_from(
                self._sites[site], stands[part], tokens[part], None if mask is None else mask[part]
            )
            own = Starts(torch.arange(len(logits)), starts.position[part])
            found.append(own.of(logits, length))
        return torch.cat(found)

    def _run(
        self, tokens: Tensor, mask: Tensor | None, cache: Any, positions: Tensor | None = None
    ) -> Tensor:
        given: dict[str, Any] = {"input_ids": tokens, "use_cache": cache is not None}
        given["attention_mask"] = None if mask is None else mask.long()
        if cache is not None:
            given["past_key_values"] = cache
        if positions is not None and self._takes_positions:
            given["position_ids"] = positions
        logits: Tensor = self._subject.model(**given).logits
        return logits.to(self._subject.device)


def _empty_cache() -> Any:
    from transformers import DynamicCache

    return DynamicCache()


def _prefix(
    kept: Float[Tensor, "batch head position width"],
    starts: Starts,
    index: Int[Tensor, "row prefix"],
    *,
    is_used: bool,
) -> Float[Tensor, "row head prefix width"]:
    """What a row's block kept of the positions before its start.

    Of blocks that are not run only the length matters: masks and positions are made from the first block's.
    """
    if not is_used:
        return kept[:1, :, :1].expand(len(index), -1, index.shape[1], -1)
    at = index.clamp(min=0).to(kept.device)
    return kept[starts.context.to(kept.device)[:, None], :, at].transpose(1, 2)


def _with_first(
    rows: Float[Tensor, "row step width"], vectors: Float[Tensor, "row width"]
) -> Float[Tensor, "row step width"]:
    rows[:, 0] = vectors.to(rows)
    return rows


def _stop(_value: Tensor) -> None:
    raise StopReadingError
