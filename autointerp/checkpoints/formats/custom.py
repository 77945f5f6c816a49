"""A dictionary that the user's own code makes, named as `package.module:factory`. Not a format of files.

This imports and runs code, the user's own, and only because the user wrote its name on the command line or in
the suite. No checkpoint can have it done: no format calls what is here, and what lies at a path is never
taken for the name of a factory.
"""

import dataclasses
import hashlib
import importlib
import keyword
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.errors import CheckpointError

__all__ = ["content_sha256", "from_factory", "is_factory_name"]

_PREFIXES = ("hf", "demo")
"""What stands before a colon in other names of checkpoints."""
_DRIVE = re.compile("[A-Za-z]")
_BLOCK_BYTES = 16 * 2**20


def is_factory_name(text: str) -> bool:
    """Is it `dotted.name:identifier`, and neither a path that exists, a drive, nor `hf:` or `demo:`?"""
    module, colon, factory = text.partition(":")
    if not colon or module in _PREFIXES or _DRIVE.fullmatch(module):
        return False
    parts = [*module.split("."), factory]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        return False
    return not Path(text).exists()


def from_factory(text: str) -> SparseAutoencoder:
    """What `factory()` of the imported module returns, which must be a SparseAutoencoder.

    Runs the user's own code, named by the user; a checkpoint's file can never bring this about.

    Raises:
        CheckpointError: no such module or function, it raises, or returns something else.
    """
    if not is_factory_name(text):
        raise CheckpointError("no name of a factory", where=text, remedy="write package.module:function")
    module_name, _, name = text.partition(":")
    module = _run(lambda: importlib.import_module(module_name), text, f"importing {module_name}")
    factory = getattr(module, name, None)
    if not callable(factory):
        raise CheckpointError(
            f"{module_name} has no function {name}", where=text, remedy="define it, without arguments"
        )
    made = _run(factory, text, f"calling {name}()")
    if not isinstance(made, SparseAutoencoder):
        raise CheckpointError(
            f"{name}() returned a {type(made).__name__}",
            where=text,
            remedy="return an autointerp.checkpoints.sparse_autoencoder.SparseAutoencoder",
        )
    return made


def content_sha256(sae: SparseAutoencoder) -> str:
    """The identity of a dictionary without a file: sha256 over its tensors and settings.

    Two dictionaries with the same parts have the same one, however their tensors lie in memory (a transposed
    view or a copy). Left out is the metadata, which changes nothing that is computed, and code: of a class of
    the user's own only the name is seen.
    """
    digest = hashlib.sha256()
    for part in _parts("", sae):
        digest.update(part)
    return digest.hexdigest()


def _run(call: Callable[[], Any], text: str, doing: str) -> Any:
    """Whatever the user's code raises, as one line."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError)
        raise CheckpointError(
            f"{doing} raised {type(error).__name__} ({str(error)[:200]})",
            where=text,
            remedy="put its folder on PYTHONPATH, or install it"
            if absent
            else "it is your own code: mend it",
        ) from error


def _parts(name: str, value: Any) -> Iterator[bytes]:
    """Bytes that tell a value from every other: names, types and shapes before contents."""
    if isinstance(value, Tensor):
        yield f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode()
        yield from _blocks(value.detach())
    elif dataclasses.is_dataclass(value):
        yield f"{name}\0{type(value).__qualname__}\n".encode()
        for field in dataclasses.fields(value):
            if not (isinstance(value, SparseAutoencoder) and field.name == "metadata"):
                yield from _parts(f"{name}.{field.name}", getattr(value, field.name))
    elif value is None or isinstance(value, bool | int | float | str):
        yield f"{name}\0{type(value).__name__}\0{value!r}\n".encode()
    else:
        raise CheckpointError(
            f"{name.removeprefix('.')} is a {type(value).__name__}, which has no bytes to identify it by",
            remedy="make it a dataclass of numbers, texts and tensors",
        )


def _blocks(tensor: Tensor) -> Iterator[bytes]:
    """The numbers row by row, some rows at a time: a tensor may be larger than memory."""
    rows = tensor.unsqueeze(0) if tensor.ndim == 0 else tensor
    row_bytes = max(1, rows[0].numel() * rows.itemsize) if len(rows) else 1
    for block in rows.split(max(1, _BLOCK_BYTES // row_bytes)):
        yield block.cpu().contiguous().view(torch.uint8).numpy().tobytes()
