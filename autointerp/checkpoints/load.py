"""A path -> a SparseAutoencoder: asks every format whether it recognises what lies there.

To add a format: one module in `formats/` with the members of `CheckpointFormat`, and its name in `FORMATS`.

The formats hand over matrices as they lie in the file, mapped. Those of ordinary size are then brought into
memory, one at a time, straight to their device and precision; larger ones stay in the file, and the sparse
methods of the dictionary bring over what they need, shard by shard.
"""

import hashlib
import os.path
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from autointerp.checkpoints.formats import (
    circuit_tracer,
    described,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    llamascopium,
    openai,
    saelens,
    sparsify,
)
from autointerp.checkpoints.matching_pursuit import MatchingPursuit
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.tensor_files import is_torch_file, read_torch_file
from autointerp.errors import CheckpointError

__all__ = [
    "FORMATS",
    "ROOM_BYTES",
    "WRITABLE_FORMATS",
    "CheckpointFormat",
    "LoadedCheckpoint",
    "WritableFormat",
    "is_checkpoint",
    "load_checkpoint",
    "placed",
    "read_checkpoint",
    "write_checkpoint",
]


@runtime_checkable
class CheckpointFormat(Protocol):
    """What a module in `formats/` provides."""

    NAME: str
    """How the suite, the report and `write_checkpoint` call it."""
    LAYOUT: str
    """What it looks like on disk, for people."""

    def recognises(self, path: Path) -> bool:
        """Is this one of ours? By content, cheap.

        True for a damaged one, so that `read` can say what is wrong with it.
        """
        ...

    def files(self, path: Path) -> tuple[Path, ...]:
        """The files that make up the checkpoint."""
        ...

    def read(self, path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
        """The dictionary, and the names of what the checkpoint does not say.

        Vectors are in float32; matrices as they are stored, mapped, transposed by a view at most.
        """
        ...


@runtime_checkable
class WritableFormat(CheckpointFormat, Protocol):
    """A format that `autointerp train` can write too."""

    def write(self, sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Store it, or raise a CheckpointError when the format cannot hold it."""
        ...


FORMATS: tuple[CheckpointFormat, ...] = (
    openai,
    saelens,
    sparsify,
    gemma_scope,
    gemma_scope_2,
    dictionary_learning,
    llama_scope,
    llamascopium,
    circuit_tracer,
    described,
)
WRITABLE_FORMATS: tuple[WritableFormat, ...] = (openai, saelens, sparsify, dictionary_learning)

ROOM_BYTES = 2**30
"""Bytes of one checkpoint's matrices that are brought into the computer's own memory."""


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A dictionary with what is known of the files it came from."""

    sae: SparseAutoencoder
    path: Path
    sha256: str
    """Of the file; for a folder of the lines `relative name, NUL, sha256` of the checkpoint's own files."""
    format: str
    missing: tuple[str, ...]
    """What the checkpoint does not say: `site`, `subject`, ..."""
    file_size_bytes: int
    """Of the checkpoint's own files together."""
    files: tuple[Path, ...] = ()
    """The checkpoint's own files."""

    @property
    def architecture(self) -> str:
        """`topk(k=32)`, `relu`, `jumprelu transcoder + skip`."""
        return self.sae.architecture

    @property
    def normalization(self) -> str:
        """`none`, `layer_norm`, `constant_norm`, `scale(0.12)`."""
        return self.sae.normalization.describe()


def load_checkpoint(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> SparseAutoencoder:
    """The dictionary that lies at `path`, whatever format it is in; see `read_checkpoint`."""
    return read_checkpoint(path, dtype=dtype, device=device).sae


def read_checkpoint(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    room: int | None = None,
) -> LoadedCheckpoint:
    """The dictionary at `path` with its format, content hash and what it does not say.

    Args:
        path: a file or folder.
        dtype: what it computes in.
        device: where.
        room: see `placed`.

    Raises:
        CheckpointError: nothing is there, no format or more than one recognises it, or it is damaged, unsafe,
            or a variant that cannot be loaded exactly.
    """
    path = Path(path)
    try:
        chosen = _recognised_format(path)
        sae, missing = chosen.read(path)
        files = chosen.files(path)
        sha256, file_size_bytes = _sha256(path, files), sum(file.stat().st_size for file in files)
        sae = placed(sae, device=device, dtype=dtype, room=room)
    except OSError as error:
        raise CheckpointError(
            f"cannot be read ({error.strerror or error})",
            where=error.filename or path,
            remedy="give the path of a checkpoint's file or folder that can be read",
        ) from error
    except CheckpointError as error:
        if error.where:
            raise
        raise CheckpointError(error.what, where=path, remedy=error.remedy) from error
    return LoadedCheckpoint(sae, path, sha256, chosen.NAME, missing, file_size_bytes, files)


def placed(
    sae: SparseAutoencoder,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    room: int | None = None,
) -> SparseAutoencoder:
    """A dictionary that computes on `device` in `dtype` (None: as it does now).

    Its matrices are copied there if they take no more than `room` bytes: by default 1 GiB on a CPU, a quarter
    of an accelerator's memory. Else they stay where they are (`is_streamed`), so that the memory needed does
    not grow with the dictionary.

    Raises:
        CheckpointError: they do not fit, and the activation function has to look at all of them at once.
    """
    device, dtype = torch.device(device), dtype or sae.dtype
    moved = sae.to(device, dtype, matrices=False)
    matrices = sae.matrices()
    needed, room = sae.matrix_bytes(dtype), _room(device) if room is None else room
    if needed > room and not sae.activation.needs_all_latents:
        return moved
    if needed > max(room, _room(device)):
        raise CheckpointError(
            f"{sae.activation.describe()} needs its {needed / 2**30:.1f} GiB of directions in memory at once",
            remedy=f"there are {_room(device) / 2**30:.1f} GiB for a dictionary",
        )
    # A copy even where nothing changes: a file that is overwritten later must not reach into the run.
    copies = {
        name: torch.empty(matrix.shape, dtype=dtype, device=device).copy_(matrix)
        for name, matrix in matrices.items()
    }
    activation = moved.activation
    if isinstance(activation, MatchingPursuit):  # looks at the decoder's own rows
        activation = replace(activation, directions=copies["decoder_weight"])
    return replace(moved, **copies, activation=activation, is_streamed=False)


def _room(device: torch.device) -> int:
    if device.type != "cuda":
        return ROOM_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory) // 4


def write_checkpoint(
    sae: SparseAutoencoder, path: str | Path, *, format: str, dtype: torch.dtype = torch.float32
) -> None:
    """Store a dictionary in the format called `format`, its weights rounded to `dtype`.

    Raises:
        CheckpointError: no such format, it cannot hold this dictionary, or `path` cannot be written.
    """
    chosen = next((candidate for candidate in WRITABLE_FORMATS if format == candidate.NAME), None)
    if chosen is None:
        names = ", ".join(candidate.NAME for candidate in WRITABLE_FORMATS)
        raise CheckpointError(
            f"no format called {format!r} can be written", where=path, remedy=f"known are {names}"
        )
    try:
        chosen.write(sae.to("cpu", torch.float32), Path(path), dtype=dtype)
    except OSError as error:
        raise CheckpointError(f"cannot be written ({error.strerror or error})", where=path) from error
    except CheckpointError as error:
        raise (
            error if error.where else CheckpointError(error.what, where=path, remedy=error.remedy)
        ) from error


def is_checkpoint(path: Path) -> bool:
    """Whether a format recognises what lies there; more than one, or a damaged one, counts too.

    Raises:
        CheckpointError: it cannot even be looked at.
    """
    try:
        return any(candidate.recognises(path) for candidate in FORMATS)
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=path) from error


def _recognised_format(path: Path) -> CheckpointFormat:
    if "\0" in str(path):
        raise CheckpointError("a path cannot hold a NUL character", where=repr(str(path)))
    path.stat()  # says whether it is absent, forbidden, or a circle of links
    recognised = [candidate for candidate in FORMATS if candidate.recognises(path)]
    if len(recognised) == 1:
        return recognised[0]
    if recognised:
        names = " and ".join(candidate.NAME for candidate in recognised)
        raise CheckpointError(
            f"looks like more than one format: {names}",
            where=path,
            remedy="keep each checkpoint in its own folder",
        )
    known = ", ".join(candidate.NAME for candidate in FORMATS)
    raise CheckpointError(
        f"no known checkpoint format, seen: {_seen(path)}",
        where=path,
        remedy=f"known are {known} (docs/checkpoints.md has their files, and how to describe another)",
    )


def _seen(path: Path) -> str:
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        return f"a folder with {_first(names)}" if names else "an empty folder"
    if not path.is_file():
        return "neither a file nor a folder"
    if is_torch_file(path):
        content = read_torch_file(path, mapped=True)
        keys = f" with {_first(sorted(map(str, content)))}" if isinstance(content, dict) else ""
        return f"a torch file of a {type(content).__name__}{keys}"
    return f"a file of {path.stat().st_size} bytes"


def _first(names: list[str], *, shown: int = 12) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _sha256(path: Path, files: tuple[Path, ...]) -> str:
    """Of a single file what `sha256sum` says; of several, of the lines that name each with its own hash."""
    path, files = path.absolute(), tuple(file.absolute() for file in files)
    if files == (path,):
        return _sha256_of_file(path)
    inside = all(file.is_relative_to(path) for file in files)
    root = path if inside and path.is_dir() else Path(os.path.commonpath([file.parent for file in files]))
    digest = hashlib.sha256()
    for part in sorted(files):
        digest.update(f"{part.relative_to(root).as_posix()}\0{_sha256_of_file(part)}\n".encode())
    return digest.hexdigest()


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
