"""Quantised subjects, as far as transformers offers them: which kind, and how many weights they stand for."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autointerp.errors import SubjectError

__all__ = ["describe_quantization", "parameter_count", "quantization_config"]

_NAMED: dict[str, dict[str, Any]] = {
    "bitsandbytes-4bit": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bitsandbytes-8bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
}


def quantization_config(request: str | Mapping[str, Any], *, stated: Mapping[str, Any], name: str) -> Any:
    """What transformers needs in order to quantise a model while loading it.

    Args:
        request: a short name, or what a model's config.json holds under `quantization_config`.
        stated: the model's config.json.
        name: what error messages call it.

    Raises:
        SubjectError: the model is quantised already, or transformers knows no such method.
    """
    from transformers.quantizers.auto import AutoQuantizationConfig

    if stated.get("quantization_config") is not None:
        raise SubjectError(
            "it is quantised already, in the way that its config.json says",
            where=name,
            remedy="leave `quantization` out",
        )
    names = f"name {' or '.join(_NAMED)}, or give a table like config.json's quantization_config"
    if isinstance(request, str) and request not in _NAMED:
        raise SubjectError(f"no quantisation is called {request!r}", where=name, remedy=names)
    table = _NAMED[request] if isinstance(request, str) else dict(request)
    try:
        return AutoQuantizationConfig.from_dict(dict(table))
    except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise SubjectError(
            f"transformers cannot quantise it so ({' '.join(str(error).split())[:200]})",
            where=name,
            remedy="install what it names" if isinstance(error, ImportError) else names,
        ) from error


def describe_quantization(model: Any) -> str | None:
    """The method and its settings that are not its defaults, in one line; None: it is not quantised."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    settings = config.to_diff_dict() if hasattr(config, "to_diff_dict") else dict(config)
    method = settings.get("quant_method") or getattr(config, "quant_method", "unknown")
    told = (
        f"{key}={_text(value)}"
        for key, value in sorted(settings.items())
        if value not in (None, False) and key != "quant_method" and not key.startswith("_")
    )
    return " ".join((_text(method), *told))


def _text(value: Any) -> str:
    value = getattr(value, "value", value)  # of an enumeration
    return value if isinstance(value, str) else json.dumps(value, default=str, separators=(",", ":"))


def parameter_count(model: Any) -> int:
    """How many weights a model has, shared ones counted once, packed ones for as many as they stand for."""
    if getattr(model.config, "quantization_config", None) is None:
        return _count(model)
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        return _count(type(model)(config))


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
