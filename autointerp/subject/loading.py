"""Turns a subject's files into a model and its tokenizer, and checks that they are whole."""

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn

from autointerp.errors import SubjectError
from autointerp.subject.placement import (
    DeviceMap,
    check_coverage,
    checked_device,
    checked_device_map,
    may_use_disk,
    plain_tensors,
    require_accelerate,
    weights_at_hand,
)
from autointerp.subject.quantization import quantization_config
from autointerp.subject.quiet import quiet_transformers
from autointerp.subject.subject_files import SubjectFiles, fingerprint_of_folder, has_weights, locate

__all__ = ["SubjectParts", "fingerprint_of_model", "load_parts"]

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
    saved_from: str | None
    """What the model's configuration says that it was loaded from before it was saved."""


def load_parts(
    name_or_path: str | Path,
    *,
    revision: str | None,
    dtype: torch.dtype | Literal["auto"],
    device: str | torch.device,
    device_map: DeviceMap | None,
    quantization: str | Mapping[str, Any] | None,
) -> SubjectParts:
    """Find the files, load model and tokenizer, check that every weight came from the files and is finite.

    Raises:
        SubjectError: as `SubjectModel.load` says.
    """
    files = locate(name_or_path, revision)
    stated = _stated_config(files)
    options: dict[str, Any] = {"dtype": dtype}
    if quantization is not None:
        options["quantization_config"] = quantization_config(quantization, stated=stated, name=files.name)
    is_quantized = quantization is not None or stated.get("quantization_config") is not None
    target = checked_device(device) if device_map is None else None
    if device_map is not None:
        options["device_map"] = checked_device_map(device_map, name=files.name)
    elif is_quantized:
        # Packed weights may not be moved afterwards.
        require_accelerate("a quantised model", name=files.name)
        options["device_map"] = {"": target}
    with quiet_transformers():
        config = _load_config(files, stated)
        tokenizer = _load_tokenizer(files)
        model = _load_with_offload_folder(files, config, options)
        check_coverage(model, options.get("device_map"), name=files.name)
        _check_weights(model, files.name)
    if target is not None and not is_quantized:
        model = model.to(target)
    saved_from = stated.get("_name_or_path")
    return SubjectParts(
        model,
        tokenizer,
        files.name,
        files.revision,
        fingerprint_of_folder(files.folder),
        saved_from if isinstance(saved_from, str) else None,
    )


def _stated_config(files: SubjectFiles) -> dict[str, Any]:
    path = files.folder / "config.json"
    if not path.is_file():
        raise SubjectError(
            "the folder has no config.json", where=files.name, remedy="name a Hugging Face model's folder"
        )
    try:
        stated = json.loads(path.read_bytes())
    except ValueError as error:
        raise SubjectError(
            "config.json is not JSON", where=files.name, remedy="get an undamaged copy"
        ) from error
    if not isinstance(stated, dict) or "model_type" not in stated:
        raise SubjectError(
            "config.json has no model_type", where=files.name, remedy="use a model saved by transformers"
        )
    return stated


def _load_config(files: SubjectFiles, stated: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except _FAULTS as error:
        raise _unusable(error, files.name, stated) from error


def _load_tokenizer(files: SubjectFiles) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except _FAULTS as error:
        raise SubjectError(
            f"its tokenizer cannot be loaded ({_reason(error)})",
            where=files.name,
            remedy="the folder needs the tokenizer's files, such as tokenizer.json",
        ) from error


def _load_with_offload_folder(files: SubjectFiles, config: Any, options: dict[str, Any]) -> nn.Module:
    """Load it; a device map that puts weights on disk may need a folder for as long as the model lives."""
    if not may_use_disk(options.get("device_map")):
        return _load_model(files, config, options)
    folder = tempfile.mkdtemp(prefix="subject-")
    try:
        model = _load_model(files, config, options | {"offload_folder": folder})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model


def _load_model(files: SubjectFiles, config: Any, options: dict[str, Any]) -> nn.Module:
    from transformers import AutoModelForCausalLM

    name = files.name
    if not has_weights(files.folder):
        raise SubjectError(
            "the folder has no weights", where=name, remedy="it needs model.safetensors or pytorch_model.bin"
        )
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            files.folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with the missing ones
            **options,
        )
    except SafetensorError as error:
        raise SubjectError(
            f"its weights are damaged ({_reason(error)})", where=name, remedy="get an undamaged copy"
        ) from error
    except _FAULTS as error:
        raise _unusable(error, name, config.to_dict(), spread="device_map" in options) from error
    mismatched = (key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])
    absent = sorted({*report["missing_keys"], *mismatched})
    if absent:
        raise SubjectError(
            f"{len(absent)} weights are missing or have another shape ({', '.join(absent[:3])})",
            where=name,
            remedy="use a complete causal language model; its head must be among the weights",
        )
    return model


def _unusable(error: Exception, name: str, config: dict[str, Any], *, spread: bool = False) -> SubjectError:
    """Say in our words what transformers found wrong; `spread`: with a device map."""
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
    if isinstance(error, ImportError):
        return SubjectError(
            f"it needs a package that is not there ({_reason(error)})",
            where=name,
            remedy="install what it names",
        )
    return SubjectError(
        f"it cannot be loaded as a model of type {kind!r} ({_reason(error)})",
        where=name,
        remedy="check device map and quantisation, or get an undamaged copy"
        if spread
        else "get an undamaged copy, or a newer transformers if the architecture is new",
    )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_weights(model: nn.Module, name: str) -> None:
    for path, module in model.named_modules():
        with weights_at_hand(module):
            for key, weight in module.named_parameters(recurse=False):
                if not all(_is_finite(part) for part in plain_tensors(weight.detach())):
                    raise SubjectError(
                        f"its weight {f'{path}.{key}'.lstrip('.')} holds NaN or infinity",
                        where=name,
                        remedy="get an undamaged copy",
                    )


def _is_finite(weight: Tensor) -> bool:
    """Whether all entries are numbers; whole numbers are, packed weights among them."""
    if not weight.is_floating_point():
        return True
    if weight.itemsize == 1:  # the 8-bit types have no sum
        weight = weight.float()
    # The sum is finite only if every entry is; float32 has room for the sum of any sane tensor.
    return bool(torch.isfinite(weight.sum(dtype=torch.float32)))


def fingerprint_of_model(model: Any) -> str:
    """SHA-256 over the configuration and the weights of a model in memory."""
    digest = hashlib.sha256(type(model).__name__.encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for key, weight in sorted(model.state_dict().items()):
        if not isinstance(weight, Tensor):  # what else a quantised module saves
            digest.update(f"{key} {weight}".encode())
            continue
        digest.update(f"{key} {weight.dtype} {tuple(weight.shape)}".encode())
        for part in plain_tensors(weight.detach()):
            digest.update(memoryview(_bytes(part, key)))
    return digest.hexdigest()


def _bytes(weight: Tensor, key: str) -> Any:
    if weight.device.type == "meta":
        raise SubjectError(
            f"its weight {key} is not in memory, so that it cannot be identified by its weights",
            remedy="give `sha256`, or load it with SubjectModel.load",
        )
    return weight.cpu().contiguous().flatten().view(torch.uint8).numpy()
