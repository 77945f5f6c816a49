"""A plain state dictionary of one's own (.safetensors, .pt or .npz) beside a TOML file that describes it.

    weights = "model.safetensors"
    subtract = "decoder_bias"            # from the input, before encoding; or "pre_bias", or "nothing"
    site = "blocks.4.hook_resid_post"

    [tensors]                            # ours = the file's; matrices with their axes, in the file's order
    encoder_weight = { name = "enc.weight", axes = "latent d_model" }
    encoder_bias = "enc.bias"
    decoder_weight = { name = "dec.weight", axes = "d_out latent" }
    decoder_bias = { zeros = true }      # the file has none

    [activation]
    kind = "topk"
    k = 32

What is computed: see `SparseAutoencoder`; every key: docs/formats-described.md. Nothing is guessed: a key
that is missing, unknown or at odds with another is an error.
"""

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from torch import Tensor, zeros

from autointerp.checkpoints.activation_functions import ActivationFunction, Gated, Identity, JumpReLU, ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import Configuration, TensorTable
from autointerp.checkpoints.tensor_files import read_npz, read_safetensors, read_torch_file
from autointerp.checkpoints.topk_functions import AbsTopK, GroupMax, TopK
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises"]

NAME = "described"
LAYOUT = "autoencoder.toml with [tensors], which describes a weights file in its folder"

_DESCRIPTION = "autoencoder.toml"
_LARGEST_DESCRIPTION_BYTES = 2**20
_TENSORS_SECTION = re.compile(rb"^\s*(?:\[\s*tensors\s*[\].]|tensors\s*[.=])", re.MULTILINE)
_READERS = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    **dict.fromkeys((".pt", ".pth", ".bin"), read_torch_file),
}
_KEYS = (
    "weights", "subtract", "site", "output_site", "subject", "context_length", "prepend_bos", "ignore",
    "tensors", "activation", "normalization",
)  # fmt: skip
_AXES = {
    "encoder_weight": "latent d_model",
    "encoder_bias": "latent",
    "decoder_weight": "latent d_out",
    "decoder_bias": "d_out",
    "pre_bias": "d_model",
    "threshold": "latent",
    "gate_bias": "latent",
    "magnitude_scale": "latent",
    "r_mag": "latent",
    "magnitude_bias": "latent",
    "latent_scale": "latent",
    "skip_weight": "d_out d_model",
}
"""Our tensors with the order of their axes in `SparseAutoencoder`."""
_MAY_BE_ZEROS = ("encoder_bias", "decoder_bias")
_SETTINGS = {
    "relu": (), "identity": (), "jumprelu": (), "gated": (), "topk": ("k", "postact"), "abstopk": ("k",),
    "groupmax": ("k",),
}  # fmt: skip
"""The activation's kinds, each with its keys; jumprelu and gated have tensors instead."""
_NORMALIZATIONS = {
    "none": (), "layer_norm": ("eps",), "constant_norm": (), "scale": ("scale", "output_scale"),
}  # fmt: skip


def recognises(path: Path) -> bool:
    """A TOML file with a section `tensors`, or a folder with autoencoder.toml."""
    if path.is_dir():
        return (path / _DESCRIPTION).is_file()
    if path.suffix != ".toml" or not path.is_file():
        return False
    with path.open("rb") as file:
        return _TENSORS_SECTION.search(file.read(_LARGEST_DESCRIPTION_BYTES)) is not None


def files(path: Path) -> tuple[Path, ...]:
    """The description and the weights that it names."""
    description = _read_description(path)
    return (description.where, _weights_file(description))


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """The dictionary as described."""
    description = _read_description(path)
    tensors = _Tensors(description)
    metadata = _metadata(description)
    encoder_weight, encoder_bias = tensors.take("encoder_weight"), tensors.take("encoder_bias")
    if metadata.output_site is None:
        tensors.table.sizes["d_out"] = encoder_weight.shape[1]
    decoder_weight, decoder_bias = tensors.take("decoder_weight"), tensors.take("decoder_bias")
    sae = SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=encoder_bias,
        decoder_weight=decoder_weight,
        decoder_bias=decoder_bias,
        pre_bias=_subtracted(description, tensors, decoder_bias),
        activation=_activation(description, tensors),
        normalization=_normalization(description),
        latent_scale=tensors.take_if_described("latent_scale"),
        skip_weight=tensors.take_if_described("skip_weight"),
        metadata=metadata,
    )
    tensors.finish(ignored=_ignored(description))
    return sae, metadata.absent


