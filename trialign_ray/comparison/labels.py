"""Where names stand beside the points of a chart, so that none lies on another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LABEL_HEIGHT, LETTER_WIDTH, POINT = 15.0, 7.8, 9.0
"""Of a name in pixels, a guess that is a little too wide; and the side of a point."""
Box = tuple[float, float, float, float]
"""left, bottom, right, top"""


@dataclass(frozen=True)
class Mark:
    """A point, in pixels from the lower left."""

    name: str
    x: float
    y: float


def label_positions(marks: Sequence[Mark], width: float) -> dict[str, str]:
    """plotly's `textposition` of each name that has room, without those that have none.

    Greedy in the order given: the first of six places where the name lies on no point and no name
    that is already there, and within the chart's `width`. Corners come first, for bars of an
    interval run straight up and sideways.
    """
    points = {m.name: _box(m.x, m.y, POINT, POINT) for m in marks}
    taken: list[Box] = []
    positions = {}
    for mark in marks:
        others = [box for name, box in points.items() if name != mark.name]
        for position, box in _places(mark):
            inside = box[0] >= 0 and box[2] <= width
            if inside and not any(_overlap(box, other) for other in (*taken, *others)):
                taken.append(box)
                positions[mark.name] = position
                break
    return positions


def _places(mark: Mark) -> Iterable[tuple[str, Box]]:
    width = LETTER_WIDTH * len(mark.name)
    for vertical, up in (("top", 1.0), ("bottom", -1.0), ("middle", 0.0)):
        for side, across in (("left", -1), ("right", 1)):
            x = mark.x + across * (width / 2 + POINT)
            yield f"{vertical} {side}", _box(x, mark.y + up * LABEL_HEIGHT, width, LABEL_HEIGHT)


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
