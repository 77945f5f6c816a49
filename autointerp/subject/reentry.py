"""Starts a pass in the midst of a model: blocks that a site does not depend on compute nothing."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autointerp.subject.hooks import on_input, on_output, pass_through
from autointerp.subject.places import Places
from autointerp.subject.probing_pass import Run
from autointerp.subject.sites import Blocks, Site

__all__ = ["Reentry"]

_FAULTS = (LookupError, AttributeError, TypeError, ValueError, RuntimeError)
"""What a model may raise if blocks that are left out should have handed on more than the residual stream."""


_ROUNDING_STEPS = 8
"""Machine epsilons, of the logits' spread, by which a pass that begins later may differ; mostly by none."""


class Reentry:
    """Leaves out the blocks below a site, where that was seen to lead to the same logits.

    In a few families a block needs more of the lower ones than the residual stream (Gemma 4's upper blocks
    use keys and values of lower ones): there the whole model is run.
    """

    def __init__(
        self,
        places: Places,
        blocks: Blocks,
        forms: Mapping[nn.Module, int | None],
        *,
        run: Run,
        tokens: Int[Tensor, "batch position"],
    ) -> None:
        """Nothing is run yet.

        Args:
            places: of the model.
            blocks: of the model.
            forms: as `pass_through` takes them.
            run: runs the model.
            tokens: to try it on.
        """
        self._places, self._blocks, self._forms = places, blocks, forms
        self._run, self._tokens = run, tokens
        self._tried: dict[int, bool] = {0: False}

    def first_block(self, site: Site) -> int | None:
        """Index of the first block that what stands at the site can change.

        As many as there are blocks behind the last one; None for modules outside the blocks.
        """
        edge = self._places.edge_layer(site)
        return self._places.inner_layer(site) if edge is None else edge + (site.kind == "resid_post")

    @contextmanager
    def skipping_below(
        self, site: Site, block_inputs: Mapping[int, Float[Tensor, "batch position d_model"]]
    ) -> Iterator[None]:
        """While open, the blocks below the site compute nothing, if the model can do without.

        Args:
            site: where something will be put.
            block_inputs: what goes into blocks, by index; a site inside a block needs that of its own.
        """
        edge, first = self._places.edge_layer(site), self.first_block(site)
        if first is None or (edge is None and first not in block_inputs) or not self._leads_on(first):
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(pass_through(self._blocks.modules[:first], self._forms))
            if edge is None:
                given = block_inputs[first]
                stack.enter_context(on_input(self._blocks.modules[first], lambda _old: given.clone()))
            yield

    def _leads_on(self, first: int) -> bool:
        """Whether the pass may start at block `first` (as many as there are blocks: after the last)."""
        if first not in self._tried:
            self._tried[first] = self._try(first)
        return self._tried[first]

    def _try(self, first: int) -> bool:
        blocks = self._blocks.modules
        at_end = first == len(blocks)
        module, attach = blocks[first - at_end], on_output if at_end else on_input
        stream: list[Tensor] = []
        with attach(module, lambda value: stream.append(value.clone())):
            expected = self._run(self._tokens, None)
        try:
            with pass_through(blocks[:first], self._forms), attach(module, lambda _old: stream[0].clone()):
                found = self._run(self._tokens, None)
        except _FAULTS:
            return False
        finite = expected.float()[expected.isfinite()]  # some models rule tokens out
        spread = float(finite.std()) if finite.numel() > 1 else 0.0
        tolerance = _ROUNDING_STEPS * torch.finfo(expected.dtype).eps * spread
        return torch.allclose(found.float(), expected.float(), atol=tolerance, rtol=0.0)
