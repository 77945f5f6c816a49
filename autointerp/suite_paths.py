"""What a suite calls files, checkpoints and its subject -> absolute paths; what is no path stays as it is."""

import os.path
import re
from pathlib import Path

from autointerp.errors import SuiteError

__all__ = ["absolute_path", "resolved_model", "stands_for_others"]

_EMBEDDED_SUBJECT = "demo"
_NO_PATH = re.compile(r"(?:demo|hf):.*|[A-Za-z_][\w.]+:[A-Za-z_]\w*")
"""What names a checkpoint without being a path: an embedded one, one of the hub, a function of the user's."""


def stands_for_others(path: str) -> bool:
    """Whether only a look can say which checkpoints are meant: a pattern, or a name of the hub."""
    if path.startswith("hf:"):
        return True
    return any(sign in path for sign in "*?[") and not os.path.exists(path)  # noqa: PTH110 - raises nothing


def resolved_model(model: str, folder: Path, *, where: str) -> str:
    """A folder's absolute path; the embedded subject's and a hub model's name as they are.

    Raises:
        SuiteError: it is a path that cannot be used.
    """
    if model == _EMBEDDED_SUBJECT:
        return model
    is_path = model.startswith((".", "~")) or os.path.isdir(folder / model)  # noqa: PTH112 - raises nothing
    return absolute_path(model, folder, where=where) if is_path else model


def absolute_path(path: str, folder: Path, *, where: str) -> str:
    """A path taken from `folder`; what is no path stays as it is.

    Raises:
        SuiteError: it is empty, or no file can have it.
    """
    if _NO_PATH.fullmatch(path):
        return path
    if not path:
        raise SuiteError("an empty path", where=where, remedy="give a file or folder")
    try:
        return str((folder / Path(path).expanduser()).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a circle of links, a NUL
        raise SuiteError(f"the path {path!r} cannot be used ({error})", where=where) from None
