"""Finds the data that ships beside the code: suites, policies, probe tasks.

In a wheel they lie in `autointerp/_bundled`, in a checkout in `benchmarks/` and `probes/`.
"""

from pathlib import Path

from autointerp.errors import BadInputError

__all__ = ["bundled_folder", "bundled_path"]

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT_FOLDERS = {"policies": "benchmarks/policies", "probes": "probes", "suites": "benchmarks/suites"}


def bundled_path(kind: str, name: str) -> Path:
    """The path of a bundled file, e.g. `bundled_path("suites", "demo.toml")`.

    Raises:
        BadInputError: there is no such file; the message lists those there are.
    """
    folders = (_PACKAGE / "_bundled" / kind, _PACKAGE.parent / _CHECKOUT_FOLDERS[kind])
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    there = sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    raise BadInputError(f"no bundled {kind} file {name!r}", remedy=f"there are: {', '.join(there) or 'none'}")


def bundled_folder(kind: str) -> Path:
    """The folder of all bundled files of a kind, e.g. `bundled_folder("probes")`.

    Raises:
        BadInputError: it is missing from this installation.
    """
    for folder in (_PACKAGE / "_bundled" / kind, _PACKAGE.parent / _CHECKOUT_FOLDERS[kind]):
        if folder.is_dir():
            return folder
    raise BadInputError(f"the bundled {kind} are missing from this installation", remedy="install again")
