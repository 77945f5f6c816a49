"""A direction of the residual stream -> what it adds to the logits through final norm and unembedding.

Which modules these are, and that nothing else lies between, is found out by watching one short pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from autointerp.errors import SiteError
from autointerp.subject.normalization import Normalization, take_apart
from autointerp.subject.path_trace import (
    TOLERANCE,
    Call,
    LogitMap,
    PathTrace,
    adds_to_its_input,
    constant_multiple,
    logit_map,
    misfit,
    trace_path,
)
from autointerp.subject.placement import weights_at_hand
from autointerp.subject.sites import parse_site
from autointerp.subject.subject_model import SubjectModel

__all__ = ["DirectPath", "writes_to_stream"]

_STREAM = frozenset({"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"})
_TILE_BYTES = 64 * 2**20
"""Of the unembedding's rows in float32, where they have another precision."""


@dataclass(frozen=True, eq=False)
class _Step:
    """A linear map on the way; `apply` takes and gives [direction width] in float32."""

    is_centred: bool = False
    """Whether the mean over the components is taken off first, as a LayerNorm does."""
    gain: Float[Tensor, " width"] | None = None
    weight: Float[Tensor, "out width"] | None = None
    factor: float = 1.0

    @property
    def is_norm(self) -> bool:
        return self.gain is not None

    def apply(self, x: Float[Tensor, "direction width"]) -> Float[Tensor, "direction out"]:
        x = x - x.mean(dim=-1, keepdim=True) if self.is_centred else x
        x = x if self.gain is None else x * self.gain.to(x.device)
        x = x if self.weight is None else functional.linear(x, self.weight.to(x.device))
        return x * self.factor


@dataclass(frozen=True, eq=False)
class DirectPath:
    """The linear part of what lies between a subject's residual stream and its logits.

    With c(d) the direction less the mean of its components (of LayerNorms; elsewhere d itself), g the gain of
    the final norm, W the unembedding and s whatever constants the model multiplies by (Cohere, Granite):

        logits(d) = s W (g * c(d))

    Where a projection lies between norm and unembedding (OPT), W is the product of both. Left out are biases,
    which no direction changes; the norm's data-dependent scale 1 / sigma(x), by which a token's logits change
    when d is added to its residual x; and a soft cap of the logits (Gemma 2), which keeps their order. So the
    unit is: logits per unit of activation, times sigma.

    Sources: nostalgebraist 2020, "interpreting GPT: the logit lens"; Elhage et al. 2021, "A mathematical
    framework for transformer circuits" (the direct path).
    """

    d_model: int
    """Width of the residual stream."""
    vocabulary_size: int
    """How many logits there are; some may belong to no token of the tokenizer."""
    logit_map: LogitMap
    """What the model does to the unembedding's output: a constant factor, or a soft cap."""
    _steps: tuple[_Step, ...]
    _unembedding: nn.Module

    @classmethod
    @torch.no_grad()
    def of(cls, subject: SubjectModel) -> "DirectPath | str":
        """Find the path of a subject by watching it on 12 tokens; a string says why there is none.

        From what goes into the unembedding (`get_output_embeddings`) back to what the last block returns,
        each tensor must be what some module returned, up to a constant factor, and that module a norm with a
        gain or a plain matrix. Both are checked by their numbers, as is the unembedding itself, and that its
        output becomes the logits by a constant factor or a soft cap alone. Without a norm on the way, the
        last block must add to its input: where blocks end with a norm (OPT 350m), directions pass none of
        them unchanged.

        Cost: a pass over 12 tokens. Memory: 12 rows of logits, and up to 64 MiB of the unembedding's weights.
        """
        trace = trace_path(subject)
        if isinstance(trace, str):
            return trace
        if not _is_its_matrix(trace.head):
            return "its unembedding is no plain matrix, perhaps since it is quantised"
        behind = logit_map(trace.head.returned, trace.logits)
        if isinstance(behind, str):
            return behind
        steps = _steps_back(trace)
        if isinstance(steps, str):
            return steps
        if not any(step.is_norm for step in steps) and not adds_to_its_input(subject):
            return "no norm lies behind its last block, and that block does not simply add to its input"
        return cls(subject.d_model, subject.vocabulary_size, behind, steps, trace.head.module)

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """While open, an unembedding that is fetched only when it runs stays, so that it is fetched once."""
        with weights_at_hand(self._unembedding):
            yield

    @torch.no_grad()
    def logits(self, directions: Float[Tensor, "direction d_model"]) -> Float[Tensor, "direction vocabulary"]:
        """`s W (g * c(d))` of each direction, in float32, on the device of the unembedding.

        Directions must be of vectors that are added to the residual stream: see `writes_to_stream`.

        Cost: 2 directions x d_model x vocabulary flops. Memory: the result, so hand over few directions at a
        time; and 64 MiB where the unembedding is not in float32.

        Raises:
            SiteError: the directions are not as long as the residual stream is wide.
        """
        if directions.shape[1] != self.d_model:
            raise SiteError(
                f"directions of width {directions.shape[1]} have no direct path to the logits: "
                f"the residual stream is {self.d_model} wide",
                remedy="use a dictionary of what is added to the residual stream",
            )
        with self.at_hand():
            rows = directions.to(self._unembedding.weight.device, torch.float32)
            for step in self._steps:
                rows = step.apply(rows)
            return _product(rows * self.logit_map.factor, self._unembedding.weight)


