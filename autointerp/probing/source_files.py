"""Chooses modules of the running interpreter's own library that probe tasks are made from."""

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.stdlib import StandardLibrary
from autointerp.sampling.corpus import Corpus, Document, open_corpus

__all__ = ["LibraryFiles", "library_files"]

_CHARACTERS = 900_000
"""Source that is read in any case; about six times what is drawn from it with a vocabulary of 4096."""
_CHARACTERS_SOUGHT = 200_000
"""Source that is read beyond it for each text that a task seeks."""
_TEST_CHARACTERS = 250_000
_LARGEST_CHARACTERS = 50_000
"""Larger modules are left out: one of them would be much of all examples, and some are mere tables."""


@dataclass(frozen=True)
class LibraryFiles:
    """Modules, each with its source."""

    library: tuple[Document, ...]
    tests: tuple[Document, ...]
    no_tests: str = ""
    """Why there are no tests here."""


def library_files(sought: Sequence[str], *, root: Path | None = None) -> LibraryFiles:
    """The modules in the order of the corpus `stdlib`, which is that of their names' hashes.

    Args:
        sought: texts of rare things; modules that hold one are read beyond the first ones.
        root: folder of the library; None for the running interpreter's.

    Raises:
        CorpusError: the library is not here as source.
    """
    corpus = open_corpus("stdlib") if root is None else Corpus("stdlib", StandardLibrary(root))
    taken: list[Document] = []
    room = _CHARACTERS
    rooms = dict.fromkeys(sought, _CHARACTERS_SOUGHT)
    for document in corpus.documents():
        size = len(document.text)
        if size > _LARGEST_CHARACTERS:
            continue
        holds = [text for text in rooms if rooms[text] > 0 and text in document.text]
        if room > 0:
            room -= size
            taken.append(document)
        elif holds:
            taken.append(document)
            for text in holds:
                rooms[text] -= size
        elif not any(left > 0 for left in rooms.values()):
            break
    tests, reason = _tests(root or Path(sysconfig.get_path("stdlib")))
    return LibraryFiles(tuple(taken), tests, reason)


def _tests(root: Path) -> tuple[tuple[Document, ...], str]:
    taken: list[Document] = []
    room = _TEST_CHARACTERS
    try:
        for document in Corpus("stdlib", StandardLibrary(root / "test")).documents():
            is_test = Path(document.name).name.startswith("test_")
            if is_test and len(document.text) <= _LARGEST_CHARACTERS:
                taken.append(document)
                room -= len(document.text)
            if room <= 0:
                break
    except CorpusError:
        return (), "this interpreter comes without the library's own tests"
    return tuple(taken), ""