class _Tensors:
    """The tensors of the weights file, by our names."""

    def __init__(self, description: Configuration) -> None:
        self._section = _section(description, "tensors", _AXES)
        self._unused = set(self._section.values)
        file = _weights_file(description)
        stored = _READERS[file.suffix](file)
        if not isinstance(stored, Mapping):
            raise CheckpointError(f"holds a {type(stored).__name__}, no state dictionary", where=file)
        self.table = TensorTable(file, {str(name): tensor for name, tensor in stored.items()})

    def take(self, ours: str) -> Tensor:
        """One tensor in our order of axes: as it is, or a transposed view."""
        wanted = _AXES[ours].split()
        self._unused.discard(ours)
        if ours in _MAY_BE_ZEROS and self._section.values.get(ours) == {"zeros": True}:
            return zeros(self.table.sizes[wanted[0]])
        entry = self._entry(ours)
        name, axes = entry.text("name"), _axes(entry, ours)
        if name is None:
            raise CheckpointError(f"tensors.{ours} has no name", where=entry.where, remedy=_example(ours))
        tensor = self.table.take(name, " ".join(axes))
        if not axes:
            return tensor.expand(self.table.sizes[wanted[0]]).clone()
        return tensor if axes == wanted else tensor.T

    def take_if_described(self, ours: str) -> Tensor | None:
        """The same, or None where the description does not mention it."""
        return self.take(ours) if ours in self._section.values else None

    def finish(self, *, ignored: Collection[str]) -> None:
        """Refuse what was described without need, and what lies in the file without being described."""
        if self._unused:
            raise CheckpointError(
                f"tensors.{min(self._unused)} is described, but 'activation' and 'subtract' do not use it",
                where=self._section.where,
            )
        self.table.finish(ignored=ignored)

    def _entry(self, ours: str) -> Configuration:
        value = self._section.values.get(ours)
        if value is None:
            zero = ", or { zeros = true } where the weights have none" if ours in _MAY_BE_ZEROS else ""
            raise CheckpointError(
                f"tensors.{ours} is missing", where=self._section.where, remedy=f"say {_example(ours)}{zero}"
            )
        value = {"name": value} if isinstance(value, str) else value
        entry = Configuration(self._section.where, {ours: value})
        return _section(entry, ours, ("name", "axes"), shown=f"tensors.{ours}")


def _axes(entry: Configuration, ours: str) -> list[str]:
    """The axes in the order of the file; a vector's need not be said, a matrix's must."""
    wanted = _AXES[ours].split()
    stated = entry.text("axes")
    if stated is None and len(wanted) == 1:
        return wanted
    axes = (stated or "").split()
    one_for_all = ours == "threshold" and stated == ""
    if stated is None or (sorted(axes) != sorted(wanted) and not one_for_all):
        raise CheckpointError(
            f"tensors.{ours} says the axes {stated!r}",
            where=entry.where,
            remedy=f"say {' and '.join(wanted)} in the order of the file, {_example(ours)}",
        )
    return axes


def _example(ours: str) -> str:
    return f'e.g. {ours} = {{ name = "...", axes = "{_AXES[ours]}" }}'


def _subtracted(description: Configuration, tensors: _Tensors, decoder_bias: Tensor) -> Tensor | None:
    """Must be said: to forget it, or to do it twice, gives plausible latents that are wrong."""
    said = _chosen(description, "subtract", ("decoder_bias", "pre_bias", "nothing"))
    if said == "pre_bias":
        return tensors.take("pre_bias")
    if said == "nothing":
        return None
    if decoder_bias.shape[0] != tensors.table.sizes["d_model"]:
        raise CheckpointError(
            "subtract = 'decoder_bias', but the decoder's bias has another width than the input",
            where=description.where,
        )
    return decoder_bias


def _activation(description: Configuration, tensors: _Tensors) -> ActivationFunction:
    section = _section(description, "activation", ("kind", "k", "postact"))
    kind = _chosen(section, "kind", _SETTINGS)
    _checked(section, ("kind", *_SETTINGS[kind]), f"activation of kind {kind!r}")
    if kind == "jumprelu":
        return JumpReLU(tensors.take("threshold"))
    if kind == "gated":
        scale = tensors.take_if_described("magnitude_scale")
        return Gated(
            gate_bias=tensors.take("gate_bias"),
            magnitude_scale=tensors.take("r_mag").exp() if scale is None else scale,
            magnitude_bias=tensors.take("magnitude_bias"),
        )
    if kind in {"relu", "identity"}:
        return ReLU() if kind == "relu" else Identity()
    k = section.size("k")
    if k is None:
        raise CheckpointError(f"activation of kind {kind!r} without k", where=section.where)
    if kind == "groupmax":
        return GroupMax(k, tensors.table.sizes["latent"])
    if kind == "abstopk":
        return AbsTopK(k)
    return TopK(k, _chosen(section, "postact", ("relu", "identity"), default="relu"))  # type: ignore[arg-type]