def writes_to_stream(subject: SubjectModel, site: str) -> bool:
    """Whether the vectors at a site are the residual stream, or what attention or MLP of a block add to it.

    Only there does a direction have a direct path; other sites may be just as wide (`hook_z`, `mlp.hook_in`).
    False as well for modules outside the blocks. A branch's output may be added times a constant (Granite);
    then logits of its directions are to be multiplied by that.

    Raises:
        SiteError: the subject has no such site.
    """
    return parse_site(subject.canonical_site(site)).kind in _STREAM


def _steps_back(trace: PathTrace) -> tuple[_Step, ...] | str:
    """The steps from the last block's output to the unembedding's input, first one first."""
    target, steps = trace.head.given, list[_Step]()
    earlier = [call for call in trace.calls if call.module is not trace.head.module]
    while True:
        # The residual first, so that it wins where a module passes it on unchanged.
        sources = [trace.residual, *(call.returned for call in earlier)]
        fits = [constant_multiple(source, target) for source in sources]
        best = min(range(len(fits)), key=lambda index: fits[index].misfit)
        if fits[best].misfit > TOLERANCE:
            return "what goes into its unembedding was not seen to come from its last block"
        if best == 0:
            return (_Step(factor=fits[0].factor), *reversed(steps))
        call = earlier[best - 1]
        step = _linear_part(call, fits[best].factor)
        if step is None:
            kind = type(call.module).__name__
            return f"behind its last block lies {kind}, neither a norm nor a plain matrix"
        steps.append(step)
        target, earlier = call.given, earlier[: best - 1]


def _linear_part(call: Call, factor: float) -> _Step | None:
    if _is_its_matrix(call):
        with weights_at_hand(call.module):
            return _Step(weight=call.module.weight.detach().float().clone(), factor=factor)
    norm = take_apart(call.module, call.given)
    is_centred = None if norm is None else _is_centred(norm, call.given)
    if norm is None or is_centred is None:
        return None
    return _Step(is_centred=is_centred, gain=_gain(norm), factor=factor)


def _is_its_matrix(call: Call) -> bool:
    """Whether all that the module does is to multiply by its weight and to add its bias."""
    with weights_at_hand(call.module):
        weight, bias = (getattr(call.module, name, None) for name in ("weight", "bias"))
        shape = (call.returned.shape[-1], call.given.shape[-1])
        if not isinstance(weight, Tensor) or weight.shape != shape or not weight.is_floating_point():
            return False
        expected = _product(call.given.to(weight.device, torch.float32), weight)
        return misfit(expected if bias is None else expected + bias.float(), call.returned) < TOLERANCE


def _product(
    rows: Float[Tensor, "row width"], weight: Float[Tensor, "out width"]
) -> Float[Tensor, "row out"]:
    """`rows weight^T` in float32, of a weight in any precision."""
    if weight.dtype == torch.float32:
        return functional.linear(rows, weight)
    result = rows.new_empty(rows.shape[0], weight.shape[0])
    tile = max(1, _TILE_BYTES // (weight.shape[1] * rows.dtype.itemsize))
    for first in range(0, weight.shape[0], tile):
        part = slice(first, first + tile)
        result[:, part] = functional.linear(rows, weight[part].float())
    return result


def _gain(norm: Normalization) -> Float[Tensor, " width"]:
    """In float32: 1 + weight, as Gemma has it, would be rounded in the weight's own precision."""
    weights = partial(norm.module.named_parameters, recurse=False)
    with weights_at_hand(norm.module):
        found = [weight.detach().float() for name, weight in weights() if name != "bias"]
        return found[0] + (1.0 - norm.neutral) if found else norm.gain.float()


def _is_centred(norm: Normalization, example: Float[Tensor, "token width"]) -> bool | None:
    """Whether the norm divides rows less their mean, or as they are; None where it does something else."""
    x = example + 2.0 * example.abs().max()  # far from mean 0, where both would be the same
    found = _unit(norm.normalized(x).float())
    for is_centred in (False, True):
        mean = x.float().mean(dim=-1, keepdim=True)
        if misfit(_unit(x.float() - mean if is_centred else x.float()), found) < TOLERANCE:
            return is_centred
    return None


def _unit(x: Float[Tensor, "token width"]) -> Float[Tensor, "token width"]:
    return functional.normalize(x, dim=-1)
