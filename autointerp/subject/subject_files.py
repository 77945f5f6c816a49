"""Finds the files of a subject, in a local folder or on the Hugging Face hub, and identifies them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from autointerp.errors import SubjectError
from autointerp.subject.quiet import quiet_transformers

__all__ = ["SubjectFiles", "fingerprint_of_folder", "has_weights", "locate"]

_SMALL_FILES = (
    "*.json",
    "*.jinja",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "*.tiktoken",
    "spiece.model",
)
_SAFETENSORS = ("model.safetensors", "model-*.safetensors")
_PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin")
_HASH_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class SubjectFiles:
    """A folder that holds a model."""

    folder: Path
    name: str
    """What the report calls the model: its name on the hub, or the folder's."""
    revision: str | None
    """Commit of the hub; None for a local folder."""


def locate(name_or_path: str | Path, revision: str | None) -> SubjectFiles:
    """The model's files, downloaded if they are the hub's and not there yet.

    Raises:
        SubjectError: there is no such folder or model, or no way to get it.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return SubjectFiles(path, path.resolve().name, None)
    text = str(name_or_path)
    if path.exists():
        raise SubjectError("this is a file", where=text, remedy="name the folder that holds config.json")
    if (
        isinstance(name_or_path, Path)
        or text.startswith((".", "/", "~"))
        or "\\" in text
        or text.count("/") > 1
    ):
        raise SubjectError("there is no such folder", where=text, remedy="check the path of the subject")
    folder = _download(text, revision)
    return SubjectFiles(folder, text, folder.name)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))

    try:
        with quiet_transformers():
            folder = fetch((*_SMALL_FILES, *_SAFETENSORS))
            if not _matching(folder, _SAFETENSORS):
                folder = fetch((*_SMALL_FILES, *_PICKLES))
    except GatedRepoError as error:
        remedy = "accept its licence on the hub and log in with `hf auth login`"
        raise SubjectError("access to this model is restricted", where=name, remedy=remedy) from error
    except RevisionNotFoundError as error:
        raise SubjectError(f"it has no revision {revision!r}", where=name, remedy="check the name") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        remedy = "give the path of a local folder or a name such as openai-community/gpt2"
        raise SubjectError(
            "no such folder, and no such model on the hub", where=name, remedy=remedy
        ) from error
    except (EntryNotFoundError, OSError) as error:
        remedy = "give the path of a local folder, or download the model while there is a connection"
        raise SubjectError(
            "no such folder, and the Hugging Face hub cannot be reached", where=name, remedy=remedy
        ) from error
    return folder


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_file() and any(fnmatch(path.name, p) for p in patterns)
    )


def has_weights(folder: Path) -> bool:
    """Whether the folder holds files that weights are kept in."""
    return bool(_matching(folder, (*_SAFETENSORS, *_PICKLES)))


def fingerprint_of_folder(folder: Path) -> str:
    """SHA-256 over names and bytes of the files that make the model: configuration, weights, tokenizer."""
    weights = _matching(folder, _SAFETENSORS) or _matching(folder, _PICKLES)
    digest = hashlib.sha256()
    for path in sorted({*_matching(folder, _SMALL_FILES), *weights}):
        digest.update(path.name.encode() + b"\0" + path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
