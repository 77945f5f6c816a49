"""Matrices larger than memory that no checkpoint holds: written to an unnamed file in blocks, and mapped.

Its pages are the file's, so that they can be given up under pressure. The file has no name once it is open:
the system frees its space when the matrix is dropped, or the process ends, however it does.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.errors import CheckpointError

__all__ = ["scratch_matrix"]

_BLOCK_BYTES = 64 * 2**20


def scratch_matrix(
    shape: tuple[int, int], dtype: torch.dtype, rows: Callable[[int, int], Float[Tensor, "row column"]]
) -> Float[Tensor, "row column"]:
    """A matrix whose rows `first` to `last` are what `rows(first, last)` gives, rounded to `dtype`.

    Cost: its size on disk, in the folder for temporary files. Memory: 64 MiB (in float32) at a time.

    Raises:
        CheckpointError: there is no room.
    """
    row_count, width = shape
    step = max(1, _BLOCK_BYTES // (4 * width))
    path = None
    try:
        with tempfile.NamedTemporaryFile(prefix="autointerp-", delete=False) as file:
            path = Path(file.name)
            for first in range(0, row_count, step):
                block = rows(first, min(first + step, row_count)).to("cpu", dtype).contiguous()
                file.write(memoryview(block.flatten().view(torch.uint8).numpy()))
        flat = torch.from_file(str(path), shared=True, size=row_count * width, dtype=dtype)
    except OSError as error:
        raise CheckpointError(
            f"a matrix of {row_count} x {width} cannot be written ({error.strerror or error})",
            where=tempfile.gettempdir(),
            remedy="free some space, or name another folder in TMPDIR",
        ) from error
    finally:
        if path is not None:
            # Where an open file cannot be removed, it stays for the system's own clean-up.
            with contextlib.suppress(OSError):
                path.unlink()
    return flat.view(row_count, width)
