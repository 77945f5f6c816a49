"""Fuzzes the loaders: damaged checkpoints must load or raise a CheckpointError, never anything else.

    pip install atheris
    python tests/checkpoints/fuzz_loaders.py -max_total_time=3600

Every input is a recipe: which recorded checkpoint, which of its files, and how it is spoilt (bits, cuts,
foreign bytes, other values in its configuration, a file of another checkpoint, other shapes, types and names
of tensors). Coverage of this package guides atheris. What loads must also encode. Not part of the test suite:
the laws in `test_recorded_checkpoints.py` are.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["autointerp.checkpoints"]):
    from autointerp.checkpoints.load import FORMATS, load_checkpoint, read_checkpoint

import safetensors.torch
import torch

from autointerp.errors import CheckpointError

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*/*/fixture.json"))
NASTY = (
    None, True, False, 0, -1, 1, 2, 3, 10**30, -(10**30), 0.5, 1e308, "", "x", "relu", "topk", "jumprelu",
    "none", "layer_norm", "../../etc/passwd", "\0", [], {}, [1], {"k": 1}, [[[[]]]], "auto_map",
)  # fmt: skip
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64)
SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-"))


def spoil(recipe: "atheris.FuzzedDataProvider", file: Path) -> None:
    """Change one file by a recipe."""
    whole = bytearray(file.read_bytes())
    kind = recipe.ConsumeIntInRange(0, 6)
    if kind == 0 and whole:
        for _ in range(recipe.ConsumeIntInRange(1, 6)):
            place = recipe.ConsumeIntInRange(0, max(0, min(len(whole), 6000) - 1))
            whole[place] ^= 1 << recipe.ConsumeIntInRange(0, 7)
    elif kind == 1:
        whole = whole[: recipe.ConsumeIntInRange(0, len(whole))]
    elif kind == 2:
        place = recipe.ConsumeIntInRange(0, len(whole))
        new = recipe.ConsumeBytes(recipe.ConsumeIntInRange(1, 64))
        whole[place : place + recipe.ConsumeIntInRange(0, 64)] = new
    elif kind == 3:
        whole = recipe.ConsumeBytes(4096)
    elif kind == 4 and file.suffix == ".json":
        whole = json.dumps(with_other_value(recipe, json.loads(whole))).encode()
    elif kind == 5 and file.suffix in (".safetensors", ".pt"):
        spoil_tensors(recipe, file)
        return
    else:
        other = FIXTURES[recipe.ConsumeIntInRange(0, len(FIXTURES) - 1)].parent / "checkpoint"
        candidates = sorted(path for path in other.rglob("*") if path.suffix == file.suffix)
        if candidates:
            whole = candidates[recipe.ConsumeIntInRange(0, len(candidates) - 1)].read_bytes()
    file.unlink()
    file.write_bytes(whole)


def with_other_value(recipe: "atheris.FuzzedDataProvider", value: object) -> object:
    """The same JSON with one value, somewhere, replaced, removed or repeated under another name."""
    if isinstance(value, dict) and value and recipe.ConsumeIntInRange(0, 3):
        keys = sorted(value)
        key = keys[recipe.ConsumeIntInRange(0, len(keys) - 1)]
        if recipe.ConsumeIntInRange(0, 5) == 0:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: with_other_value(recipe, value[key])}
    return NASTY[recipe.ConsumeIntInRange(0, len(NASTY) - 1)]


def spoil_tensors(recipe: "atheris.FuzzedDataProvider", file: Path) -> None:
    """One tensor with another name, type, shape or content, or none."""
    stored = file.suffix == ".safetensors"
    content = safetensors.torch.load_file(file) if stored else torch.load(file, weights_only=True)
    table = content["ae"] if isinstance(content.get("ae"), dict) else content
    names = sorted(str(name) for name in table)
    name = names[recipe.ConsumeIntInRange(0, len(names) - 1)]
    tensor, kind = table[name], recipe.ConsumeIntInRange(0, 5)
    if kind == 0:
        table[recipe.ConsumeUnicodeNoSurrogates(12)] = table.pop(name)
    elif not isinstance(tensor, torch.Tensor) or kind == 1:
        table[name] = torch.zeros(
            [recipe.ConsumeIntInRange(0, 9) for _ in range(recipe.ConsumeIntInRange(0, 4))]
        )
    elif kind == 2:
        table[name] = tensor.to(DTYPES[recipe.ConsumeIntInRange(0, len(DTYPES) - 1)])
    elif kind == 3:
        table[name] = tensor * float(NASTY[recipe.ConsumeIntInRange(3, 11)])
    elif kind == 4:
        table[name] = tensor.flatten()[: recipe.ConsumeIntInRange(0, tensor.numel())]
    else:
        table[name] = tensor.T if tensor.ndim == 2 else tensor.reshape(1, -1)
    file.unlink()
    if stored:
        safetensors.torch.save_file({key: value.contiguous() for key, value in content.items()}, file)
    else:
        torch.save(content, file)


def one_input(data: bytes) -> None:
    recipe = atheris.FuzzedDataProvider(data)
    case = FIXTURES[recipe.ConsumeIntInRange(0, len(FIXTURES) - 1)]
    target = SCRATCH / "checkpoint"
    shutil.rmtree(SCRATCH, ignore_errors=True)
    shutil.copytree(case.parent / "checkpoint", target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    for _ in range(recipe.ConsumeIntInRange(1, 2)):
        try:
            spoil(recipe, files[recipe.ConsumeIntInRange(0, len(files) - 1)])
        except Exception:  # the second change, to what the first one made unreadable for us
            return
    path = SCRATCH / json.loads(case.read_text())["checkpoint"]
    for candidate in FORMATS:
        try:
            candidate.recognises(path)
        except CheckpointError:
            continue
    try:
        sae = load_checkpoint(path)
        read_checkpoint(path)
    except CheckpointError as error:
        if "\n" in str(error):
            raise
        return
    x = torch.linspace(-2, 2, 3 * sae.d_model).reshape(3, sae.d_model)
    sae.reconstruct_sparse(x)


if __name__ == "__main__":
    torch.set_num_threads(1)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
