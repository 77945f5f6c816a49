"""Finds the module that a site of one model stands for, and in which block it lies."""

import difflib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor, nn

from autointerp.errors import SiteError
from autointerp.subject.anatomy import BlockAnatomy, dissect
from autointerp.subject.block_trace import watch
from autointerp.subject.branch_parts import BranchParts, find_parts
from autointerp.subject.hooks import StopReadingError, on_output
from autointerp.subject.normalization import Normalization
from autointerp.subject.probing_pass import Run
from autointerp.subject.sites import Blocks, Site, SiteKind, block_site_name, parse_site

__all__ = ["Place", "Places"]


@dataclass(frozen=True)
class Place:
    """One side of a module."""

    module: nn.Module
    side: Literal["input", "output"]


@dataclass(frozen=True, eq=False)
class _BlockPlaces:
    """What watching one block has shown."""

    anatomy: BlockAnatomy
    attention: BranchParts
    mlp: BranchParts


_FINDERS: dict[SiteKind, tuple[Literal["input", "output"], Callable[[_BlockPlaces], nn.Module | None]]] = {
    "attn_out": ("output", lambda block: block.anatomy.attention),
    "mlp_out": ("output", lambda block: block.anatomy.mlp),
    "z": ("input", lambda block: block.attention.last_projection),
    "mlp_post": ("input", lambda block: block.mlp.last_projection),
    "attn_in": ("input", lambda block: block.attention.entry),
    "mlp_in": ("input", lambda block: block.mlp.entry),
    "attn_own_out": ("output", lambda block: block.attention.own_output),
    "mlp_own_out": ("output", lambda block: block.mlp.own_output),
    # From here on, putting something there does more than to replace what goes by at the module.
    "resid_mid": ("input", lambda block: block.anatomy.middle),
    "attn_normalized": ("input", lambda block: block.attention.norm and block.attention.norm.module),
    "mlp_normalized": ("input", lambda block: block.mlp.norm and block.mlp.norm.module),
}
"""Kind of a site inside a block -> the side and the module that it is; one place's first kind names it."""

