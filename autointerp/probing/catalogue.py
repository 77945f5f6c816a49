"""Finds probe tasks by name, in the catalogue or in folders of the user's, and makes their examples."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autointerp.bundled import bundled_folder
from autointerp.errors import SuiteError
from autointerp.probe_records import ProbeData, SkippedTask
from autointerp.probing.hub_rows import HubReader, InstalledDatasets
from autointerp.probing.own_tasks import own_tasks
from autointerp.probing.row_tasks import row_tasks
from autointerp.probing.source_tasks import source_tasks
from autointerp.probing.task_examples import DrawnTask, joined
from autointerp.probing.task_files import TaskFile, read_task_file
from autointerp.probing.text_encoder import TextEncoder
from autointerp.sampling.contexts import ContextOptions

__all__ = ["catalogue_names", "load_probe_data", "refuse_unknown_tasks"]

_TASK = "task.toml"


@dataclass(frozen=True)
class _Found:
    """A task that was asked for."""

    folder: Path
    file: TaskFile


def catalogue_names() -> tuple[str, ...]:
    """The names of all tasks that ship with the package, `set/task`, in order."""
    root = bundled_folder("probes")
    return tuple(sorted(path.parent.relative_to(root).as_posix() for path in root.glob(f"*/*/{_TASK}")))


def refuse_unknown_tasks(tasks: Sequence[str], folder: Path | None = None) -> None:
    """Find the tasks without making their examples.

    Raises:
        SuiteError: as `load_probe_data` does for a name or a task's file.
    """
    _found(tasks, folder or Path.cwd())


def load_probe_data(
    tasks: Sequence[str],
    *,
    tokenizer: Any,
    options: ContextOptions,
    examples: int,
    seed: int,
    folder: Path | None = None,
    reader: HubReader | None = None,
) -> ProbeData:
    """The labelled examples of probe tasks, as the subject reads them.

    Args:
        tasks: sets (`stdlib`, `gao61`), single tasks (`stdlib/in_docstring`), or folders with `task.toml` and
            `examples.jsonl`, or folders of such folders.
        tokenizer: the subject's, a fast one.
        options: how the run makes contexts; of it the length, BOS and what special tokens are count.
        examples: of each task, at most; as many of either label.
        seed: of the draw. The side of the split does not depend on it.
        folder: what paths are relative to; None for the working directory.
        reader: what reads data sets; None for the package `datasets`.

    Raises:
        SuiteError: an unknown name, or a folder with a bad file; one line says which and what to do.
        CorpusError: the tokenizer cannot be used, or the library's source is not here.
    """
    base = folder or Path.cwd()
    found = _found(tasks, base)
    encoder = TextEncoder.of(tokenizer, options)
    drawn: dict[str, DrawnTask] = {}
    skipped: dict[str, SkippedTask] = {}

    def keep(made: tuple[list[DrawnTask], list[SkippedTask]]) -> None:
        drawn.update({one.task.name: one for one in made[0]})
        skipped.update({one.task.name: one for one in made[1]})

    on_source = {name: one.file for name, one in found.items() if one.file.marks or one.file.contexts}
    for every in (_catalogue_on_source(), _own_only(on_source)):
        wanted = [name for name in on_source if name in every]
        if wanted:
            keep(source_tasks(wanted, every, encoder, examples=examples, seed=seed))
    on_rows = {name: one.file for name, one in found.items() if one.file.rows}
    if on_rows:
        data = base / "probe-data"
        keep(row_tasks(on_rows, encoder, reader or InstalledDatasets(data), examples=examples, seed=seed))
    own = {
        name: (one.folder, one.file)
        for name, one in found.items()
        if name not in on_rows and name not in on_source
    }
    keep(own_tasks(own, encoder, examples=examples, seed=seed))
    return joined(
        [drawn[name] for name in found if name in drawn],
        [skipped[name] for name in found if name in skipped],
        first_scored=len(encoder.first),
    )


def _found(tasks: Sequence[str], base: Path) -> dict[str, _Found]:
    """Name -> task, in the order asked for; a task that is asked for twice is there once."""
    root = bundled_folder("probes")
    names = catalogue_names()
    found: dict[str, _Found] = {}
    for asked in tasks:
        listed = [name for name in names if asked in (name, name.partition("/")[0])]
        if listed:
            found.update({name: _Found(root / name, read_task_file(root / name / _TASK)) for name in listed})
            continue
        for name, place in _own_folders(asked, base, names):
            if name in found and found[name].folder != place:
                raise SuiteError(
                    f"two tasks are called {name!r}", where="probes.tasks", remedy="rename a folder"
                )
            found[name] = _Found(place, read_task_file(place / _TASK))
    return found


def _own_folders(asked: str, base: Path, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Name and folder of the tasks in a folder of the user's."""
    try:
        place = (base / Path(asked).expanduser()).resolve()
        is_folder = bool(asked) and place.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a circle of links, a NUL
        raise SuiteError(f"the path {asked!r} cannot be used ({error})", where="probes.tasks") from None
    if not is_folder:
        raise _unknown(asked, names)
    if (place / _TASK).is_file():
        yield f"own/{place.name}", place
        return
    inside = sorted(path.parent for path in place.glob(f"*/{_TASK}"))
    if not inside:
        raise SuiteError(
            f"there is no {_TASK}, neither here nor in a folder below",
            where=place,
            remedy="see docs/probes.md for what a task needs",
        )
    for task in inside:
        yield f"{place.name}/{task.name}", task


def _unknown(asked: str, names: Sequence[str]) -> SuiteError:
    sets = sorted({name.partition("/")[0] for name in names})
    short = {name.partition("/")[2]: name for name in names}
    known = difflib.get_close_matches(asked, [*sets, *names, *short], n=3)
    near = list(dict.fromkeys(short.get(name, name) for name in known))
    there = f"did you mean {' or '.join(near)}?" if near else f"the sets are {', '.join(sets)}"
    return SuiteError(
        f"no probe task, set or folder {asked!r}",
        where="probes.tasks",
        remedy=f"{there} (a folder of your own has a task.toml)",
    )


def _catalogue_on_source() -> dict[str, TaskFile]:
    """All tasks of the catalogue that share a pool of contexts."""
    root = bundled_folder("probes")
    every = {name: read_task_file(root / name / _TASK) for name in catalogue_names()}
    return {name: file for name, file in every.items() if file.marks or file.contexts}


def _own_only(on_source: Mapping[str, TaskFile]) -> dict[str, TaskFile]:
    """Those of the user's own, with a pool of theirs: the catalogue's examples do not depend on them."""
    catalogue = set(catalogue_names())
    return {name: file for name, file in on_source.items() if name not in catalogue}
