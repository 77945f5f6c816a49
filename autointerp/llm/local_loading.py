"""Loads the model that judges in this process: safetensors only, its own code never run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from autointerp.errors import EndpointError, SubjectError
from autointerp.subject.loading import fingerprint_of_model, load_parts
from autointerp.subject.subject_files import locate

__all__ = ["LocalParts", "load_local", "parts_in_memory"]


@dataclass(frozen=True, eq=False)
class LocalParts:
    """A model with its tokenizer, ready to run."""

    model: Any
    tokenizer: Any
    name: str
    fingerprint: str
    """`sha256:` and sixteen digits over configuration, weights and tokenizer, then the precision."""

    @property
    def context_limit(self) -> int | None:
        """How many positions it was built for; None where its configuration does not say."""
        config = self.model.config.get_text_config()
        for key in ("max_position_embeddings", "max_seq_len", "n_positions"):
            value = getattr(config, key, None)
            if isinstance(value, int) and value > 0:
                return value
        return None


def load_local(model: str | Path, *, device: str, dtype: str) -> LocalParts:
    """Find and load it.

    Args:
        model: a folder, or a name on the hub.
        device: `auto`: an accelerator if there is one, else the CPU.
        dtype: name of a floating point type; `auto`: float32 on the CPU, elsewhere as it is stored.

    Raises:
        EndpointError: there is no such model or device, the model is damaged or has no safetensors, or its
            tokenizer cannot say which characters a token covers.
    """
    try:
        folder = locate(model, None).folder
        if not any(folder.glob("*.safetensors")):
            raise SubjectError(
                "the folder has no weights as safetensors, and others are not opened",
                where=model,
                remedy="use a model saved with safetensors",
            )
        target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        parts = load_parts(
            folder,
            revision=None,
            dtype=_precision(dtype, target),
            device=target,
            device_map=None,
            quantization=None,
        )
    except SubjectError as error:
        raise EndpointError(error.what, where=error.where, remedy=error.remedy) from error
    name = str(model) if not Path(model).expanduser().is_dir() else parts.name
    return _checked(parts.model, parts.tokenizer, name=name, sha256=parts.sha256)


def parts_in_memory(model: Any, tokenizer: Any, *, name: str) -> LocalParts:
    """The same for a model that is loaded already.

    Raises:
        EndpointError: the tokenizer cannot say which characters a token covers.
    """
    return _checked(model, tokenizer, name=name, sha256=fingerprint_of_model(model))


def _checked(model: Any, tokenizer: Any, *, name: str, sha256: str) -> LocalParts:
    if not getattr(tokenizer, "is_fast", False):
        raise EndpointError(
            "its tokenizer cannot tell which characters a token covers",
            where=name,
            remedy="use a model with a fast tokenizer (tokenizer.json)",
        )
    precision = str(next(model.parameters()).dtype).removeprefix("torch.")
    return LocalParts(model.eval(), tokenizer, name, f"sha256:{sha256[:16]}-{precision}")


def _precision(name: str, device: str) -> torch.dtype | Literal["auto"]:
    if name == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else "auto"
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise EndpointError(
            f"there is no precision {name!r}", where="dtype", remedy="use float32, bfloat16 or float16"
        )
    return found