_NOT_ALIASES = ("resid_mid", "attn_normalized", "mlp_normalized")


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
        self._watched: dict[int, _BlockPlaces] = {}

    def checked(self, site: str | Site) -> Site:
        """The site, if the model has it; the path of a whole block means its resid_post, its input resid_pre.

        A path may also begin below the model's head, at its `base_model`, as libraries that hook that one
        write it: `layers.4.mlp` is `gpt_neox.layers.4.mlp`.

        Raises:
            SiteError: it has no such block, branch or module.
        """
        site = parse_site(site) if isinstance(site, str) else site
        count = len(self._blocks.modules)
        if site.layer is not None and site.layer >= count:
            raise self._error(site, f"there is no block {site.layer}", f"its blocks are 0 to {count - 1}")
        if site.module is None:
            # Found now, which may take a run of its own, and not later in the midst of another run.
            self.place(site)
            return site
        path = self._full_path(site.module)
        if path is None:
            raise self._error(site, "the model has no module of that name", self._nearest(site))
        if self._blocks.is_block(path):
            edge: SiteKind = "resid_pre" if site.kind == "module_input" else "resid_post"
            return Site(site.name, edge, layer=self._blocks.layer_of(path))
        return replace(site, module=path)

    def _full_path(self, path: str) -> str | None:
        """The path from the model's own top; None where there is no such module."""
        for candidate in (path, f"{getattr(self._model, 'base_model_prefix', '')}.{path}"):
            try:
                self._model.get_submodule(candidate)
            except AttributeError:
                continue
            return candidate
        return None

    def canonical_name(self, site: str | Site) -> str:
        """One name for all names of a place; see `SubjectModel.canonical_site`."""
        site = self.checked(site)
        layer = site.layer if self.edge_layer(site) is not None else self.inner_layer(site)
        if layer is None:
            return site.name
        if site.kind not in _NOT_ALIASES and self.edge_layer(site) is None:
            place, block = self.place(site), self._block(layer)
            for kind, (side, find) in _FINDERS.items():
                if kind not in _NOT_ALIASES and side == place.side and find(block) is place.module:
                    return block_site_name(layer, kind)
        return site.name if site.module is not None else block_site_name(layer, site.kind)

    def edge_layer(self, site: Site) -> int | None:
        """Index of the block whose input or output the site is; None for all other sites."""
        return site.layer if site.kind in ("resid_pre", "resid_post") else None

    def inner_layer(self, site: Site) -> int | None:
        """Index of the block that the site is inside of; None at blocks' edges and outside the blocks."""
        if site.module is not None:
            return self._blocks.layer_of(site.module)
        return site.layer if self.edge_layer(site) is None else None

    def place(self, site: Site) -> Place:
        """The module, and the side of it, where the site's tensor goes by.

        For a `hook_normalized` that is the input of the norm that makes it; see `normalization`.

        Raises:
            SiteError: the block has no such place.
        """
        if site.module is not None:
            return Place(
                self._model.get_submodule(site.module), "input" if site.kind == "module_input" else "output"
            )
        layer = site.layer or 0
        if self.edge_layer(site) is not None:
            return Place(self._blocks.modules[layer], "input" if site.kind == "resid_pre" else "output")
        side, find = _FINDERS[site.kind]
        block = self._block(layer)
        module = find(block)
        if module is None:
            raise self._error(site, *_why_absent(site.kind, block, layer))
        return Place(module, side)

    def normalization(self, site: Site) -> tuple[Normalization, nn.Module] | None:
        """The norm that a `hook_normalized` lies in, and the module that is given its output; else None."""
        if site.kind not in ("attn_normalized", "mlp_normalized"):
            return None
        block = self._block(site.layer or 0)
        parts = block.attention if site.kind == "attn_normalized" else block.mlp
        return None if parts.norm is None or parts.entry is None else (parts.norm, parts.entry)

    def _block(self, layer: int) -> _BlockPlaces:
        if layer not in self._watched:
            block = self._blocks.modules[layer]
            with ExitStack() as stack:
                trace = watch(block, stack)
                stack.enter_context(on_output(block, _stop))
                with suppress(StopReadingError):
                    self._run(self._tokens, None)
            anatomy = dissect(trace)
            self._watched[layer] = _BlockPlaces(anatomy, *find_parts(trace, anatomy))
        return self._watched[layer]

    def _nearest(self, site: Site) -> str:
        paths = [path for path, _ in self._model.named_modules() if path]
        near = difflib.get_close_matches(site.module or site.name, paths, n=3)
        return (
            f"the nearest are {', '.join(near)}" if near else f"its first modules are {', '.join(paths[:3])}"
        )

    def _error(self, site: Site, what: str, remedy: str) -> SiteError:
        return SiteError(what, where=f"site {site.name!r} of {self._name}", remedy=remedy)


def _stop(_value: Tensor) -> None:
    raise StopReadingError


def _why_absent(kind: SiteKind, block: _BlockPlaces, layer: int) -> tuple[str, str]:
    """What is wrong with asking for that place of a block, and what to ask for instead."""
    whole = "use hook_resid_pre, hook_resid_post or the path of a module"
    if block.anatomy.attention is None:
        return "no two modules of this block were seen to write to the residual stream", whole
    if kind == "resid_mid":
        return "attention and MLP of this block read the same input, so no residual lies between them", whole
    branch = "attention" if kind in ("z", "attn_in", "attn_own_out", "attn_normalized") else "MLP"
    if kind in ("z", "mlp_post"):
        what = f"no single projection was seen to make the output of this block's {branch}"
        return what, "name a module in it: its path for what it returns, PATH:input for what it is given"
    if kind in ("attn_normalized", "mlp_normalized"):
        given = block_site_name(layer, "attn_in" if branch == "attention" else "mlp_in")
        what = f"what this block's {branch} is given was not seen to come from a norm with a gain"
        return what, f"use {given}, which is what the {branch} is given as it is"
    what = f"no single module was seen to stand for the whole {branch} of this block"
    return what, "name a module in it: its path for what it returns, PATH:input for what it is given"
