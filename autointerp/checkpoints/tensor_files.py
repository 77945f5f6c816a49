"""Weight files on disk -> named tensors, mapped where the file allows it; nothing in a file is ever executed.

What is mapped costs no memory of its own: its pages are the file's, read when looked at, and given up again
under pressure. So a checkpoint larger than memory can be opened, and be used piece by piece.
"""

import errno
import json
import mmap
import pickle
import re
import struct
import textwrap
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.lib import format as npy
from torch import Tensor

from autointerp.errors import CheckpointError, ForeignPickleError

__all__ = [
    "is_npz_file",
    "is_torch_file",
    "read_npz",
    "read_safetensors",
    "read_torch_file",
    "safetensors_names",
    "write_folder",
    "write_torch_file",
]

# What the restricted unpickler, the zip reader and NumPy's header parser were seen to raise on damaged bytes.
_DAMAGE = (
    pickle.UnpicklingError,
    safetensors.SafetensorError,  # torch.load hands a file of that name over
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)

_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
"""In what the restricted unpickler says of a name that it does not know."""
_ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30
_LARGEST_RATIO = 200
"""Unpacked bytes per packed one; weights barely compress, a bomb does by a thousand."""
_BFLOAT16_NAMES = ("|V2", "<V2")
"""How NumPy stores the bfloat16 of ml_dtypes: two bytes without meaning."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped.

    Raises:
        CheckpointError: the file is damaged, truncated, or none.
    """
    with path.open("rb"):  # the library calls a file that it may not read one that is not there
        pass
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except _DAMAGE as error:
        raise CheckpointError(
            f"damaged or no safetensors file ({error})", where=path, remedy="copy it again"
        ) from error


def safetensors_names(path: Path) -> frozenset[str]:
    """Names of the tensors in a safetensors file; empty for a damaged or another file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return frozenset(file.keys())
    except _DAMAGE:
        return frozenset()


def is_torch_file(path: Path) -> bool:
    """Does the file begin like one that torch.save wrote, whole or cut off? A NumPy archive does not."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80":  # a bare pickle: torch before 1.6, or somebody's own
        return True
    if start != _ZIP_START:
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except _DAMAGE:  # the directory at its end is damaged, or was cut off: reading it will say so
        return path.suffix != ".npz"


def is_npz_file(path: Path) -> bool:
    """Is it a NumPy archive, whole or (by its name) cut off?"""
    with path.open("rb") as file:
        if file.read(4) != _ZIP_START:
            return path.suffix == ".npz"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _DAMAGE:
        return path.suffix == ".npz"
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_torch_file(path: Path, *, mapped: bool = True) -> Any:
    """What torch.save stored, through the unpickler that knows tensors and plain containers only; mapped.

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
        remedy = "save a plain dictionary of tensors"
        if named := _FOREIGN.search(str(error)):
            raise ForeignPickleError(
                f"refused, reading it would run code: it names {named[1][:80]}", where=path, remedy=remedy
            ) from error
        raise CheckpointError(
            "refused, reading it could run code or it is damaged", where=path, remedy=remedy
        ) from error
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # the disk's trouble; EINVAL is a seek to where a damaged directory points
        raise CheckpointError(
            f"damaged or truncated torch file ({_first_sentence(error)})", where=path, remedy="copy it again"
        ) from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """All arrays of a NumPy archive; mapped where they are stored uncompressed, as `numpy.savez` does.

    Compressed ones are unpacked one after the other. bfloat16, which NumPy does not know, is recognised by
    its two meaningless bytes. Arrays of objects, which are pickles, are refused.

    Raises:
        CheckpointError: the file is damaged, none, or holds something else than arrays of numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                entry.filename.removesuffix(".npy"): _array(archive, entry, path)
                for entry in archive.infolist()
            }
    except _DAMAGE as error:
        raise CheckpointError(
            f"damaged or no NumPy archive ({_first_sentence(error)})", where=path, remedy="copy it again"
        ) from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Tensor:
    if entry.file_size > _LARGEST_RATIO * max(entry.compress_size, 4096):
        raise CheckpointError(
            f"{entry.filename!r} would unfold to {entry.file_size} bytes", where=path, remedy="save it anew"
        )
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        begin, is_bfloat16 = file.tell(), dtype.str in _BFLOAT16_NAMES
        stored = np.dtype("<u2") if is_bfloat16 else dtype
        if stored.hasobject or stored.kind not in "biuf":
            raise CheckpointError(f"{entry.filename!r} holds {dtype}, no numbers", where=path)
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if min(shape, default=1) < 0 or begin + count * stored.itemsize != entry.file_size:
            raise CheckpointError(
                f"{entry.filename!r} claims another number of entries than the file holds", where=path
            )
        if entry.compress_type == zipfile.ZIP_STORED:
            flat = _mapped(path, _data_offset(path, entry) + begin, count, stored)
        else:
            flat = np.frombuffer(bytearray(file.read()), dtype=stored)
    values = torch.from_numpy(flat.astype(flat.dtype.newbyteorder("="), copy=False))
    values = values.view(torch.bfloat16) if is_bfloat16 else values
    return values.view(shape[::-1]).permute(*range(len(shape))[::-1]) if fortran else values.view(shape)


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind its own header, whose fields differ from the directory's."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return int(entry.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes)


def _mapped(path: Path, offset: int, count: int, dtype: np.dtype) -> np.ndarray:
    """A stretch of a file as an array; private, so that writing to it would not reach the file."""
    if count == 0:
        return np.zeros(0, dtype)
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return np.frombuffer(pages, dtype=dtype, count=count, offset=offset)


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
        safetensors.torch.save_file(stored, unfinished)
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
    lines = f"{type(error).__name__}: {error}".splitlines()
    return textwrap.shorten(lines[0], 120, placeholder=" ...")
