"""Which files a hub repository has at a commit: asked of the hub once, then remembered beside the cache.

A commit never changes, so what was listed once holds for good. Without a connection the memory tells whether
the cached files are all there are; a listing that `huggingface_hub.snapshot_download` left does as well.
"""

import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autointerp.atomic_files import write_atomically
from autointerp.errors import CheckpointError

__all__ = ["HubTree", "parent_of"]

_MOST_ENTRIES = 200_000
_RECORD_VERSION = 1


def parent_of(path: str) -> str:
    """The folder of a file, both relative to the repository; empty for the repository's own."""
    return path.rpartition("/")[0]


@dataclass
class _Known:
    """What was listed so far."""

    sizes: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """Of each folder its files, by their paths in the repository, in bytes."""
    folders: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of each folder those inside it, by their paths in the repository."""
    levels: set[str] = field(default_factory=set)
    """Folders whose own files and folders are all known."""
    trees: set[str] = field(default_factory=set)
    """Folders below which everything is known."""

    def has_tree(self, folder: str) -> bool:
        return any(tree in ("", folder) or folder.startswith(tree + "/") for tree in self.trees)

    def has_level(self, folder: str) -> bool:
        return folder in self.levels or self.has_tree(folder)

    def add(self, path: str, size: int) -> None:
        self.sizes[parent_of(path)][path] = size
        self.add_folder(parent_of(path))

    def add_folder(self, folder: str) -> None:
        while folder and folder not in self.folders[parent_of(folder)]:
            self.folders[parent_of(folder)].add(folder)
            folder = parent_of(folder)


class HubTree:
    """The files of one repository at one commit."""

    def __init__(self, api: Any, repository: str, commit: str) -> None:
        """Read what is remembered; nothing is asked yet."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        self.repository, self.commit, self._api = repository, commit, api
        name = repo_folder_name(repo_id=repository, repo_type="model")
        storage = Path(constants.HF_HUB_CACHE).expanduser() / name
        self.snapshot = storage / "snapshots" / commit
        """The folder of the cache that holds this commit's files under their own names."""
        self._record = storage / "autointerp" / f"{commit}.json"
        self._known = _read(self._record)

    def level(self, folder: str) -> tuple[dict[str, int], set[str]]:
        """Files, with their sizes in bytes, and folders that lie directly in a folder."""
        if not self._known.has_level(folder):
            self._learn(folder, recursive=False)
        return self._known.sizes.get(folder, {}), self._known.folders.get(folder, set())

    def below(self, folder: str) -> dict[str, int]:
        """All files in a folder and in those inside it, with their sizes in bytes."""
        if not self._known.has_tree(folder):
            self._learn(folder, recursive=True)
        prefix = f"{folder}/" if folder else ""
        inner = (files for parent, files in self._known.sizes.items() if f"{parent}/".startswith(prefix))
        return {path: size for files in inner for path, size in files.items()}

    def take_cached_files_for_all(self) -> bool:
        """Without a listing: from now on what is in the cache counts as all there is; False: nothing is."""
        cached = [path for path in self.snapshot.rglob("*") if path.is_file()]
        for path in cached:
            self._known.add(path.relative_to(self.snapshot).as_posix(), path.stat().st_size)
        self._known.trees.add("")
        return bool(cached)

    def _learn(self, folder: str, *, recursive: bool) -> None:
        if self._learned_from_the_cache():
            return
        listed = self._api.list_repo_tree(
            self.repository, folder or None, recursive=recursive, revision=self.commit
        )
        for number, entry in enumerate(listed):
            if number >= _MOST_ENTRIES:
                raise CheckpointError(
                    f"there are more than {_MOST_ENTRIES:,} files and folders in it",
                    remedy="name a folder further down",
                )
            size = getattr(entry, "size", None)
            if size is None:
                self._known.add_folder(str(entry.path))
            else:
                self._known.add(str(entry.path), int(size))
        (self._known.trees if recursive else self._known.levels).add(folder)
        self._remember()

    def _learned_from_the_cache(self) -> bool:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            cached = get_cached_repo_tree(self.repository, revision=self.commit)
        except CachedRepoTreeNotFoundError:
            return False
        for entry in cached:
            self._known.add(str(entry.path), int(entry.size))
        self._known.trees.add("")
        return True

    def _remember(self) -> None:
        known = self._known
        content = {
            "version": _RECORD_VERSION,
            "sizes": {path: size for files in known.sizes.values() for path, size in files.items()},
            "folders": sorted(folder for inner in known.folders.values() for folder in inner),
            "levels": sorted(known.levels),
            "trees": sorted(known.trees),
        }
        with suppress(OSError):  # a cache that cannot be written to serves all the same
            self._record.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._record, json.dumps(content).encode())


def _read(record: Path) -> _Known:
    """What is remembered; nothing if it is absent, damaged, or of another version."""
    try:
        content = json.loads(record.read_bytes())
        if content["version"] != _RECORD_VERSION:
            return _Known()
        known = _Known(levels=set(map(str, content["levels"])), trees=set(map(str, content["trees"])))
        for path, size in content["sizes"].items():
            known.add(str(path), int(size))
        for folder in content["folders"]:
            known.add_folder(str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Known()
    return known
