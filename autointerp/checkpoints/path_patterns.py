"""Patterns for paths: `sweep/*/layer_4`, `sweep/**`; followed name by name, down only where a match can be.

`*`, `?` and `[...]` stand for part of a name, `**` for any number of folders, none included. As in a shell a
name that begins with a dot is met only by a pattern that begins with one.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["PathPattern", "Places", "has_wildcard", "natural_key", "split_pattern"]

Places = frozenset[int]
"""How much of a pattern a path may have used up: numbers of its parts."""

_ANY_DEPTH = "**"
_NEVER_ENTERED = ("__pycache__", "lost+found")


def has_wildcard(text: str) -> bool:
    """Whether a text is a pattern."""
    return any(sign in text for sign in "*?[")


def split_pattern(text: str) -> tuple[str, tuple[str, ...]]:
    """What stands before the first part with a wildcard, and the parts from there on.

    `runs/a/*/layer_4` -> `runs/a`, (`*`, `layer_4`).
    """
    parts = text.split("/")
    first = next((index for index, part in enumerate(parts) if has_wildcard(part)), len(parts))
    folder = "/".join(parts[:first]) or ("/" if text.startswith("/") else "")
    return folder, tuple(part for part in parts[first:] if part not in ("", "."))


def natural_key(name: str) -> list[str | int]:
    """Sorts `layer_2` before `layer_10`: texts and numbers alternate, so like meets like."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", name))]


@dataclass(frozen=True)
class PathPattern:
    """The parts of a pattern, matched against the names of a path one at a time."""

    parts: tuple[str, ...]

    @property
    def start(self) -> Places:
        """Where a match begins, before any name."""
        return self._with_empty({0})

    def step(self, places: Places, name: str) -> Places:
        """Where a match can be after one more name; empty: nothing at or below this name can match."""
        after: set[int] = set()
        for place in places:
            part = self.parts[place] if place < len(self.parts) else ""
            if part == _ANY_DEPTH and not name.startswith(".") and name not in _NEVER_ENTERED:
                after.add(place)
            elif part != _ANY_DEPTH and _meets(name, part):
                after.add(place + 1)
        return self._with_empty(after)

    def is_met(self, places: Places) -> bool:
        """Whether the names so far match the whole pattern."""
        return len(self.parts) in places

    def goes_on(self, places: Places) -> bool:
        """Whether something further down can match."""
        return any(place < len(self.parts) for place in places)

    def matches(self, names: tuple[str, ...]) -> bool:
        """Whether these names, one below the other, match the whole pattern."""
        places = self.start
        for name in names:
            places = self.step(places, name)
        return self.is_met(places)

    def _with_empty(self, places: set[int]) -> Places:
        """`**` also stands for no folder at all."""
        reached, waiting = set(places), list(places)
        while waiting:
            place = waiting.pop()
            if place < len(self.parts) and self.parts[place] == _ANY_DEPTH and place + 1 not in reached:
                reached.add(place + 1)
                waiting.append(place + 1)
        return frozenset(reached)


def _meets(name: str, part: str) -> bool:
    hidden_only_if_asked = not name.startswith(".") or part.startswith(".")
    return hidden_only_if_asked and fnmatchcase(name, part)
