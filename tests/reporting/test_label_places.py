"""Names beside marks: none on another, none cut, none on a mark."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from autointerp.reporting.label_places import Spot, label_places

WIDTH, HEIGHT = 480, 380


def box(spot, place):
    """What letters of 11 pixels cover, less tightly than the module has it."""
    reach = min(5.5 * len(spot.name), 190)
    left = spot.x + place.dx - (reach if place.align == "right" else 0)
    return left, spot.y + place.dy - 8, left + reach, spot.y + place.dy + 2


def apart(one, other):
    return one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


spots = st.lists(
    st.builds(Spot, st.integers(0, WIDTH), st.integers(0, HEIGHT), st.text("abc-", min_size=1, max_size=40)),
    max_size=14,
)


@given(spots=spots)
def test_names_lie_apart_within_the_plot_and_off_the_marks(spots):
    places = label_places(spots, width=WIDTH, height=HEIGHT)
    assert len(places) == len(spots)
    boxes = [box(spot, place) for spot, place in zip(spots, places, strict=True) if place]
    assert all(apart(one, other) for one, other in itertools.combinations(boxes, 2))
    for left, top, right, bottom in boxes:
        assert left >= 0 and right <= WIDTH and top >= 0 and bottom <= HEIGHT
        assert all(apart((left, top, right, bottom), (s.x - 3, s.y - 3, s.x + 3, s.y + 3)) for s in spots)


@given(distance=st.integers(3, 30))
def test_of_two_marks_one_above_the_other_neither_has_the_others_name(distance):
    upper, lower = Spot(240, 190, "upper"), Spot(240, 190 + distance, "lower")
    for spots in ([upper, lower], [lower, upper]):
        places = dict(
            zip([s.name for s in spots], label_places(spots, width=WIDTH, height=HEIGHT), strict=True)
        )
        assert places["upper"] and places["lower"]
        assert upper.y + places["upper"].dy < lower.y + places["lower"].dy


def test_a_name_with_room_stands_above_to_the_right():
    (place,) = label_places([Spot(100, 100, "topk")], width=WIDTH, height=HEIGHT)
    assert (place.align, place.dy < 0) == ("left", True)


def test_near_the_right_edge_it_ends_at_its_mark():
    (place,) = label_places([Spot(470, 100, "a-long-name")], width=WIDTH, height=HEIGHT)
    assert place.align == "right"


def test_names_at_one_place_find_different_sides_until_there_are_none():
    places = label_places([Spot(240, 190, f"name-{i:02}") for i in range(30)], width=WIDTH, height=HEIGHT)
    found = [place for place in places if place]
    assert 4 <= len(found) == len(set(found)) < 30
