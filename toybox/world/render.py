"""Rendering a scene: the background, then each object with its shadow and texture."""

from dataclasses import dataclass

import cv2
import numpy as np

from toybox.world.scene import COLORS, SIZE, Scene, Thing
from toybox.world.shapes import BODY, SHAPES, TEXTURES, Layer, Placement, ellipse

_CANVAS = 256
"""Side of the drawing in pixels. The drawing is then reduced by area averaging."""
_OUTLINE = (46, 36, 36)
_SKY = {"day": ((128, 190, 242), (208, 232, 250)), "night": ((14, 18, 58), (48, 58, 116))}
_GROUND = {
    "meadow": ((168, 214, 126), (132, 190, 96)),
    "beach": ((246, 228, 180), (232, 206, 148)),
    "snow": ((250, 252, 255), (220, 230, 243)),
    "desert": ((232, 178, 116), (208, 146, 88)),
    "room": ((178, 128, 88), (152, 104, 70)),
}
_NIGHT_GROUND = np.array((0.50, 0.54, 0.74), np.float32)
_NIGHT_OBJECT = np.array((0.74, 0.76, 0.88), np.float32)


@dataclass(frozen=True)
class Picture:
    """A rendered scene: ``image`` uint8 [SIZE,SIZE,3]; ``masks`` float32 [n,SIZE,SIZE] in [0,1]."""

    image: np.ndarray
    masks: np.ndarray


