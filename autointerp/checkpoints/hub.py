"""Files of a Hugging Face hub repository, at one commit, in the ordinary cache of `huggingface_hub`.

Only what can belong to a checkpoint is fetched: weights and configurations of the folders that are asked for,
and the small configurations of the folders above them. HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN and
HF_HUB_OFFLINE are honoured. Nothing that the hub says is quoted in a message: it might quote a token.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from autointerp.checkpoints.hub_errors import connection_errors, hub_errors_in_words
from autointerp.checkpoints.hub_tree import HubTree, parent_of
from autointerp.checkpoints.path_patterns import PathPattern, has_wildcard, natural_key, split_pattern
from autointerp.errors import CheckpointError
from autointerp.progress import SILENT, Progress

__all__ = ["HubAddress", "HubFiles", "download", "fetch", "find_files", "parse_address"]

_Names = tuple[str, ...]
_PREFIX = "hf:"
_EXAMPLE = "hf:jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre"
_OTHER_KINDS = ("datasets", "spaces", "kernels", "buckets")
_REVISION = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")

_ETAG = re.compile(r'(?:W/)?"?\w[\w.:=+~-]*"?', re.ASCII)
_HEADERS = {"ETag": _ETAG, "X-Linked-ETag": _ETAG, "X-Repo-Commit": _COMMIT}

_WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")
_CONFIGURATIONS = (".json", ".yaml", ".yml", ".toml")
_TRAINING_STATE = ("optimizer*.pt", "*scheduler*.pt", "trainer_state.pt", "rng_state*.pth")
"""As large as the weights and of no use here; fetched only where one is named."""
_INNER_FOLDER = "checkpoints"
"""Where llama_scope and lm-saes keep the weights of the folder around it."""
_DESCRIPTION = "autoencoder.toml"  # may name weights anywhere below its folder
_LARGEST_CONFIGURATION_ABOVE = 2**20
_MOST_NAMED = 8


@dataclass(frozen=True)
class HubAddress:
    """`hf:owner/name[/sub/path][@revision]`, taken apart."""

    repository: str
    sub_path: str = ""
    """Of a file or folder, or a pattern; empty: the whole repository."""
    revision: str = "main"
    """A branch, a tag or a commit."""

    def __str__(self) -> str:
        """As a user writes it."""
        return self.at(self.sub_path, self.revision)

    def at(self, path: str, revision: str) -> str:
        """Another place of the same repository, as a user writes it."""
        return f"{_PREFIX}{self.repository}{'/' + path if path else ''}@{revision}"

    @property
    def is_pattern(self) -> bool:
        """Whether the sub path stands for any number of checkpoints."""
        return has_wildcard(self.sub_path)


@dataclass(frozen=True)
class HubFiles:
    """What belongs to an address."""

    address: HubAddress
    commit: str
    """What the revision stands for."""
    snapshot: Path
    """The folder of the cache where the files of this commit lie."""
    root: str
    """Path in the repository of the file or folder that was named; of a pattern, what stands before it."""
    sizes: dict[str, int]
    """Bytes of each file, by its path in the repository."""

    @property
    def path(self) -> Path:
        """Where the file or folder that was named lies on this machine, once fetched."""
        return self.snapshot / self.root if self.root else self.snapshot

    @property
    def size_bytes(self) -> int:
        """Of all files together, those in the cache included."""
        return sum(self.sizes.values())

    @property
    def missing(self) -> dict[str, int]:
        """The files that are not in the cache."""
        return {name: size for name, size in self.sizes.items() if not (self.snapshot / name).is_file()}


def parse_address(text: str) -> HubAddress:
    """Take `hf:owner/name[/sub/path or pattern][@revision]` apart.

    Raises:
        CheckpointError: it is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    body, at, revision = text.removeprefix(_PREFIX).removeprefix("//").rpartition("@")
    body, revision = (body, revision) if at else (revision, "main")
    parts = body.rstrip("/").split("/")
    if parts[0] in _OTHER_KINDS and len(parts) > 2:
        raise CheckpointError(f"{parts[0]} hold no checkpoints", where=text, remedy="name a model repository")
    if len(parts) < 2:
        raise CheckpointError(
            "this is no repository's name; if it is the name of a SAELens release, SAELens has a table of "
            "the repositories that its releases stand for",
            where=text,
            remedy=f"write hf:owner/name/path, such as {_EXAMPLE}",
        )
    try:
        validate_repo_id("/".join(parts[:2]))
    except HFValidationError as error:
        raise CheckpointError(
            f"no repository can be called {'/'.join(parts[:2])!r}",
            where=text,
            remedy=f"write it as {_EXAMPLE}",
        ) from error
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise CheckpointError(
            f"no revision can be called {revision!r}",
            where=text,
            remedy="put a branch, a tag or a commit last, as in hf:owner/name/path@main",
        )
    if not all(map(_is_plain_name, parts[2:])):
        raise CheckpointError("a path cannot hold '..' or empty parts", where=text, remedy="correct the path")
    return HubAddress("/".join(parts[:2]), "/".join(parts[2:]), revision)


