"""Stored tensors and configuration values -> what the formats ask for by name, checked one by one.

The formats name what they take (`table.take("W_enc", "d_model latent")`); shapes, types, NaN and leftovers
are checked here, so that every format refuses the same things in the same words.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.errors import CheckpointError

__all__ = ["Configuration", "TensorTable", "read_configuration", "row_norms"]

_LARGEST_CONFIGURATION_BYTES = 16 * 2**20
_BLOCK_BYTES = 64 * 2**20
_MATRIX = 2


@dataclass
class TensorTable:
    """The tensors of one checkpoint; every one must be taken or named as ignored."""

    where: Path
    tensors: Mapping[str, Any]
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes of the axes known so far: from a configuration, or from the first tensor that has the axis."""
    taken: set[str] = field(default_factory=set)

    def take(self, name: str, axes: str) -> Tensor:
        """One weight, its axes (`"d_model latent"`, `""` for a scalar) checked against the others.

        Scalars and vectors come in float32; matrices as they are stored, mapped, since they may be larger
        than memory.

        Raises:
            CheckpointError: it is missing, no array of floats, of a wrong shape, or holds NaN or infinity.
        """
        tensor = self._stored(name)
        if not tensor.is_floating_point():
            raise CheckpointError(f"tensor {name!r} holds {tensor.dtype}, not floats", where=self.where)
        self._check_shape(name, tensor, axes.split())
        if not all(bool(block.float().isfinite().all()) for block in _blocks(tensor)):
            raise CheckpointError(
                f"tensor {name!r} holds NaN or infinity", where=self.where, remedy="save the checkpoint again"
            )
        # A copy of what is small: a file that is written to later must not reach into a run.
        return tensor if tensor.ndim == _MATRIX else tensor.to(torch.float32, copy=True).contiguous()

    def whole_number(self, name: str) -> int:
        """A stored 0-dimensional integer."""
        tensor = self._stored(name)
        if tensor.numel() != 1 or tensor.dtype not in {
            torch.int64,
            torch.int32,
            torch.int16,
            torch.uint8,
            torch.int8,
        }:
            raise CheckpointError(
                f"{name!r} should be one whole number, it is {_shape(tensor)}", where=self.where
            )
        return int(tensor.item())

    def finish(self, *, ignored: Collection[str] = ()) -> None:
        """Refuse what was neither taken nor is known to be harmless: it may change what is computed."""
        left = sorted(map(_name, set(self.tensors) - self.taken - set(ignored)))
        if left:
            raise CheckpointError(
                f"unknown tensors {_listed(left)}",
                where=self.where,
                remedy="this variant of the format is not supported; nothing was loaded",
            )

    def _stored(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise CheckpointError(
                f"tensor {name!r} is missing, there are {_listed(sorted(map(_name, self.tensors)))}",
                where=self.where,
            )
        self.taken.add(name)
        tensor = self.tensors[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(f"{name!r} is no plain tensor", where=self.where)
        # A stored shape is only a claim: strides of 0 can make a few bytes look like terabytes.
        if tensor.is_quantized or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"tensor {name!r} claims more numbers than the file holds", where=self.where
            )
        return tensor.detach()  # a stored nn.Parameter would ask for gradients of everything done with it

    def _check_shape(self, name: str, tensor: Tensor, axes: list[str]) -> None:
        expected = [self.sizes.get(axis) for axis in axes]
        fits = tensor.ndim == len(axes) and all(
            size == (known or size) for size, known in zip(tensor.shape, expected, strict=True)
        )
        if not fits or 0 in tensor.shape:
            wanted = ", ".join(
                f"{axis} = {known}" if known else axis for axis, known in zip(axes, expected, strict=True)
            )
            raise CheckpointError(
                f"tensor {name!r} has shape {_shape(tensor)}, not ({wanted})", where=self.where
            )
        self.sizes.update(zip(axes, tensor.shape, strict=True))


@dataclass(frozen=True)
class Configuration:
    """A JSON object whose values are taken by name and type."""

    where: Path
    values: Mapping[str, Any]

    def text(self, name: str) -> str | None:
        """A string, or None when absent or null."""
        return self._typed(name, str, "a text")

    def flag(self, name: str) -> bool | None:
        """A truth value, or None when absent or null."""
        return self._typed(name, bool, "true or false")

    def whole_number(self, name: str) -> int | None:
        """An integer, or None when absent or null."""
        if isinstance(self.values.get(name), bool):
            raise CheckpointError(f"{name!r} should be a whole number, it is a truth value", where=self.where)
        return self._typed(name, int, "a whole number")

    def number(self, name: str) -> float | None:
        """A finite number, or None when absent or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise CheckpointError(f"{name!r} should be a number, it is {str(value)[:60]!r}", where=self.where)
        return float(value)

    def size(self, name: str) -> int | None:
        """A positive integer, or None when absent or null."""
        value = self.whole_number(name)
        if value is not None and value < 1:
            raise CheckpointError(f"{name!r} should be at least 1, it is {value}", where=self.where)
        return value

    def section(self, name: str) -> "Configuration | None":
        """An object inside this one, or None when absent or null."""
        values = self._typed(name, dict, "an object")
        return None if values is None else Configuration(self.where, values)

    def _typed(self, name: str, kind: type, words: str) -> Any:
        value = self.values.get(name)
        if value is not None and not isinstance(value, kind):
            raise CheckpointError(f"{name!r} should be {words}, it is {str(value)[:60]!r}", where=self.where)
        return value


def read_configuration(path: Path) -> Configuration:
    """A JSON file that holds one object.

    Raises:
        CheckpointError: it is no JSON, no object, or far too large for a configuration.
    """
    if path.stat().st_size > _LARGEST_CONFIGURATION_BYTES:
        raise CheckpointError(
            "a configuration of more than 16 MiB", where=path, remedy="is it the right file?"
        )
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"no readable JSON ({error})", where=path) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"should hold a JSON object, holds a {type(values).__name__}", where=path)
    return Configuration(path, values)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def row_norms(matrix: Float[Tensor, "row column"]) -> Float[Tensor, " row"]:
    """The Euclidean norm of every row, in float32, in blocks of 64 MiB."""
    return torch.cat([block.float().norm(dim=1) for block in _blocks(matrix)])


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Some rows at a time, so that a mapped tensor is looked at without being held."""
    if tensor.ndim == 0:
        yield tensor
        return
    row_bytes = max(1, tensor[0].numel() * 4)
    yield from tensor.split(max(1, _BLOCK_BYTES // row_bytes))


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _name(key: object) -> str:
    """A dictionary in a torch file may have keys of any kind, of any length."""
    return key if isinstance(key, str) else f"<{type(key).__name__}>"


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12]) or "none"
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
