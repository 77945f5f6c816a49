"""Bytes -> files that are whole or not there; trouble with the disk -> RunStoreError."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from autointerp.errors import RunStoreError

__all__ = ["append", "drop_torn_line", "reported", "write_atomically"]


def append(path: Path, line: str) -> None:
    """Add a line to a file in one go, so that lines of several threads are not mixed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        _write_wholly(descriptor, line.encode())
    finally:
        os.close(descriptor)


def drop_torn_line(path: Path) -> None:
    """Cut off what a killed process left of its last line, lest the next event be joined to it."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


def write_atomically(target: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, rename, and flush the folder's entry too."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write_wholly(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def _write_wholly(descriptor: int, content: bytes) -> None:
    """os.write may take less than it is given, on a nearly full disk for one."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets folders be flushed."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """Any trouble with the disk becomes the one error that users meet, with what to do about it."""
    try:
        yield
    except OSError as error:
        remedy = "name a folder that can be written with --out"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            remedy = "free some space; running the same command again goes on from here"
        raise RunStoreError(
            f"cannot be read or written: {error.strerror or error}", where=path, remedy=remedy
        ) from error
