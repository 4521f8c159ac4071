"""Outlines of the toybox's objects: polygons and ellipses in a unit square around the origin.

A shape is a list of layers, painted in order. A layer has a fill (a fixed colour, or ``BODY`` for the
object's own colour) and a function that draws it into an 8-bit mask of the canvas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Color = tuple[int, int, int]
Mask = np.ndarray
BODY: Color = (-1, -1, -1)
"""Placeholder for the object's own colour and texture."""

_SUBPIXEL_BITS = 4
_SUBPIXEL = 1 << _SUBPIXEL_BITS


@dataclass(frozen=True)
class Placement:
    """The place of an object on the canvas, in pixels: its centre and half its size."""

    x: float
    y: float
    radius: float


def polygon(mask: Mask, at: Placement, points: Sequence[tuple[float, float]]) -> None:
    """Fill a polygon given in unit coordinates."""
    pixels = np.asarray(points, np.float32) * at.radius + (at.x, at.y)
    corners = np.round(pixels * _SUBPIXEL).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, _SUBPIXEL_BITS)


def ellipse(mask: Mask, at: Placement, x: float, y: float, a: float, b: float) -> None:
    """Fill an upright ellipse with centre (x, y) and half axes (a, b) in unit coordinates."""
    centre = (int((at.x + x * at.radius) * _SUBPIXEL), int((at.y + y * at.radius) * _SUBPIXEL))
    axes = (max(1, int(a * at.radius * _SUBPIXEL)), max(1, int(b * at.radius * _SUBPIXEL)))
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1, cv2.LINE_AA, _SUBPIXEL_BITS)


def rectangle(mask: Mask, at: Placement, x0: float, y0: float, x1: float, y1: float) -> None:
    """Fill a rectangle in unit coordinates."""
    polygon(mask, at, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


@dataclass(frozen=True)
class Layer:
    fill: Color
    draw: Callable[[Mask, Placement], None]


def _ball(mask: Mask, at: Placement) -> None:
    ellipse(mask, at, 0, 0, 0.9, 0.9)


def _car_body(mask: Mask, at: Placement) -> None:
    roof = [(-0.62, 0), (-0.4, -0.5), (0.38, -0.5), (0.64, 0)]
    polygon(mask, at, [(-1, 0.02), *roof, (1, 0.06), (1, 0.5), (-1, 0.5)])


def _car_windows(mask: Mask, at: Placement) -> None:
    polygon(mask, at, [(-0.46, 0), (-0.32, -0.36), (-0.07, -0.36), (-0.07, 0)])
    polygon(mask, at, [(0.07, 0), (0.07, -0.36), (0.3, -0.36), (0.47, 0)])


def _car_wheels(mask: Mask, at: Placement) -> None:
    ellipse(mask, at, -0.52, 0.52, 0.27, 0.27)
    ellipse(mask, at, 0.52, 0.52, 0.27, 0.27)


def _house_walls(mask: Mask, at: Placement) -> None:
    rectangle(mask, at, -0.74, -0.16, 0.74, 0.9)


def _house_roof(mask: Mask, at: Placement) -> None:
    polygon(mask, at, [(-0.98, -0.12), (0, -0.95), (0.98, -0.12)])


def _house_door(mask: Mask, at: Placement) -> None:
    rectangle(mask, at, -0.18, 0.3, 0.18, 0.9)


def _tree_trunk(mask: Mask, at: Placement) -> None:
    polygon(mask, at, [(-0.15, 0.1), (0.15, 0.1), (0.2, 0.95), (-0.2, 0.95)])


def _tree_crown(mask: Mask, at: Placement) -> None:
    ellipse(mask, at, 0, -0.46, 0.5, 0.48)
    ellipse(mask, at, -0.44, -0.08, 0.42, 0.4)
    ellipse(mask, at, 0.44, -0.08, 0.42, 0.4)
    ellipse(mask, at, 0, 0, 0.45, 0.38)


def _boat_mast(mask: Mask, at: Placement) -> None:
    rectangle(mask, at, -0.06, -0.95, 0.06, 0.3)


def _boat_sails(mask: Mask, at: Placement) -> None:
    polygon(mask, at, [(0.1, -0.9), (0.78, 0.12), (0.1, 0.12)])
    polygon(mask, at, [(-0.1, -0.65), (-0.6, 0.12), (-0.1, 0.12)])


def _boat_hull(mask: Mask, at: Placement) -> None:
    polygon(mask, at, [(-1, 0.2), (1, 0.2), (0.64, 0.85), (-0.64, 0.85)])


def _mushroom_stem(mask: Mask, at: Placement) -> None:
    polygon(mask, at, [(-0.26, 0), (0.26, 0), (0.34, 0.92), (-0.34, 0.92)])


def _mushroom_cap(mask: Mask, at: Placement) -> None:
    angles = np.linspace(np.pi, 2 * np.pi, 40)
    dome = [(0.96 * np.cos(a), 0.08 + 0.92 * np.sin(a)) for a in angles]
    polygon(mask, at, dome)
    ellipse(mask, at, 0, 0.08, 0.96, 0.15)


def _star(mask: Mask, at: Placement) -> None:
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.46)
    points = [(r * np.sin(a), -r * np.cos(a)) for a, r in zip(angles, radii, strict=True)]
    polygon(mask, at, points)


SHAPES: dict[str, list[Layer]] = {
    "ball": [Layer(BODY, _ball)],
    "car": [
        Layer(BODY, _car_body),
        Layer((200, 230, 245), _car_windows),
        Layer((40, 40, 46), _car_wheels),
    ],
    "house": [
        Layer(BODY, _house_walls),
        Layer((112, 66, 46), _house_roof),
        Layer((92, 56, 38), _house_door),
    ],
    "tree": [Layer((110, 72, 42), _tree_trunk), Layer(BODY, _tree_crown)],
    "boat": [
        Layer((110, 72, 42), _boat_mast),
        Layer((248, 246, 240), _boat_sails),
        Layer(BODY, _boat_hull),
    ],
    "mushroom": [Layer((240, 226, 200), _mushroom_stem), Layer(BODY, _mushroom_cap)],
    "star": [Layer(BODY, _star)],
}


def stripes(canvas: int, at: Placement) -> Mask:
    """Slanted stripes over an object, as an 8-bit mask of the canvas."""
    mask = np.zeros((canvas, canvas), np.uint8)
    for k in range(-4, 5):
        x = 0.52 * k
        polygon(mask, at, [(x - 0.5, 1.2), (x - 0.26, 1.2), (x + 0.4, -1.2), (x + 0.16, -1.2)])
    return mask


def dots(canvas: int, at: Placement) -> Mask:
    """A staggered lattice of dots over an object, as an 8-bit mask of the canvas."""
    mask = np.zeros((canvas, canvas), np.uint8)
    for row in range(-3, 4):
        for column in range(-3, 4):
            ellipse(mask, at, (column + 0.5 * (row % 2)) * 0.56, row * 0.47, 0.17, 0.17)
    return mask


TEXTURES: dict[str, Callable[[int, Placement], Mask] | None] = {
    "plain": None,
    "striped": stripes,
    "dotted": dots,
}
