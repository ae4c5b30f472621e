"""Draw solid-looking figures from implicit functions: coverage, light, highlight and soft shadow, with numpy alone.

Everything is float32 and element by element, so an image does not depend on the others in its batch.
Shapes below: B images, R x R pixels, S = 3 samples in each pixel.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Field", "Part", "View", "backdrop", "paint"]

Array = NDArray[np.float32]
Field = Callable[[Array, Array], Array]
Normal = tuple[Array, Array, Array]

# Three points of a circle of half a pixel: their mean and differences are a field's value and slope at the centre.
STENCIL = ((0.5, 0.0), (-0.25, 0.4330127), (-0.25, -0.4330127))


@dataclass(frozen=True)
class Part:
    """One piece of a figure: where ``field(x, y) < 0``, in the figure's own coordinates.

    ``ramp`` [B, 3, 3] holds the colours of shade, middle and light; ``width`` is how far from the edge the surface
    curves (None is flat); ``pattern`` adds to the brightness; ``normal`` replaces the curved surface;
    ``shadow`` says whether the part stands above what is below it.
    """

    field: Field
    ramp: Array
    width: float | None = None
    gloss: float = 0.35
    pattern: Field | None = None
    normal: Callable[[Array, Array], Normal] | None = None
    shadow: bool = True


@dataclass(frozen=True)
class View:
    """Pixel centres ``x, y`` [B, R, R] and the ``light`` (three [B, 1, 1]) in the figure's coordinates, y upwards."""

    x: Array
    y: Array
    pixel: Array
    light: Normal


def backdrop(x: Array, y: Array, light: Normal, ramps: Array) -> Array:
    """A graded wall [B, 3, R, R], brighter and of another tint towards the light; ``x, y`` [R, R] in the frame."""
    side = (0.5 + 0.75 * light[0])[:, None]
    dark, bright = (ramps[0, k][:, None, None] * (1 - side) + ramps[1, k][:, None, None] * side for k in (0, 1))
    lit = (0.5 + 0.42 * (light[0] * x + light[1] * y))[:, None]
    return dark + (bright - dark) * lit


def paint(image: Array, view: View, parts: Iterable[Part]) -> Array:
    """Paint the parts over ``image`` [B, 3, R, R] in [0, 1], in order."""
    for part in parts:
        if part.shadow:
            image = image * (1 - 0.42 * _shadow(part, view))[:, None]
        value, slope_x, slope_y = _sample(part.field, view)
        steep = np.maximum(np.hypot(slope_x, slope_y), np.float32(0.5))
        cover = np.clip(0.5 - value / (steep * view.pixel), 0, 1)[:, None]
        colour = _colour(part, view, _normal(part, view, value, slope_x / steep, slope_y / steep))
        image = image + (colour - image) * cover
    return image


def _sample(field: Field, view: View) -> Normal:
    """Value and slope of a field at each pixel, smoothed over the pixel."""
    x = np.stack([view.x + dx * view.pixel for dx, _ in STENCIL])
    y = np.stack([view.y + dy * view.pixel for _, dy in STENCIL])
    a, b, c = field(x, y)
    return (a + b + c) / 3, (2 * a - b - c) / (1.5 * view.pixel), (b - c) / (0.8660254 * view.pixel)


def _normal(part: Part, view: View, value: Array, gx: Array, gy: Array) -> Normal:
    """The cushion over a shape: ``n_xy = slope (1 - depth / width)``, the exact normal of a sphere and of a torus."""
    if part.normal:
        return part.normal(view.x, view.y)
    rim = 1 - np.clip(-value / part.width, 0, 1) if part.width else np.zeros_like(value)
    nx, ny = gx * rim, gy * rim
    return nx, ny, np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))


def _colour(part: Part, view: View, normal: Normal) -> Array:
    """Half-Lambert light along the part's ramp (a quadratic Bezier curve), plus a white highlight."""
    lx, ly, lz = view.light
    nx, ny, nz = normal
    lit = 0.5 + 0.5 * (nx * lx + ny * ly + nz * lz)
    if part.pattern:
        lit = lit + part.pattern(view.x, view.y)
    lit = np.clip(lit * lit, 0, 1)[:, None]
    dark, middle, bright = (part.ramp[:, k, :, None, None] for k in range(3))
    colour = dark + lit * (2 * (middle - dark) + lit * (dark - 2 * middle + bright))
    half = np.sqrt(2 + 2 * lz)
    shine = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / half, 0)
    for _ in range(5):
        shine = shine * shine
    return colour + (1 - colour) * (part.gloss * shine)[:, None]


def _shadow(part: Part, view: View) -> Array:
    """How much of the light the part keeps from what lies behind it, [B, R, R] in [0, 1]."""
    lx, ly, _ = view.light
    depth = np.clip(0.5 - part.field(view.x + 0.2 * lx, view.y + 0.2 * ly) / 0.34, 0, 1)
    return depth * depth * (3 - 2 * depth)
