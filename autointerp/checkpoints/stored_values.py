"""Files on disk -> tensors and configuration values, checked one by one; nothing in a file is ever executed.

The formats name what they take (`table.take("W_enc", "d_model latent")`); shapes, types, NaN and leftovers
are checked here, so that every format refuses the same things in the same words.
"""

import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from autointerp.errors import CheckpointError

__all__ = [
    "Configuration",
    "TensorTable",
    "is_torch_file",
    "read_configuration",
    "read_safetensors",
    "read_torch_file",
    "write_folder",
    "write_torch_file",
]

_LARGEST_CONFIGURATION_BYTES = 16 * 2**20

# What the restricted unpickler and the zip reader were seen to raise on damaged bytes.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass
class TensorTable:
    """The tensors of one checkpoint; every one must be taken or named as ignored."""

    where: Path
    tensors: Mapping[str, Any]
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes of the axes known so far: from a configuration, or from the first tensor that has the axis."""
    taken: set[str] = field(default_factory=set)

    def take(self, name: str, axes: str) -> Tensor:
        """One weight in float32, its axes (`"d_model latent"`, `""` for a scalar) checked against the others.

        Raises:
            CheckpointError: it is missing, no array of floats, of a wrong shape, or holds NaN or infinity.
        """
        tensor = self._stored(name)
        if not tensor.is_floating_point():
            raise CheckpointError(f"tensor {name!r} holds {tensor.dtype}, not floats", where=self.where)
        self._check_shape(name, tensor, axes.split())
        weight = tensor.to(torch.float32).contiguous()
        if not bool(weight.isfinite().all()):
            raise CheckpointError(
                f"tensor {name!r} holds NaN or infinity", where=self.where, remedy="save the checkpoint again"
            )
        return weight

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


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: the file is damaged, truncated, or none.
    """
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, *_DAMAGE) as error:
        raise CheckpointError(
            f"damaged or no safetensors file ({error})", where=path, remedy="copy it again"
        ) from error


def is_torch_file(path: Path) -> bool:
    """Does the file begin like one that torch.save wrote, whole or cut off? A NumPy archive does not."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80":  # a bare pickle: torch before 1.6, or somebody's own
        return True
    if start != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except _DAMAGE:  # the directory at its end is damaged, or was cut off: reading it will say so
        return True


def read_torch_file(path: Path, *, mapped: bool = False) -> Any:
    """What torch.save stored, through the unpickler that knows tensors and plain containers only.

    `mapped` leaves the tensors' bytes on disk: for a look at the names.

    Raises:
        CheckpointError: the file is damaged, or unpickling it would call anything else.
    """
    try:
        archived = zipfile.is_zipfile(path)
        if archived:
            _refuse_compressed(path)
        with warnings.catch_warnings():  # about foreign pickles, which are then refused
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and archived)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"refused, reading it could run code or it is damaged ({_first_sentence(error)})",
            where=path,
            remedy="save a plain dictionary of tensors",
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"damaged or truncated torch file ({_first_sentence(error)})", where=path, remedy="copy it again"
        ) from error


def write_torch_file(state: Mapping[str, Any], path: Path) -> None:
    """A torch file, complete or not there at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, unfinished)
    unfinished.replace(path)


def write_folder(
    path: Path, *, configuration: tuple[str, Mapping[str, Any]], weights: tuple[str, Mapping[str, Tensor]]
) -> None:
    """A folder with a JSON configuration and a weights file (safetensors, or torch by its suffix `.pt`)."""
    path.mkdir(parents=True, exist_ok=True)
    weights_name, tensors = weights
    stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if weights_name.endswith(".pt"):
        write_torch_file(stored, path / weights_name)
    else:
        unfinished = path / f".{weights_name}.unfinished"
        unfinished.write_bytes(safetensors.torch.save(stored))
        unfinished.replace(path / weights_name)
    configuration_name, values = configuration
    (path / configuration_name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _refuse_compressed(path: Path) -> None:
    """Records that torch wrote are stored as they are; a compressed one may unfold to any size."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(
                "a torch file with compressed records", where=path, remedy="save it with torch.save"
            )


def _first_sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _name(key: object) -> str:
    """A dictionary in a torch file may have keys of any kind, of any length."""
    return key if isinstance(key, str) else f"<{type(key).__name__}>"


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12]) or "none"
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
