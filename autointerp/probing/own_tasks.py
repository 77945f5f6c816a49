"""Reads probe tasks of the user's own: `task.toml` with the labelled texts in `examples.jsonl` beside it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autointerp.errors import SuiteError
from autointerp.probe_records import SkippedTask
from autointerp.probing.drawing import hash_of
from autointerp.probing.label_rules import LabelledText
from autointerp.probing.labelled_tasks import labelled_task
from autointerp.probing.task_examples import DrawnTask
from autointerp.probing.task_files import TaskFile
from autointerp.probing.text_encoder import TextEncoder

__all__ = ["own_tasks"]

_EXAMPLES = "examples.jsonl"
_LARGEST_LINE_BYTES = 4 * 2**20
_LARGEST_FILE_BYTES = 512 * 2**20
_MOST_LINES = 1_000_000


class _Line(BaseModel):
    """One example."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: str = Field(min_length=1)
    label: bool | Annotated[int, Field(ge=0, le=1)]
    group: str | int | None = None
    split: Literal["train", "test"] | None = None
    start: Annotated[int, Field(ge=0)] | None = None
    end: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _span_lies_in_the_text(self) -> "_Line":
        if (self.start is None) != (self.end is None):
            raise ValueError("`start` and `end` belong together")
        if self.start is not None and self.end is not None and not self.start < self.end <= len(self.text):
            raise ValueError(
                f"the span {self.start}-{self.end} does not lie in the text's {len(self.text)} characters"
            )
        return self


def own_tasks(
    tasks: Mapping[str, tuple[Path, TaskFile]], encoder: TextEncoder, *, examples: int, seed: int
) -> tuple[list[DrawnTask], list[SkippedTask]]:
    """The examples of tasks that lie in folders.

    Args:
        tasks: name -> folder and `task.toml`.
        encoder: how texts become tokens.
        examples: of a task, at most.
        seed: of the draw.

    Raises:
        SuiteError: a file is missing or wrong; one line says which line and what to do.
    """
    made = [
        labelled_task(
            file.task(name), _labelled(folder / _EXAMPLES, file), encoder, examples=examples, seed=seed
        )
        for name, (folder, file) in tasks.items()
    ]
    return (
        [one for one in made if isinstance(one, DrawnTask)],
        [one for one in made if isinstance(one, SkippedTask)],
    )


def _labelled(path: Path, file: TaskFile) -> list[LabelledText]:
    texts: list[LabelledText] = []
    sides: dict[str, tuple[bool | None, int]] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        marked = line.start is not None and line.end is not None
        if marked != (file.pooling == "marked"):
            raise SuiteError(
                "a marked span (start, end) is missing" if not marked else "a marked span is not used",
                where=where,
                remedy=f'the pooling is "{file.pooling}"; only "marked" has spans, and needs them',
            )
        group = f"text {hash_of(line.text):016x}" if line.group is None else f"{line.group}"
        side = None if line.split is None else line.split == "test"
        _refuse_two_sides(group, side, sides, number, where=where)
        span = (line.start, line.end) if line.start is not None and line.end is not None else None
        texts.append(LabelledText(line.text, bool(line.label), group, side, span))
    if not texts:
        raise SuiteError("there is no example in it", where=path, remedy="write one JSON object a line")
    return texts


def _refuse_two_sides(
    group: str, side: bool | None, sides: dict[str, tuple[bool | None, int]], number: int, *, where: str
) -> None:
    """A group lies on one side, and either all examples say their side or none does."""
    before, line = sides.setdefault(group, (side, number))
    if before != side:
        raise SuiteError(
            f"the same group (or text) as in line {line}, but another split",
            where=where,
            remedy="keep all examples of a group on one side, or leave `split` out",
        )
    first, _line = next(iter(sides.values()))
    if (first is None) != (side is None):
        raise SuiteError(
            "some examples have a `split`, others none", where=where, remedy="give it to all or to none"
        )


def _lines(path: Path) -> Iterator[tuple[int, _Line]]:
    try:
        size = path.stat().st_size
        stream = path.open("rb")
    except OSError as error:
        raise SuiteError(
            f"cannot be read ({error.strerror})", where=path, remedy=f"put the examples into {_EXAMPLES}"
        ) from None
    with stream:
        if size > _LARGEST_FILE_BYTES:
            raise SuiteError("is larger than 512 MiB", where=path, remedy="draw fewer examples")
        number = 0
        while line := stream.readline(_LARGEST_LINE_BYTES + 1):
            number += 1
            if len(line) > _LARGEST_LINE_BYTES or number > _MOST_LINES:
                raise SuiteError(
                    "the line is longer than 4 MiB" if number <= _MOST_LINES else "more than a million lines",
                    where=f"{path}:{number}",
                    remedy="shorten it",
                )
            if line.strip():
                yield number, _parsed(line, where=f"{path}:{number}")


def _parsed(line: bytes, *, where: str) -> _Line:
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"is no JSON ({error})", where=where, remedy="one JSON object a line") from None
    try:
        return _Line.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"][:1])
        message = fault["msg"].removeprefix("Value error, ")
        raise SuiteError(
            f"{place}: {message}" if place else message,
            where=where,
            remedy='an example is {"text", "label": 0 or 1, "group"?, "split"?, "start"?, "end"?}',
        ) from None
