"""The state of a run on disk: written whole or not at all, and never taken for another run's."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from autointerp.atomic_files import reported
from autointerp.errors import BadInputError

__all__ = ["load_state", "save_state"]


def save_state(path: Path, identity: str, contents: dict[str, Any]) -> None:
    """Replace the state in one move; a kill at any moment leaves the old or the new one.

    Raises:
        RunStoreError: the folder cannot be written, or the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save({"identity": identity, **contents}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def load_state(path: Path, identity: str) -> dict[str, Any] | None:
    """The state of this run, or None when nothing was saved yet.

    Raises:
        BadInputError: the file is damaged, or belongs to a run with other options.
    """
    if not path.exists():
        return None
    try:
        # What is no archive would go to torch's reader of its old format, which fails in any way it likes.
        state = torch.load(path, weights_only=True) if zipfile.is_zipfile(path) else None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _unreadable(path) from error
    if not isinstance(state, dict):
        raise _unreadable(path)
    if state.get("identity") != identity:
        raise BadInputError(
            "the folder holds the state of a run with another subject, site, text or options",
            where=path,
            remedy="choose another folder, or delete it to start over",
        )
    return state


def _unreadable(path: Path) -> BadInputError:
    return BadInputError("the saved state cannot be read", where=path, remedy="delete it to start over")
