"""What a user calls checkpoints -> where each of them lies: a file, a folder, all below it, a hub repository.

`sweep/layer_4` is one checkpoint, `sweep/**` every checkpoint below `sweep`, `sweep/*/k32` each that matches,
and `hf:owner/name/path@revision` is one of a hub repository, or with a pattern for the path several.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from autointerp.checkpoints.hub import HubFiles, download, find_files, parse_address
from autointerp.checkpoints.path_patterns import (
    PathPattern,
    Places,
    has_wildcard,
    natural_key,
    split_pattern,
)
from autointerp.errors import CheckpointError, ForeignPickleError
from autointerp.progress import SILENT, Progress

__all__ = ["Location", "find_checkpoints"]

Recognises = Callable[[Path], bool]
_Names = tuple[str, ...]
"""The names of folders and file on the way from where a search began."""

_HUB = "hf:"
_WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")
_EVERYTHING = PathPattern(("**",))
_MOST_ENTRIES = 200_000
_HOW_TO_SEE_WHY = "`autointerp inspect PATH` says why one of them is not recognised"


@dataclass(frozen=True)
class Location:
    """Where one checkpoint lies."""

    path: Path
    """What `read_checkpoint` is given."""
    name: str
    """Short, and unlike those of the others that were found with it."""
    shown: str
    """What a report prints: from where the search began, or `hf:owner/name/path@commit`."""
    repository: str | None = None
    """Of the hub, if it came from there."""
    revision: str | None = None
    """The whole commit, if it came from the hub."""


def find_checkpoints(text: str, *, recognises: Recognises, progress: Progress = SILENT) -> list[Location]:
    """The checkpoints that a text stands for, sorted as people count: layer_2 before layer_10.

    Where a file or folder is named, it is the one, and whoever reads it says what is wrong with it: that it
    is not there, too.

    A pattern leaves out what is not recognised, but keeps what is damaged or cannot be looked into, for
    whoever reads it to say so. Inside a checkpoint no others are looked for, and a link to something that is
    found under its own name is left out.

    Args:
        text: a path, a pattern, or `hf:owner/name[/path or pattern][@revision]`.
        recognises: whether a file or folder is a checkpoint; a CheckpointError means a damaged one.
        progress: is told how far a download is.

    Raises:
        CheckpointError: a folder is no checkpoint but holds some; nothing matches a
            pattern, or too much lies where it begins; or as the functions of `hub` say.
    """
    if "\0" in text or not text:
        raise CheckpointError(
            "this is no path", where=repr(text), remedy="name a checkpoint's file or folder"
        )
    if text.startswith(_HUB):
        return _on_the_hub(text, recognises, progress)
    expanded = _expanded(text)
    if has_wildcard(expanded) and not os.path.lexists(expanded):  # a name may hold such signs
        return _matching(text, expanded, recognises)
    path = Path(expanded)
    _refuse_folder_of_several(path, f"{text.rstrip('/')}/**", text, recognises)
    return [Location(path, *_named(path))]


def _expanded(text: str) -> str:
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError as error:
        raise CheckpointError("there is no such home folder", where=text, remedy="write it out") from error


def _named(path: Path) -> tuple[str, str]:
    """What a file or folder that stands for itself is called, and is shown as."""
    shown = path.name if path.name not in ("", "..") else path.resolve().name
    return _legible(shown.removesuffix(path.suffix) if path.suffix in _WEIGHTS else shown), _legible(shown)


def _matching(text: str, expanded: str, recognises: Recognises) -> list[Location]:
    folder, parts = split_pattern(expanded)
    root = Path(folder or ".")
    if ".." in parts:
        raise CheckpointError("'..' cannot stand behind a wildcard", where=text, remedy="write the path out")
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "there is no such folder"
        raise CheckpointError(
            f"{folder!r}: {what}", where=text, remedy="check what stands before the wildcard"
        )
    search = _Search(root, PathPattern(parts), recognises)
    found = search.run(text)
    if not found:
        raise search.nothing_found(text)
    paths = [root.joinpath(*names) for names in found]
    itself = _named(root)[1]
    shown = [_legible("/".join(names)) or itself for names in found]
    return [Location(*each) for each in zip(paths, _short_names(found, itself), shown, strict=True)]


# ---- the hub ----------------------------------------------------------------------------------------


def _on_the_hub(text: str, recognises: Recognises, progress: Progress) -> list[Location]:
    address = parse_address(text)
    files = find_files(address)
    download(files, progress=progress)
    if address.is_pattern:
        _, parts = split_pattern(address.sub_path)
        search = _Search(files.path, PathPattern(parts), recognises)
        found = search.run(text)
        if not found:
            raise search.nothing_found(text)
    else:
        below = address.at(f"{address.sub_path}/**".lstrip("/"), address.revision)
        _refuse_folder_of_several(files.path, below, text, recognises)
        found = [()]
    names = _short_names(found, (files.root or address.repository).rpartition("/")[2])
    return [_of_the_hub(files, place, name) for place, name in zip(found, names, strict=True)]


def _of_the_hub(files: HubFiles, names: _Names, name: str) -> Location:
    inside = "/".join([files.root, *names] if files.root else names)
    shown = _legible(files.address.at(inside, files.commit))
    return Location(files.path.joinpath(*names), name, shown, files.address.repository, files.commit)


# ---- searching --------------------------------------------------------------------------------------


def _refuse_folder_of_several(path: Path, pattern: str, text: str, recognises: Recognises) -> None:
    if not path.is_dir() or _is_checkpoint(path, recognises):
        return
    found = _Search(path, _EVERYTHING, recognises).run(text)
    if found:
        several = f"{len(found)} checkpoint{'s' if len(found) > 1 else ''}"
        raise CheckpointError(
            f"no checkpoint itself, found {several} below", where=text, remedy=f"use {pattern!r}"
        )


def _is_checkpoint(path: Path, recognises: Recognises) -> bool:
    try:
        return recognises(path)
    except ForeignPickleError:  # somebody's other file: settings of a run, an optimizer
        return False
    except CheckpointError:
        return True
    except OSError:
        return path.suffix in _WEIGHTS


@dataclass
class _Search:
    """Goes through a folder and those inside it, in natural order, where a match can be."""

    root: Path
    pattern: PathPattern
    recognises: Recognises
    file_count: int = 0
    folder_count: int = 0

    def run(self, text: str) -> list[_Names]:
        """The checkpoints that match, without a second name for one that is found under its own."""
        found = list(self._found(text))
        here = self.root.resolve()
        really = {names: self.root.joinpath(*names).resolve() for names in found}
        own = {place for names, place in really.items() if place == here.joinpath(*names)}
        return [n for n in found if really[n] == here.joinpath(*n) or really[n] not in own]

    def nothing_found(self, text: str) -> CheckpointError:
        """What was looked at."""
        return CheckpointError(
            f"no checkpoint matches among {self.file_count} files and {self.folder_count} folders looked at",
            where=text,
            remedy=_HOW_TO_SEE_WHY,
        )

    def _found(self, text: str) -> Iterator[_Names]:
        waiting: list[tuple[_Names, Places, frozenset[tuple[int, int]]]] = [
            ((), self.pattern.start, frozenset())
        ]
        while waiting:
            names, places, above = waiting.pop()
            path = self.root.joinpath(*names)
            is_folder = self._count(path, text)
            if is_folder is None:
                continue
            if self.pattern.is_met(places) and _is_checkpoint(path, self.recognises):
                yield names
            elif is_folder and self.pattern.goes_on(places):
                try:
                    identity, inner = _opened(path, text)
                except OSError:
                    yield names
                    continue
                if identity not in above:  # else a link leads back to a folder that we are in
                    steps = ((name, self.pattern.step(places, name)) for name in inner)
                    further = above | {identity}
                    waiting += [((*names, name), after, further) for name, after in steps if after]

    def _count(self, path: Path, text: str) -> bool | None:
        """Whether it is a folder; None for what is neither file nor folder: a device, a link to nowhere."""
        if self.file_count + self.folder_count >= _MOST_ENTRIES:
            raise _too_many(text)
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except OSError:
            return None
        self.folder_count += is_folder
        self.file_count += is_file
        return is_folder if is_folder or is_file else None


def _opened(path: Path, text: str) -> tuple[tuple[int, int], list[str]]:
    """What tells a folder from every other, and the names in it, last first."""
    status = path.stat()
    with os.scandir(path) as entries:
        names = [entry.name for entry in islice(entries, _MOST_ENTRIES + 1)]
    if len(names) > _MOST_ENTRIES:
        raise _too_many(text)
    return (status.st_dev, status.st_ino), sorted(names, key=natural_key, reverse=True)


def _too_many(text: str) -> CheckpointError:
    return CheckpointError(
        f"more than {_MOST_ENTRIES:,} files and folders lie there",
        where=text,
        remedy="use a pattern that begins further down, or has fewer '**'",
    )


# ---- names ------------------------------------------------------------------------------------------


def _short_names(found: Sequence[_Names], itself: str) -> list[str]:
    """The shortest paths that tell them apart: without the folders that all share, first or last."""
    rests = [list(names) for names in found]
    for end in (0, -1):
        while len(rests) > 1 and all(len(rest) > 1 for rest in rests) and len({r[end] for r in rests}) == 1:
            for rest in rests:
                rest.pop(end)
    if len(rests) == 1:
        rests = [rests[0][-1:]]
    names = [_legible("/".join(rest) or itself) for rest in rests]
    bare = [_without_suffix(name) for name in names]
    return _distinct(bare if len(set(bare)) == len(bare) else names)


def _distinct(names: list[str]) -> list[str]:
    """Names that are not UTF-8 may have become alike."""
    distinct: dict[str, None] = {}
    for name in names:
        tries = (name if number == 1 else f"{name} ({number})" for number in count(1))
        distinct[next(each for each in tries if each not in distinct)] = None
    return list(distinct)


def _without_suffix(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in _WEIGHTS if name.endswith(suffix)), name)


def _legible(text: str) -> str:
    """A name that is not UTF-8 could not be written into a report."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
