"""Marks of a chart and their names -> on which side of its mark each name stands, so that none overlap."""

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["LabelPlace", "Spot", "label_places"]

_LETTER = 6.0
_LINE = 13.0
_MARK = 5.0
_LONGEST = 190.0


class Spot(NamedTuple):
    """A mark and its name; pixels from the plot's upper left corner."""

    x: float
    y: float
    name: str


class LabelPlace(NamedTuple):
    """Where a name stands, as seen from its mark."""

    align: str
    """left: it begins there, right: it ends there."""
    dx: int
    dy: int
    """Of the letters' base line; downwards."""


_ABOVE_RIGHT, _ABOVE_LEFT = LabelPlace("left", 9, -8), LabelPlace("right", -9, -8)
_BELOW_RIGHT, _BELOW_LEFT = LabelPlace("left", 9, 16), LabelPlace("right", -9, 16)
_PLACES = (
    *(_ABOVE_RIGHT, _BELOW_LEFT, _ABOVE_LEFT, _BELOW_RIGHT),
    *(LabelPlace("left", 10, 4), LabelPlace("right", -10, 4)),
    *(LabelPlace("left", 9, -21), LabelPlace("right", -9, -21)),
    *(LabelPlace("left", 9, 29), LabelPlace("right", -9, 29)),
)
"""In the order in which they are tried."""

_Box = tuple[float, float, float, float]


def label_places(spots: Sequence[Spot], *, width: float, height: float) -> list[LabelPlace | None]:
    """A place each name, earlier ones first.

    None where it would lie on another name or mark, be cut, or begin nearer to another mark than to its own.
    Widths of names are estimates for letters of 11 pixels.
    """
    taken: list[_Box] = [(s.x - _MARK, s.y - _MARK, s.x + _MARK, s.y + _MARK) for s in spots]
    found: list[LabelPlace | None] = []
    for spot in spots:
        free = None
        for place in _PLACES:
            box = _box(spot, place)
            is_inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height
            if is_inside and _is_own(spot, place, spots) and not any(_touch(box, other) for other in taken):
                free = place
                taken.append(box)
                break
        found.append(free)
    return found


def _box(spot: Spot, place: LabelPlace) -> _Box:
    reach = min(_LETTER * len(spot.name), _LONGEST)
    left = spot.x + place.dx - (reach if place.align == "right" else 0.0)
    base = spot.y + place.dy
    return left, base - _LINE + 3, left + reach, base + 3


def _is_own(spot: Spot, place: LabelPlace, spots: Sequence[Spot]) -> bool:
    """Whether no mark is nearer to where the name meets its mark."""
    x, y = spot.x + place.dx, spot.y + place.dy - _LINE / 3
    own = math.hypot(spot.x - x, spot.y - y)
    return all(math.hypot(other.x - x, other.y - y) >= own for other in spots)


def _touch(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