def fetch(
    repository: str, sub_path: str = "", revision: str = "main", *, progress: Progress = SILENT
) -> tuple[Path, str]:
    """Bring the files of a checkpoint, or of all that a pattern can mean, into the cache.

    Args:
        repository: `owner/name`.
        sub_path: a file, a folder or a pattern in it; empty: the repository itself.
        revision: a branch, a tag or a commit.
        progress: is told how far the download is.

    Returns:
        Where the file or folder lies (for a pattern: the folder that it begins in), and the commit.

    Raises:
        CheckpointError: as `find_files` and `download` say.
    """
    files = find_files(HubAddress(repository, sub_path, revision))
    download(files, progress=progress)
    return files.path, files.commit


def find_files(address: HubAddress) -> HubFiles:
    """Ask the hub what an address stands for; nothing is fetched yet.

    Without a connection the cache is asked instead.

    Raises:
        CheckpointError: no such repository, revision or path; no access; no connection and not in the cache;
            or there are no weights.
    """
    with hub_errors_in_words(address):
        api = _api()
        commit = str(api.resolve_revision(address.repository, revision=address.revision).resolved)
        if not _COMMIT.fullmatch(commit):
            raise CheckpointError("the hub names no commit for this revision", remedy="check HF_ENDPOINT")
        tree = HubTree(api, address.repository, commit)
        try:
            root, names = _found(tree, address)
        except connection_errors():
            # Nobody knows what a pattern misses, whereas the reader of one checkpoint knows what it needs.
            named = not address.is_pattern and (tree.snapshot / address.sub_path).exists()
            if not named or not tree.take_cached_files_for_all():
                raise
            root, names = _found(tree, address)
        for name in names:
            _refuse_outside(name)
        sizes = {name: tree.level(parent_of(name))[0][name] for name in sorted(names)}
    return HubFiles(address, commit, tree.snapshot, root, sizes)


def download(files: HubFiles, *, progress: Progress = SILENT) -> None:
    """Bring those files into the cache that are not there yet.

    Raises:
        CheckpointError: no connection, no access, no room, or the download broke off; running it again goes
            on with the files that are still missing.
    """
    with hub_errors_in_words(files.address):
        if missing := files.missing:
            _refuse_offline(files, missing)
            _refuse_without_room(files, sum(missing.values()))
            step = f"fetching {size_in_words(sum(missing.values()))} of {files.address.repository}"
            with progress.step(step, total=len(missing), unit="file") as advance:
                for name in missing:
                    _download_one(files, name)
                    advance(1)


def _download_one(files: HubFiles, name: str) -> None:
    with _headers_checked():
        _api().hf_hub_download(files.address.repository, name, revision=files.commit)
    if not (files.snapshot / name).is_file():
        raise CheckpointError(f"the hub gave {name} of another commit", remedy="check HF_ENDPOINT")


def size_in_words(size_bytes: int) -> str:
    """`820 kB`, `1.2 GB`."""
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def _api() -> Any:
    """Reads HF_ENDPOINT now: the library reads it when it is imported."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)


# ---- which files ------------------------------------------------------------------------------------


def _found(tree: HubTree, address: HubAddress) -> tuple[str, set[str]]:
    """Where the address begins, and the files that belong to it."""
    root, parts = split_pattern(address.sub_path)
    if _is_file(tree, root, address):
        chosen = _with_a_file(tree, root)
    else:
        chosen = _in_a_folder(tree, root, PathPattern(parts), address)
    return root, chosen | _configurations_above(tree, chosen)


def _is_file(tree: HubTree, path: str, address: HubAddress) -> bool:
    """Walk down from the repository's own folder, so that what is missing can be named."""
    folder = ""
    for name in path.split("/") if path else ():
        files, folders = tree.level(folder)
        inner = f"{folder}/{name}" if folder else name
        if inner in files and inner == path and not address.is_pattern:
            return True
        if inner not in folders:
            kind = "folder " if inner != path or inner in files else ""
            raise CheckpointError(
                f"there is no {kind}{inner!r} in it",
                remedy=f"there are {_first(sorted(folders | set(files), key=natural_key))}",
            )
        folder = inner
    return False


def _with_a_file(tree: HubTree, path: str) -> set[str]:
    if path.endswith(_WEIGHTS):
        return {path}
    if not path.endswith(_CONFIGURATIONS):
        raise CheckpointError(
            f"{path!r} is of no kind that is fetched",
            remedy=f"name a folder, or a file of weights: {', '.join(_WEIGHTS)}",
        )
    beside = set(filter(_is_weights, tree.level(parent_of(path))[0]))
    if not beside and path.endswith(".toml"):
        beside = set(filter(_is_weights, tree.below(parent_of(path))))
    return {path, *beside}


