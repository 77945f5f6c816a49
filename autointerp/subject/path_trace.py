"""A short pass -> what goes by between the last block and the logits, and how tensors there hang together."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autointerp.subject.anatomy import dissect
from autointerp.subject.block_trace import watch
from autointerp.subject.hooks import given_tensor, on_output
from autointerp.subject.probing_pass import probe_tokens
from autointerp.subject.subject_model import SubjectModel

__all__ = [
    "TOLERANCE",
    "Call",
    "Fit",
    "LogitMap",
    "PathTrace",
    "adds_to_its_input",
    "constant_multiple",
    "logit_map",
    "misfit",
    "trace_path",
]

TOLERANCE = 1e-4
"""Largest share of a sum of squares that may go unexplained; rounding in bfloat16 leaves about 1e-5."""
_BISECTIONS = 100
_LARGEST_CAP = 1e4
"""In units of the largest logit; a higher cap changes nothing that float32 shows."""


@dataclass(frozen=True, eq=False)
class Call:
    """One module's call: what it was given and what it returned, on the device where it computed."""

    module: nn.Module
    given: Float[Tensor, "token width"]
    returned: Float[Tensor, "token out"]


@dataclass(frozen=True, eq=False)
class PathTrace:
    """What one pass did outside the blocks."""

    residual: Float[Tensor, "token d_model"]
    """What the last block returned."""
    calls: tuple[Call, ...]
    """Of modules without parts that do not return what they are given, in order."""
    head: Call
    """The unembedding's."""
    logits: Float[Tensor, "token vocabulary"]


class Fit(NamedTuple):
    """How well a tensor is a constant multiple of another."""

    factor: float
    misfit: float
    """Share of the sum of squares that is left, in [0, 1]; infinite for other shapes."""


@dataclass(frozen=True)
class LogitMap:
    """What a model does to the output u of its unembedding: logits = factor * u, or cap * tanh(u / cap)."""

    factor: float
    soft_cap: float | None = None


@torch.no_grad()
def trace_path(subject: SubjectModel) -> PathTrace | str:
    """Watch the subject on 12 tokens; a string says why nothing came of it.

    Cost: one pass. Memory: what modules outside the blocks return for 12 tokens, logits included.
    """
    unembedding = subject.model.get_output_embeddings()
    if unembedding is None:
        return "it has no unembedding that is a module of its own"
    calls: list[Call] = []
    residuals: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = given_tensor(args, kwargs)
        value = output[0] if isinstance(output, tuple | list) and len(output) else output
        if _is_activation(given) and _is_activation(value) and given.shape[:-1] == value.shape[:-1]:
            calls.append(Call(module, _rows(given).to(value.device), _rows(value)))

    def keep_residual(value: Tensor) -> None:
        residuals.append(_rows(value))

    with ExitStack() as stack:
        for path, module in subject.model.named_modules():
            is_leaf = subject.blocks.layer_of(path) is None and not any(True for _ in module.children())
            if is_leaf or module is unembedding:
                stack.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        stack.enter_context(on_output(subject.blocks.modules[-1], keep_residual))
        logits = subject.read_with_logits(_tokens(subject), []).logits
    heads = [call for call in calls if call.module is unembedding]
    if len(heads) != 1:
        return f"its unembedding ran {len(heads)} times in one pass"
    changing = tuple(call for call in calls if not torch.equal(call.given, call.returned))
    return PathTrace(residuals[-1], changing, heads[0], _rows(logits))


def adds_to_its_input(subject: SubjectModel) -> bool:
    """Whether what the last block returns is its input plus what its attention and its MLP return."""
    with ExitStack() as stack:
        trace = watch(subject.blocks.modules[-1], stack)
        subject.read_with_logits(_tokens(subject), [])
    return dissect(trace).attention is not None


def misfit(expected: Float[Tensor, "token _"], found: Float[Tensor, "token _"]) -> float:
    """Share of the sum of squares of `found` by which it differs from `expected`; 0 where both are 0."""
    e, f = (tensor.to("cpu", torch.float64) for tensor in (expected, found))
    left, total = float((f - e).square().sum()), float(f.square().sum())
    return left / total if total else math.inf * left if left else 0.0


def constant_multiple(source: Float[Tensor, "token _"], target: Float[Tensor, "token _"]) -> Fit:
    """The constant that makes the most of `target` out of `source`, and what it leaves."""
    if source.shape != target.shape:
        return Fit(0.0, math.inf)
    s, t = (tensor.to("cpu", torch.float64) for tensor in (source, target))
    if torch.equal(s, t):
        return Fit(1.0, 0.0)
    total = float(s.square().sum())
    factor = float((s * t).sum()) / total if total else 0.0
    return Fit(factor, misfit(factor * s, t))


def logit_map(u: Float[Tensor, "token _"], logits: Float[Tensor, "token _"]) -> LogitMap | str:
    """What turns the unembedding's output `u` into the logits: factor or soft cap, as one fits better."""
    if u.shape != logits.shape:
        return f"it has {logits.shape[-1]} logits, and its unembedding {u.shape[-1]} outputs"
    fit = constant_multiple(u, logits)
    cap = _soft_cap(u, logits)
    capped = math.inf if cap is None else misfit(cap * torch.tanh(u.double() / cap), logits)
    if min(fit.misfit, capped) > TOLERANCE:
        return "its logits are neither its unembedding's output times a constant nor that under a soft cap"
    return LogitMap(fit.factor) if fit.misfit <= capped else LogitMap(1.0, cap)


def _soft_cap(u: Float[Tensor, "token _"], logits: Float[Tensor, "token _"]) -> float | None:
    """The cap that brings the largest entry of `u` to the logit there: cap * tanh(u / cap) grows with cap."""
    largest = int(u.abs().argmax())
    before, after = (abs(float(tensor.flatten()[largest])) for tensor in (u, logits))
    if not 0.0 < after < before:
        return None
    low, high = after, after * _LARGEST_CAP
    for _ in range(_BISECTIONS):
        cap = (low + high) / 2
        low, high = (cap, high) if cap * math.tanh(before / cap) < after else (low, cap)
    return high


def _tokens(subject: SubjectModel) -> Int[Tensor, "batch position"]:
    return probe_tokens(
        vocabulary_size=subject.vocabulary_size, context_limit=subject.context_limit, device=subject.device
    )


def _is_activation(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and value.is_floating_point()


def _rows(value: Tensor) -> Float[Tensor, "token width"]:
    return value.detach().reshape(-1, value.shape[-1]).clone()