def _normalization(description: Configuration) -> InputNormalization:
    if "normalization" not in description.values:
        return InputNormalization()
    section = _section(description, "normalization", ("kind", "eps", "scale", "output_scale"))
    kind = _chosen(section, "kind", _NORMALIZATIONS)
    _checked(section, ("kind", *_NORMALIZATIONS[kind]), f"normalization of kind {kind!r}")
    numbers = {name: value for name in _NORMALIZATIONS[kind] if (value := section.number(name)) is not None}
    if min(numbers.values(), default=1) <= 0:
        raise CheckpointError("the numbers of 'normalization' must be positive", where=section.where)
    if kind == "scale":
        if "scale" not in numbers:
            raise CheckpointError("normalization of kind 'scale' without scale", where=section.where)
        numbers.setdefault("output_scale", numbers["scale"])
    return InputNormalization(kind, **numbers)  # type: ignore[arg-type]


def _metadata(description: Configuration) -> CheckpointMetadata:
    return CheckpointMetadata(
        site=description.text("site"),
        output_site=description.text("output_site"),
        subject=description.text("subject"),
        context_length=description.size("context_length"),
        prepend_bos=description.flag("prepend_bos"),
    )


def _ignored(description: Configuration) -> list[str]:
    names = description.values.get("ignore", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError("'ignore' should be a list of names of tensors", where=description.where)
    return names


def _read_description(path: Path) -> Configuration:
    file = path / _DESCRIPTION if path.is_dir() else path
    if file.stat().st_size > _LARGEST_DESCRIPTION_BYTES:
        raise CheckpointError("a description of more than 1 MiB", where=file, remedy="is it the right file?")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8 is a ValueError too
        raise CheckpointError(f"no readable TOML ({error})", where=file) from error
    return _checked(Configuration(file, content), _KEYS, "the description")


def _weights_file(description: Configuration) -> Path:
    """The file that `weights` names; links followed, it must lie in a folder that `_may_hold` names."""
    name, where = description.text("weights"), description.where
    if not name:
        raise CheckpointError(
            "'weights' is missing", where=where, remedy='e.g. weights = "model.safetensors"'
        )
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.anchor or ".." in windows.parts or "\0" in name:
        raise CheckpointError(
            f"weights {name[:80]!r} should be a path inside the description's folder", where=where
        )
    file = where.parent / name
    if not file.is_file():
        raise CheckpointError(f"there is no weights file {name[:80]!r}", where=where)
    if not any(file.resolve().is_relative_to(folder) for folder in _may_hold(where.parent.resolve())):
        raise CheckpointError(
            f"weights {name[:80]!r} is a link that leads out of the description's folder",
            where=where,
            remedy="copy the file there",
        )
    if file.suffix not in _READERS:
        raise CheckpointError(
            f"weights {name[:80]!r} are of no known kind",
            where=where,
            remedy=f"known are {', '.join(_READERS)}",
        )
    return file


def _may_hold(folder: Path) -> list[Path]:
    """Where the weights of a description in `folder` may really lie: there, or in its repository's blobs.

    The cache of the Hugging Face hub holds `models--owner--name/snapshots/COMMIT/...`, links into
    `models--owner--name/blobs`.
    """
    snapshots = next((each for each in folder.parents if each.name == "snapshots"), None)
    if snapshots is None or not snapshots.parent.name.startswith("models--"):
        return [folder]
    return [folder, snapshots.parent / "blobs"]


def _section(
    parent: Configuration, name: str, known: Collection[str], *, shown: str | None = None
) -> Configuration:
    section = parent.section(name)
    if section is None:
        raise CheckpointError(f"has no section [{name}]", where=parent.where)
    return _checked(section, known, shown or name)


def _checked(section: Configuration, known: Collection[str], place: str) -> Configuration:
    """The section, once none of its keys is unknown."""
    for key in section.values:
        if key not in known:
            raise _unknown(key, known, place, section.where)
    return section


def _chosen(section: Configuration, key: str, known: Collection[str], *, default: str | None = None) -> str:
    """A text that must be one of a few."""
    value = section.text(key) or default
    if value not in known:
        what = f"{key!r} is missing" if value is None else f"{key!r} is {value[:60]!r}"
        raise CheckpointError(what, where=section.where, remedy=f"choose one of {', '.join(known)}")
    return value


def _unknown(name: str, known: Collection[str], place: str, where: Path) -> CheckpointError:
    """An error that names the nearest known names, or some of them."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    remedy = f"the nearest are {', '.join(near)}" if near else f"known are {', '.join(sorted(known)[:12])}"
    return CheckpointError(f"{name[:80]!r} is unknown in {place}", where=where, remedy=remedy)