def _in_a_folder(tree: HubTree, root: str, pattern: PathPattern, address: HubAddress) -> set[str]:
    """The files that match, and those directly in a folder that matches."""
    names = [tuple(path.split("/")) for path in tree.below(root) if path.endswith(_WEIGHTS + _CONFIGURATIONS)]
    depth = len(root.split("/")) if root else 0
    holding = {name[depth:-1] for name in names if _is_weights("/".join(name))}
    described = {name[depth:-1] for name in names if name[-1] == _DESCRIPTION}
    chosen = {"/".join(name) for name in names if _belongs(name[depth:], pattern, holding, described)}
    chosen = {name for name in chosen if not _is_training_state(name)}
    if any(map(_is_weights, chosen)):
        return chosen
    if holding and not address.is_pattern:
        size = sum(size for name, size in tree.below(root).items() if _is_weights(name))
        raise CheckpointError(
            f"there are no weights in the folder itself, but {size_in_words(size)} in {len(holding)} below",
            remedy=f"use {address.at(f'{root}/**'.lstrip('/'), address.revision)!r}, or name one of them",
        )
    raise CheckpointError(
        f"there are no weights among the {len(tree.below(root))} files that were looked at",
        remedy=f"weights are files of these kinds: {', '.join(_WEIGHTS)}",
    )


def _belongs(name: _Names, pattern: PathPattern, holding: set[_Names], described: set[_Names]) -> bool:
    folder = name[:-1]
    if pattern.matches(name) or pattern.matches(folder):
        return True
    around = {folder[:depth] for depth in range(len(folder))} & described
    around |= {folder[:-1]} if folder[-1:] == (_INNER_FOLDER,) else set()
    return any(map(pattern.matches, around - holding))


def _configurations_above(tree: HubTree, chosen: Iterable[str]) -> set[str]:
    """What tells more of weights may lie beside them or in any folder above: `config.yaml` of a whole set."""
    folders: set[str] = set()
    for name in chosen:
        folder = parent_of(name)
        while folder not in folders:
            folders.add(folder)
            folder = parent_of(folder)
    return {
        name
        for folder in folders
        for name, size in tree.level(folder)[0].items()
        if name.endswith(_CONFIGURATIONS) and size <= _LARGEST_CONFIGURATION_ABOVE
    }


def _is_weights(path: str) -> bool:
    return path.endswith(_WEIGHTS) and not _is_training_state(path)


def _is_training_state(path: str) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) for pattern in _TRAINING_STATE)


# ---- what is refused --------------------------------------------------------------------------------


def _is_plain_name(part: str) -> bool:
    return part not in ("", ".", "..") and not any(sign in part for sign in "\\\0")


def _refuse_outside(path: str) -> None:
    """A repository's author chooses the names of its files; they must stay inside the cache on any system."""
    anchored = PurePosixPath(path).root or any(PureWindowsPath(part).anchor for part in path.split("/"))
    if anchored or not all(map(_is_plain_name, path.split("/"))):
        raise CheckpointError(
            f"it holds a file called {path!r}, which would lie outside of the cache",
            remedy="do not use this repository",
        )


@contextmanager
def _headers_checked() -> Iterator[None]:
    """Look at what the library (2.4) makes names of files of without looking."""
    from huggingface_hub import get_session

    client = get_session()
    before = client.event_hooks
    client.event_hooks = {**before, "response": [*before.get("response", []), _refuse_hostile_headers]}
    try:
        yield
    finally:
        client.event_hooks = before


def _refuse_hostile_headers(response: Any) -> None:
    if response.request.method != "HEAD":  # of the others the library makes no names
        return
    for name, harmless in _HEADERS.items():
        if (value := response.headers.get(name)) is not None and not harmless.fullmatch(value):
            raise CheckpointError(
                f"the hub sent a header {name} that would lead out of the cache", remedy="check HF_ENDPOINT"
            )


def _refuse_offline(files: HubFiles, missing: dict[str, int]) -> None:
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        raise CheckpointError(
            f"{len(missing)} of its {len(files.sizes)} files are not in the cache ({_first(missing)})",
            remedy="run once with a connection and without HF_HUB_OFFLINE",
        )


def _refuse_without_room(files: HubFiles, needed: int) -> None:
    folder = files.snapshot
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"{size_in_words(needed)} are to be fetched, and the cache has room for {size_in_words(free)}",
            remedy="set HF_HUB_CACHE to a folder on a larger disk, or name fewer checkpoints",
        )


def _first(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
