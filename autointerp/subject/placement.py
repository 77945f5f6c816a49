"""Where a model's weights lie: on one device, spread over several, or off the device until they are used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from autointerp.errors import SubjectError

__all__ = [
    "DeviceMap",
    "check_coverage",
    "checked_device",
    "checked_device_map",
    "devices_of",
    "entry_device",
    "may_use_disk",
    "plain_tensors",
    "require_accelerate",
    "weights_at_hand",
]

DeviceMap = str | Mapping[str, str | int | torch.device]
"""How to spread a model: a way that `accelerate` knows by name, or path of a module -> device or `disk`."""

_DISK = "disk"
_WAYS = ("auto", "balanced", "balanced_low_0", "sequential")


def checked_device(device: str | int | torch.device) -> torch.device:
    """The device, if something can be put there.

    Raises:
        SubjectError: it cannot.
    """
    try:
        target = torch.device(device)
        if target.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SubjectError(
            f"there is no usable device {device!r} ({reason})", remedy="use --device cpu"
        ) from error
    return target


def checked_device_map(device_map: DeviceMap, *, name: str) -> str | dict[str, str | int | torch.device]:
    """The device map, if it can be used here.

    Raises:
        SubjectError: it names no way to spread a model and no usable device, or `accelerate` is missing.
    """
    require_accelerate("a device map", name=name)
    if isinstance(device_map, str):
        if device_map not in _WAYS:
            raise SubjectError(
                f"there is no device map {device_map!r}",
                where=name,
                remedy=f"use {', '.join(_WAYS)}, or a table from paths of modules to devices",
            )
        return device_map
    if not device_map:
        raise SubjectError("the device map is empty", where=name, remedy='write {"": "cpu"} for all of it')
    for device in device_map.values():
        if device != _DISK:
            checked_device(device)
    return dict(device_map)


def check_coverage(model: nn.Module, device_map: object, *, name: str) -> None:
    """Make sure that a table names modules of the model, and leaves none of its weights out.

    Raises:
        SubjectError: it does not; nothing else would say so.
    """
    if not isinstance(device_map, dict):
        return
    from accelerate.utils import check_device_map

    paths = [path for path, _ in model.named_modules()]
    unknown = [path for path in device_map if path not in paths]
    if unknown:
        raise SubjectError(
            f"the device map names {unknown[0]!r}, and the model has no module of that name",
            where=name,
            remedy=f"its modules are {', '.join(paths[1:4])} and so on",
        )
    try:
        check_device_map(model, device_map)
    except ValueError as error:
        raise SubjectError(
            f"the device map leaves weights out ({' '.join(str(error).split())[:200]})",
            where=name,
            remedy='name a module around them, or "" for all the rest',
        ) from error


def require_accelerate(what: str, *, name: str) -> None:
    """Make sure that the package which spreads models is there.

    Raises:
        SubjectError: it is not.
    """
    if find_spec("accelerate") is None:
        raise SubjectError(
            f"{what} needs a package that is not there, accelerate",
            where=name,
            remedy="pip install accelerate",
        )


def may_use_disk(device_map: object) -> bool:
    """Whether weights may be left on disk until they are used."""
    return isinstance(device_map, str) or (isinstance(device_map, dict) and _DISK in device_map.values())


def entry_device(model: nn.Module) -> torch.device:
    """The device that tokens go to.

    Where `accelerate` keeps weights elsewhere until they are used, they are place holders without a device;
    then the hook that fetches them says where it computes.
    """
    for weight in model.parameters():
        if weight.device.type != "meta":
            return weight.device
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return torch.device("cpu")


def devices_of(model: nn.Module) -> tuple[str, ...]:
    """The devices of a model that was loaded with a device map, in order of use; `disk` is one of them."""
    placed: dict[str, Any] = getattr(model, "hf_device_map", None) or {}
    names = (f"cuda:{device}" if isinstance(device, int) else str(device) for device in placed.values())
    return tuple(dict.fromkeys(names))


@contextmanager
def weights_at_hand(module: nn.Module) -> Iterator[None]:
    """While open, the module's own weights are there, also those that are fetched only when it runs."""
    if not any(tensor.device.type == "meta" for tensor in module.parameters(recurse=False)):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield


def plain_tensors(weight: Tensor) -> Iterator[Tensor]:
    """The tensors that a weight is made of: itself, or the parts of a quantised one of a class of its own."""
    flatten = getattr(weight, "__tensor_flatten__", None)
    if flatten is None:
        yield weight
        return
    for name in flatten()[0]:
        yield from plain_tensors(getattr(weight, name))
