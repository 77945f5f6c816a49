"""Runs a model once on a few tokens: learns what its blocks return, and whether it can be used at all."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from autointerp.errors import SubjectError
from autointerp.subject.hooks import first_tensor
from autointerp.subject.sites import Blocks

__all__ = ["Probe", "Run", "probe", "probe_tokens"]

Run = Callable[[Tensor, Tensor | None], Tensor]
"""Tokens and attention mask [batch position] -> logits [batch position vocabulary]."""

_POSITIONS = 6


@dataclass(frozen=True, eq=False)
class Probe:
    """What the pass has shown."""

    d_model: int
    dtype: torch.dtype
    """Of the residual stream."""
    vocabulary_size: int
    forms: Mapping[nn.Module, int | None]
    """For each block how many entries its output has as a tuple; None for a bare tensor."""


def probe_tokens(
    *, vocabulary_size: int, context_limit: int | None, device: torch.device
) -> Int[Tensor, "batch position"]:
    """Two rows of ids that differ in the last one only, spread over the vocabulary."""
    row = torch.arange(1, _POSITIONS + 1, device=device) * (vocabulary_size // 7 + 1) % vocabulary_size
    rows = row.repeat(2, 1)
    rows[1, -1] = (rows[1, -1] + 1) % vocabulary_size
    return rows[:, -(context_limit or _POSITIONS) :]


def probe(run: Run, blocks: Blocks, tokens: Int[Tensor, "batch position"], *, name: str) -> Probe:
    """Run `tokens`, two rows that differ at the last position, and look at what comes out.

    Raises:
        SubjectError: a block did not run or gave no vector per token, the logits are not finite, or those
            at earlier positions depend on the last token.
    """
    seen: dict[nn.Module, Any] = {}

    def remember(module: nn.Module, _args: Any, output: Any) -> None:
        seen[module] = output

    with ExitStack() as stack:
        for block in blocks.modules:
            stack.callback(block.register_forward_hook(remember).remove)
        logits = run(tokens, None)
    _check_blocks(seen, blocks, name)
    _check_logits(logits, name)
    forms = {
        block: len(output) if isinstance(output, tuple | list) else None for block, output in seen.items()
    }
    stream = first_tensor(seen[blocks.modules[0]])
    return Probe(stream.shape[-1], stream.dtype, logits.shape[-1], forms)


def _check_blocks(seen: Mapping[nn.Module, Any], blocks: Blocks, name: str) -> None:
    usable = sum(first_tensor(output).ndim == 3 for output in seen.values())
    if usable < len(blocks.modules):
        raise SubjectError(
            f"of {len(blocks.modules)} modules in {blocks.path} only {usable} gave one vector per token",
            where=name,
            remedy="use a decoder-only language model with one residual stream",
        )


def _check_logits(logits: Tensor, name: str) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise SubjectError(
            "its logits are not finite",
            where=name,
            remedy="load it in float32 or bfloat16, or get an undamaged copy",
        )
    earlier = logits[:, :-1].float()
    # Rows of one batch are computed alike, so what remains is rounding, coarse in half precision.
    if not torch.allclose(earlier[0], earlier[1], atol=1e-2, rtol=1e-2):
        raise SubjectError(
            "a token's logits depend on later tokens, so it is not a causal language model",
            where=name,
            remedy="use a decoder-only language model",
        )