def render(scene: Scene) -> Picture:
    """Draw a scene and the mask of each object."""
    rng = np.random.default_rng(scene.decor_seed)
    horizon = int(scene.horizon * _CANVAS)
    canvas = _background(scene, horizon, rng)
    masks: list[np.ndarray] = []
    for thing in scene.things:
        full = _draw_thing(canvas, thing)
        masks = [np.minimum(mask, 255 - full) for mask in masks]
        masks.append(full)
    if scene.time == "night":
        _darken(canvas, masks, horizon, scene.background)
    image = cv2.resize(np.clip(canvas, 0, 255), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    small = [cv2.resize(m, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for m in masks]
    left = np.full((SIZE, SIZE), 255, np.uint8)
    for mask in reversed(small):  # each is rounded on its own, so that the sum may exceed a whole pixel
        np.minimum(mask, left, out=mask)
        left -= mask
    stacked = np.stack(small) if small else np.zeros((0, SIZE, SIZE), np.uint8)
    return Picture(np.round(image).astype(np.uint8), stacked.astype(np.float32) / 255)


def _draw_thing(canvas: np.ndarray, thing: Thing) -> np.ndarray:
    at = Placement(thing.x * _CANVAS, thing.y * _CANVAS, thing.radius * _CANVAS)
    if thing.kind != "star":
        shadow = np.zeros((_CANVAS, _CANVAS), np.uint8)
        ellipse(shadow, at, 0, 0.92, 0.85, 0.13)
        canvas *= 1 - 0.25 * (shadow[..., None].astype(np.float32) / 255)
    full = np.zeros((_CANVAS, _CANVAS), np.uint8)
    for layer in SHAPES[thing.kind]:
        full = np.maximum(full, _draw_layer(canvas, layer, thing, at))
    return full


def _draw_layer(canvas: np.ndarray, layer: Layer, thing: Thing, at: Placement) -> np.ndarray:
    mask = np.zeros((_CANVAS, _CANVAS), np.uint8)
    layer.draw(mask, at)
    if layer.fill != BODY:
        _blend(canvas, mask, layer.fill)
    else:
        base = np.array(COLORS[thing.color], np.float32)
        _blend(canvas, mask, base)
        texture = TEXTURES[thing.texture]
        if texture is not None:
            _blend(canvas, cv2.min(mask, texture(_CANVAS, at)), base * 0.12 + 255 * 0.88)
    contours, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, _OUTLINE, 4, cv2.LINE_AA)
    return mask


def _background(scene: Scene, horizon: int, rng: np.random.Generator) -> np.ndarray:
    canvas = np.empty((_CANVAS, _CANVAS, 3), np.float32)
    sky = _SKY[scene.time]
    canvas[:horizon] = _gradient(sky[0], sky[1], horizon)
    canvas[horizon:] = _gradient(*_GROUND[scene.background], rows=_CANVAS - horizon)
    where, height = rng.random(), rng.random()
    if scene.background == "room":
        _furnish(canvas, horizon, where, sky)
        return canvas
    lamp = (250, 244, 214) if scene.time == "night" else (255, 230, 96)
    _disc(canvas, 30 + rng.random() * 196, 0.22 * horizon, 18, lamp)
    if scene.background == "meadow":
        hill = np.zeros((_CANVAS, _CANVAS), np.uint8)
        size = (int(80 + 50 * height), int(30 + 18 * height))
        cv2.ellipse(hill, (int(where * _CANVAS), horizon + 4), size, 0, 180, 360, 255, -1, cv2.LINE_AA)
        hill[horizon:] = 0
        _blend(canvas, hill, (118, 178, 98))
    elif scene.background == "beach":
        canvas[horizon - 34 : horizon] = (60, 150, 204)
        canvas[horizon - 5 : horizon] = (240, 248, 252)
    elif scene.background == "snow":
        peak, top = where * _CANVAS, horizon - 62 - 24 * height
        _triangle(canvas, (peak - 105, horizon), (peak, top), (peak + 100, horizon), (160, 178, 206))
        _triangle(canvas, (peak - 36, top + 22), (peak, top), (peak + 34, top + 22), (250, 252, 255))
    elif scene.background == "desert":
        peak, top = where * _CANVAS, horizon - 56 - 24 * height
        _triangle(canvas, (peak - 90, horizon), (peak, top), (peak + 90, horizon), (212, 154, 92))
        _triangle(canvas, (peak + 20, horizon), (peak, top), (peak + 90, horizon), (184, 126, 74))
    return canvas


def _furnish(canvas: np.ndarray, horizon: int, where: float, sky: tuple) -> None:
    canvas[:horizon] = _gradient((240, 226, 198), (228, 210, 180), horizon)
    canvas[horizon - 8 : horizon] = (250, 246, 236)
    left, top, width, height = int(where * 150 + 20), int(horizon * 0.12), 68, int(horizon * 0.5)
    canvas[top - 5 : top + height + 5, left - 5 : left + width + 5] = (250, 248, 244)
    canvas[top : top + height, left : left + width] = _gradient(sky[0], sky[1], height)
    middle = left + width // 2
    canvas[top : top + height, middle - 2 : middle + 3] = (250, 248, 244)


def _darken(canvas: np.ndarray, masks: list[np.ndarray], horizon: int, background: str) -> None:
    if background == "room":
        canvas *= _NIGHT_OBJECT
        return
    light: np.ndarray = np.ones((_CANVAS, _CANVAS, 3), np.float32)
    light[horizon:] = _NIGHT_GROUND
    for mask in masks:
        inside = mask[..., None].astype(np.float32) / 255
        light = light * (1 - inside) + _NIGHT_OBJECT * inside
    canvas *= light


def _gradient(first: tuple, last: tuple, rows: int) -> np.ndarray:
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    start, end = np.array(first, np.float32), np.array(last, np.float32)
    return (start * (1 - t) + end * t)[:, None, :]


def _blend(canvas: np.ndarray, mask: np.ndarray, color) -> None:
    x, y, w, h = cv2.boundingRect(mask)
    part = canvas[y : y + h, x : x + w]
    alpha = mask[y : y + h, x : x + w, None].astype(np.float32) / 255
    part += alpha * (np.array(color, np.float32) - part)


def _disc(canvas: np.ndarray, x: float, y: float, radius: float, color) -> None:
    mask = np.zeros((_CANVAS, _CANVAS), np.uint8)
    ellipse(mask, Placement(x, y, radius), 0, 0, 1, 1)
    _blend(canvas, mask, color)


def _triangle(canvas: np.ndarray, a, b, c, color) -> None:
    mask = np.zeros((_CANVAS, _CANVAS), np.uint8)
    cv2.fillPoly(mask, [np.array([a, b, c]).astype(np.int32)], 255, cv2.LINE_AA)
    _blend(canvas, mask, color)
