"""What a suite or a command line calls a checkpoint -> the checkpoints that it stands for, to be read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autointerp.checkpoints.formats.custom import content_sha256, from_factory, is_factory_name
from autointerp.checkpoints.load import LoadedCheckpoint, is_checkpoint, read_checkpoint
from autointerp.checkpoints.locations import find_checkpoints
from autointerp.config import CheckpointSection, checkpoint_name
from autointerp.demo import demo_checkpoint
from autointerp.progress import SILENT, Progress

__all__ = ["Source", "find_sources"]

_EMBEDDED = "demo:"


@dataclass(frozen=True)
class Source:
    """One checkpoint that was found."""

    name: str
    """What the report calls it."""
    shown: str
    """Where it lies, without folders of this machine."""
    read: Callable[[int], LoadedCheckpoint]
    """Given how many bytes of its matrices may be held in memory; see `checkpoints.load.placed`."""
    notes: tuple[str, ...] = ()


def find_sources(text: str, *, name: str | None = None, progress: Progress = SILENT) -> list[Source]:
    """The checkpoints that a text stands for: one, or for a pattern all that are found below.

    Args:
        text: a path or pattern, `hf:owner/name/path@revision`, `demo:NAME`, or `package.module:factory`.
        name: what the report calls it; where several are found, what stands before the name of each.
        progress: is told how far a download is.

    Raises:
        CheckpointError: there is none; one line says where was looked.
    """
    if text.startswith(_EMBEDDED):
        path = demo_checkpoint(text.removeprefix(_EMBEDDED))
        return [Source(name or _default_name(text), text, lambda room: read_checkpoint(path, room=room))]
    if is_factory_name(text):
        return [Source(name or _default_name(text), text, lambda _room: _made(text))]
    found = find_checkpoints(text, recognises=is_checkpoint, progress=progress)
    several = len(found) > 1
    return [
        Source(
            f"{name}/{location.name}" if name and several else name or location.name,
            location.shown,
            lambda room, path=location.path: read_checkpoint(path, room=room),
        )
        for location in found
    ]


def _default_name(text: str) -> str:
    return checkpoint_name(CheckpointSection(path=text))


def _made(text: str) -> LoadedCheckpoint:
    """What the user's own function returns, identified by its content."""
    sae = from_factory(text)
    return LoadedCheckpoint(sae, Path(text), content_sha256(sae), "custom", sae.metadata.absent, 0)
