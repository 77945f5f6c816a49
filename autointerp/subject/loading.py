"""Turns a local folder or the name of a hub model into a model and its tokenizer, offline where it can."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from autointerp.errors import SubjectError

__all__ = [
    "SubjectParts",
    "fingerprint_of_folder",
    "fingerprint_of_model",
    "load_parts",
    "quiet_transformers",
]

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

_FAULTS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    AssertionError,
    StrictDataclassError,
    UnpicklingError,
)
"""What transformers, torch and the hub's configuration classes were seen to raise on damaged files."""


@dataclass(frozen=True, eq=False)
class SubjectParts:
    """What loading gives."""

    model: nn.Module
    tokenizer: Any
    name: str
    revision: str | None
    sha256: str


def load_parts(
    name_or_path: str | Path, *, revision: str | None, dtype: torch.dtype, device: str | torch.device
) -> SubjectParts:
    """Find the files, load model and tokenizer, check that every weight came from the files and is finite.

    Raises:
        SubjectError: as `SubjectModel.load` says.
    """
    folder, name, commit = _locate(name_or_path, revision)
    target = _checked_device(device)
    with quiet_transformers():
        config = _load_config(folder, name)
        tokenizer = _load_tokenizer(folder, name)
        model = _load_model(folder, name, config, dtype)
    _check_weights(model, name)
    return SubjectParts(model.to(target), tokenizer, name, commit, fingerprint_of_folder(folder))


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SubjectError(
            f"there is no usable device {device!r} ({_reason(error)})", remedy="use --device cpu"
        ) from error
    return target


# ---- where the files are ----------------------------------------------------------------------------


def _locate(name_or_path: str | Path, revision: str | None) -> tuple[Path, str, str | None]:
    """Folder with the files, name for the report, commit (hub models only)."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path, path.resolve().name, None
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
    return folder, text, folder.name


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


# ---- loading ----------------------------------------------------------------------------------------


def _load_config(folder: Path, name: str) -> Any:
    from transformers import AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        raise SubjectError(
            "the folder has no config.json", where=name, remedy="name a Hugging Face model's folder"
        )
    try:
        stated = json.loads(path.read_bytes())
    except ValueError as error:
        raise SubjectError("config.json is not JSON", where=name, remedy="get an undamaged copy") from error
    if not isinstance(stated, dict) or "model_type" not in stated:
        raise SubjectError(
            "config.json has no model_type", where=name, remedy="use a model saved by transformers"
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _FAULTS as error:
        raise _unusable(error, name, stated) from error


def _load_tokenizer(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _FAULTS as error:
        raise SubjectError(
            f"its tokenizer cannot be loaded ({_reason(error)})",
            where=name,
            remedy="the folder needs the tokenizer's files, such as tokenizer.json",
        ) from error


def _load_model(folder: Path, name: str, config: Any, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForCausalLM

    if not _matching(folder, (*_SAFETENSORS, *_PICKLES)):
        raise SubjectError(
            "the folder has no weights", where=name, remedy="it needs model.safetensors or pytorch_model.bin"
        )
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with the missing ones
        )
    except SafetensorError as error:
        raise SubjectError(
            f"its weights are damaged ({_reason(error)})", where=name, remedy="get an undamaged copy"
        ) from error
    except _FAULTS as error:
        raise _unusable(error, name, config.to_dict()) from error
    mismatched = (key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])
    absent = sorted({*report["missing_keys"], *mismatched})
    if absent:
        raise SubjectError(
            f"{len(absent)} weights are missing or have another shape ({', '.join(absent[:3])})",
            where=name,
            remedy="use a complete causal language model; its head must be among the weights",
        )
    return model


def _unusable(error: Exception, name: str, config: dict[str, Any]) -> SubjectError:
    """Say in our words what transformers found wrong."""
    kind = config.get("model_type")
    if "trust_remote_code" in str(error):
        return SubjectError(
            "it needs code that comes with the model, which is never run",
            where=name,
            remedy="use a model whose architecture is part of transformers",
        )
    if "Unrecognized configuration class" in str(error):
        return SubjectError(
            f"models of type {kind!r} are not causal language models",
            where=name,
            remedy="use a decoder-only language model",
        )
    return SubjectError(
        f"it cannot be loaded as a model of type {kind!r} ({_reason(error)})",
        where=name,
        remedy="get an undamaged copy, or a newer transformers if the architecture is new",
    )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_weights(model: nn.Module, name: str) -> None:
    for key, weight in model.named_parameters():
        # The sum is finite only if every entry is; float32 has room for the sum of any sane tensor.
        if weight.is_floating_point() and not bool(torch.isfinite(weight.detach().sum(dtype=torch.float32))):
            raise SubjectError(
                f"its weight {key} holds NaN or infinity", where=name, remedy="get an undamaged copy"
            )


# ---- identity ---------------------------------------------------------------------------------------


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


def fingerprint_of_model(model: Any) -> str:
    """SHA-256 over the configuration and the weights of a model in memory."""
    digest = hashlib.sha256(type(model).__name__.encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for key, weight in sorted(model.state_dict().items()):
        digest.update(f"{key} {weight.dtype} {tuple(weight.shape)}".encode())
        raw = weight.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(memoryview(raw.numpy()))
    return digest.hexdigest()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars, log lines and warnings of the hub's libraries while open, and only then."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from huggingface_hub.utils import disable_progress_bars as disable_hub_bars
    from huggingface_hub.utils import enable_progress_bars as enable_hub_bars
    from transformers.utils import logging

    verbosity, bars, hub_bars = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        not are_progress_bars_disabled(),
    )
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    disable_hub_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_hub_bars()
