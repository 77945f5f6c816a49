"""Finds the module that a site of one model stands for, and in which block it lies."""

import difflib
from contextlib import ExitStack
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from autointerp.errors import SiteError
from autointerp.subject.anatomy import BlockAnatomy, dissect, watch
from autointerp.subject.probing_pass import Run
from autointerp.subject.sites import Blocks, Site, parse_site

__all__ = ["Places"]


class Places:
    """The sites of one model; branches of a block are found by watching it run, when first asked for."""

    def __init__(
        self, model: Any, blocks: Blocks, *, name: str, run: Run, tokens: Int[Tensor, "batch position"]
    ) -> None:
        """Nothing is run yet.

        Args:
            model: a `PreTrainedModel`.
            blocks: its blocks.
            name: what error messages call it.
            run: runs it.
            tokens: to watch a block on.
        """
        self._model = model
        self._blocks = blocks
        self._name = name
        self._run = run
        self._tokens = tokens
        self._anatomies: dict[int, BlockAnatomy] = {}

    def checked(self, site: str | Site) -> Site:
        """The site, if the model has it; the path of a whole block means its resid_post.

        Raises:
            SiteError: it has no such block, branch or module.
        """
        site = parse_site(site) if isinstance(site, str) else site
        count = len(self._blocks.modules)
        if site.layer is not None and site.layer >= count:
            raise self._error(site, f"there is no block {site.layer}", f"its blocks are 0 to {count - 1}")
        if site.module is None:
            # Found now, which may take a run of its own, and not later in the midst of another run.
            self.module(site)
            return site
        try:
            self._model.get_submodule(site.module)
        except AttributeError as error:
            raise self._error(site, "the model has no module of that name", self._nearest(site)) from error
        if self._blocks.is_block(site.module):
            return Site(site.name, "resid_post", layer=self._blocks.layer_of(site.module))
        return site

    def canonical_name(self, site: str | Site) -> str:
        """One name for all names of a place; see `SubjectModel.canonical_site`."""
        site = self.checked(site)
        if site.module is None:
            return f"blocks.{site.layer}.hook_{site.kind}"
        layer = self.inner_layer(site)
        if layer is not None:
            module, anatomy = self.module(site), self._anatomy(layer)
            for kind, branch in (("mlp_out", anatomy.mlp), ("attn_out", anatomy.attention)):
                if module is branch:
                    return f"blocks.{layer}.hook_{kind}"
        return site.name

    def edge_layer(self, site: Site) -> int | None:
        """Index of the block whose input or output the site is; None for all other sites."""
        return site.layer if site.kind in ("resid_pre", "resid_post") else None

    def inner_layer(self, site: Site) -> int | None:
        """Index of the block that the site is inside of; None at blocks' edges and outside the blocks."""
        if site.module is not None:
            return self._blocks.layer_of(site.module)
        return site.layer if self.edge_layer(site) is None else None

    def module(self, site: Site) -> nn.Module:
        """The module whose output (for `resid_pre` and `resid_mid`: whose input) is the site.

        Raises:
            SiteError: the block has no such place.
        """
        if site.module is not None:
            found: nn.Module = self._model.get_submodule(site.module)
            return found
        layer = site.layer or 0
        if self.edge_layer(site) is not None:
            return self._blocks.modules[layer]
        anatomy = self._anatomy(layer)
        branches = {"resid_mid": anatomy.middle, "mlp_out": anatomy.mlp, "attn_out": anatomy.attention}
        branch = branches[site.kind]
        if branch is None:
            what = (
                "attention and MLP of this block read the same input, so no residual lies between them"
                if anatomy.attention is not None
                else "no two modules of this block were seen to write to the residual stream"
            )
            raise self._error(site, what, "use hook_resid_pre, hook_resid_post or the path of a module")
        return branch

    def _anatomy(self, layer: int) -> BlockAnatomy:
        if layer not in self._anatomies:
            with ExitStack() as stack:
                trace = watch(self._blocks.modules[layer], stack)
                self._run(self._tokens, None)
            self._anatomies[layer] = dissect(trace)
        return self._anatomies[layer]

    def _nearest(self, site: Site) -> str:
        paths = [path for path, _ in self._model.named_modules() if path]
        near = difflib.get_close_matches(site.name, paths, n=3)
        return (
            f"the nearest are {', '.join(near)}" if near else f"its first modules are {', '.join(paths[:3])}"
        )

    def _error(self, site: Site, what: str, remedy: str) -> SiteError:
        return SiteError(what, where=f"site {site.name!r} of {self._name}", remedy=remedy)
