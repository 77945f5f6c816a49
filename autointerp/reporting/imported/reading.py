"""A path -> the results of whichever program wrote it."""

import json
from collections.abc import Sequence
from pathlib import Path

from autointerp.errors import RunStoreError
from autointerp.reporting.imported.delphi import delphi_results, is_delphi
from autointerp.reporting.imported.result import ImportedResult
from autointerp.reporting.imported.saebench import is_saebench, saebench_results

__all__ = ["read_results"]

_LARGEST_BYTES = 256 * 2**20
_KNOWN = "SAEBench's *_eval_results.json, a folder of them, or a delphi run's folder (with scores/)"


def read_results(paths: Sequence[Path]) -> list[ImportedResult]:
    """All numbers in these files and folders.

    Raises:
        RunStoreError: one is not there, or is nothing that is known; the line says what is.
    """
    return [result for path in paths for result in _read(path)]


def _read(path: Path) -> list[ImportedResult]:
    if path.is_dir():
        if is_delphi(path):
            return list(delphi_results(path))
        files = sorted(path.rglob("*_eval_results.json"))
        if files:
            return [result for file in files for result in _read(file)]
        raise RunStoreError("holds no results that are known", where=path, remedy=f"known are {_KNOWN}")
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise RunStoreError("is too large for a file of results", where=path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunStoreError(f"cannot be read ({error.strerror})", where=path) from None
    except (ValueError, RecursionError):
        raise RunStoreError("is no JSON", where=path, remedy=f"known are {_KNOWN}") from None
    if not is_saebench(content):
        raise RunStoreError("is nobody's results that are known", where=path, remedy=f"known are {_KNOWN}")
    return list(saebench_results(content))
