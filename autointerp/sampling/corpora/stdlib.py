"""The standard library of the running interpreter as a corpus: one document per module, found offline."""

import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.local_files import CorpusFile, hash_files, list_files, shuffled

__all__ = ["StandardLibrary"]

_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "encodings",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
"""Tests repeat what they test, `encodings` are tables, and packages are not the library."""
_FEWEST_FILES = 50


@dataclass(frozen=True)
class StandardLibrary:
    """Its modules in an order that the hash of their names gives, so that a prefix is a random sample."""

    root: Path | None = None
    """Folder of the library; None for the running interpreter's."""

    @property
    def name(self) -> str:
        """The interpreter's version is what tells one library from another."""
        return f"Python {sysconfig.get_python_version()} standard library"

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name and source of every module that can be decoded."""
        for file in self._files():
            try:
                with tokenize.open(file.path) as stream:
                    yield file.name, stream.read()
            except (SyntaxError, UnicodeDecodeError):
                # An undeclared encoding: as good as not there, in every run alike.
                continue
            except OSError as error:
                raise CorpusError(f"cannot be read ({error.strerror})", where=file.path) from error

    def identity(self) -> Iterator[bytes]:
        """What the fingerprint is taken over."""
        return hash_files(self._files())

    def _files(self) -> list[CorpusFile]:
        root = self.root or Path(sysconfig.get_path("stdlib"))
        found = list_files(root, [".py"]) if root.is_dir() else []
        # `_sysconfigdata*` is written by the build of the interpreter and differs from machine to machine.
        kept = [
            file
            for file in found
            if not _LEFT_OUT & set(file.name.split("/")) and not file.path.name.startswith("_sysconfigdata")
        ]
        if len(kept) < _FEWEST_FILES:
            raise CorpusError(
                f"only {len(kept)} source files of the standard library are here, {_FEWEST_FILES} are needed",
                where="corpus",
                remedy="use an interpreter that is neither zipped nor stripped, or another corpus",
            )
        return shuffled(kept)
