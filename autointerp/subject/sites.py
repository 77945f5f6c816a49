"""Turns the name of a site into a place in a subject's module tree; knows no model by name.

A site is written as TransformerLens 3.2 writes it (`blocks.8.hook_resid_post`), or as the path of a module
of the Hugging Face model (`model.layers.3.mlp`), which means that module's output; `PATH:input` means what
the module is given.
"""

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

from autointerp.errors import SiteError, SubjectError

__all__ = ["Blocks", "Site", "SiteKind", "block_site_name", "find_blocks", "parse_site"]

SiteKind = Literal[
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "attn_in",
    "mlp_in",
    "z",
    "mlp_post",
    "attn_own_out",
    "mlp_own_out",
    "attn_normalized",
    "mlp_normalized",
    "module_output",
    "module_input",
]

_SUFFIXES: dict[str, SiteKind] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_in": "attn_in",
    "mlp.hook_in": "mlp_in",
    "attn.hook_z": "z",
    "mlp.hook_post": "mlp_post",
    "attn.hook_out": "attn_own_out",
    "mlp.hook_out": "mlp_own_out",
    "ln1.hook_normalized": "attn_normalized",
    "ln2.hook_normalized": "mlp_normalized",
}
"""What follows `blocks.<layer>.` in a name -> which place of the block it is.

`hook_attn_out` and `hook_mlp_out` are what a branch adds to the residual stream. `attn.hook_out` and
`mlp.hook_out` are what attention and MLP return: the same, but for families that send it through a norm of
its own first (Gemma 2 and 3). `attn.hook_in` and `mlp.hook_in` are what the two are given, `attn.hook_z` and
`mlp.hook_post` what their last projection is given (heads side by side). `hook_normalized` is the residual
as the norm before the branch scales it, before that norm's gain and bias.
"""

_BLOCK_SITE = re.compile(rf"blocks\.(\d+)\.({'|'.join(map(re.escape, _SUFFIXES))})")
_MODULE_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_INPUT = ":input"
_REMEDY = (
    f"name a place in a block (blocks.<layer>. and one of {', '.join(_SUFFIXES)}), the path of a module of "
    "the model (model.layers.3.mlp) for what it returns, or PATH:input for what it is given"
)


@dataclass(frozen=True)
class Site:
    """A place where a dictionary attaches."""

    name: str
    """As it was written; also the key of what is read there."""
    kind: SiteKind
    layer: int | None = None
    """Index of the block, from 0; None for a module path."""
    module: str | None = None
    """Path of the module; None for a block site."""


def block_site_name(layer: int, kind: SiteKind) -> str:
    """How TransformerLens writes the place of that kind in a block."""
    suffix = next(suffix for suffix, named in _SUFFIXES.items() if named == kind)
    return f"blocks.{layer}.{suffix}"


@dataclass(frozen=True, eq=False)
class Blocks:
    """The chain of blocks that the residual stream runs through."""

    path: str
    """Path of the list in the model: `model.layers`."""
    modules: tuple[nn.Module, ...]

    def layer_of(self, module_path: str) -> int | None:
        """Index of the block that the module is or lies in; None when it lies outside the blocks."""
        prefix = f"{self.path}."
        if not module_path.startswith(prefix):
            return None
        return int(module_path[len(prefix) :].split(".", maxsplit=1)[0])

    def is_block(self, module_path: str) -> bool:
        """Whether the path names a whole block."""
        layer = self.layer_of(module_path)
        return layer is not None and module_path == f"{self.path}.{layer}"


def parse_site(text: str) -> Site:
    """Read a site's name; whether a subject has such a place is only known with the subject at hand.

    Raises:
        SiteError: the text is neither a known block site nor the path of a module.
    """
    if block := _BLOCK_SITE.fullmatch(text):
        return Site(text, _SUFFIXES[block[2]], layer=int(block[1]))
    path = text.removesuffix(_INPUT)
    if any(part.startswith("hook_") for part in path.split(".")):
        raise SiteError("this hook point is not supported", where=f"site {text!r}", remedy=_REMEDY)
    if not _MODULE_PATH.fullmatch(path):
        raise SiteError("this is not the name of a site", where=f"site {text!r}", remedy=_REMEDY)
    return Site(text, "module_output" if path == text else "module_input", module=path)


def find_blocks(model: nn.Module, *, expected_count: int | None = None) -> Blocks:
    """The model's blocks: the longest list of modules that each hold an attention or another token mixer.

    Lists inside other lists (the experts of a block) do not count. Where the model's configuration states
    how many blocks there are (`expected_count`), a list of that length wins over a longer one, so that
    the image tower of a multimodal model is not taken for its text blocks.

    Raises:
        SubjectError: the model has no list of modules at all.
    """
    lists = _outermost_lists(model)
    if not lists:
        raise SubjectError(
            "no list of transformer blocks was found in the model",
            where=type(model).__name__,
            remedy="use a decoder-only language model built of blocks",
        )

    def preference(item: tuple[str, nn.ModuleList]) -> tuple[bool, bool, int]:
        entries = item[1]
        return _holds_attention(entries), len(entries) == expected_count, len(entries)

    path, blocks = max(lists, key=preference)
    return Blocks(path, tuple(blocks))


def _outermost_lists(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    lists = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    paths = [path for path, _ in lists]
    return [
        (path, module)
        for path, module in lists
        if len(module) and not any(path.startswith(f"{outer}.") for outer in paths)
    ]


def _holds_attention(blocks: nn.ModuleList) -> bool:
    first = blocks[0]
    names = [name.rsplit(".", 1)[-1].lower() for name, _ in first.named_modules()]
    classes = [type(module).__name__.lower() for module in first.modules()]
    return any("attn" in word or "attention" in word for word in names + classes)
