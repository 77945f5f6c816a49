"""The embedded demo: a small subject and its checkpoints, trained by this project, shipped with it."""

import json
from pathlib import Path

from autointerp.errors import CheckpointError, SubjectError

__all__ = ["demo_checkpoint", "demo_curve", "demo_subject"]

_FOLDER = Path(__file__).resolve().parent


def demo_subject() -> Path:
    """The folder of the embedded subject.

    Raises:
        SubjectError: it is not installed.
    """
    folder = _FOLDER / "subject"
    if not (folder / "config.json").is_file():
        raise SubjectError("the embedded subject is missing from this installation", remedy="install again")
    return folder


def demo_checkpoint(name: str) -> Path:
    """The path of an embedded checkpoint, which a suite names `demo:NAME`.

    Raises:
        CheckpointError: there is none of that name; the message lists those there are.
    """
    folder = _FOLDER / "checkpoints"
    for path in (folder / name, folder / f"{name}.pt"):
        if name and path.exists():
            return path
    there = sorted(path.stem for path in folder.glob("*") if path.suffix != ".json")
    raise CheckpointError(
        f"no embedded checkpoint {name!r}", where="demo", remedy=f"there are: {', '.join(there) or 'none'}"
    )


def demo_curve() -> list[tuple[float, float]]:
    """(training FLOPs, held-out loss in nats) of the embedded subject's family; empty if none is shipped.

    Made by `benchmarks/demo/measure_curve.py`: the same recipe at smaller budgets, on the demo's text.
    """
    path = _FOLDER / "curve.json"
    if not path.is_file():
        return []
    members = json.loads(path.read_text(encoding="utf-8"))["members"]
    return [(float(member["training_flops"]), float(member["loss_nats"])) for member in members]
