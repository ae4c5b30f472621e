"""Draw solid-looking figures from implicit functions: coverage, light, highlight and soft shadow, with numpy alone.

Everything is element by element and float32, so an image does not depend on the others in its batch.
In the shapes below B is the images and R x R their pixels; a number per image is [B, 1, 1].
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Field", "Part", "Vector", "View", "backdrop", "norm", "paint"]

Array = NDArray[np.floating]
Vector = tuple[Array, Array, Array]
Field = Callable[[Array, Array], Array]

# Three points around the centre of a pixel: their mean and differences are a field's value and slope, smoothed.
STENCIL = ((0.5, 0.0), (-0.25, 0.4330127), (-0.25, -0.4330127))
DISTANCE, BLUR, DARKNESS = 0.2, 0.34, 0.42  # of shadows, in the figure's units


@dataclass(frozen=True)
class View:
    """Pixel centres ``x, y`` [B, R, R], the width of a ``pixel`` and the direction of the ``light``, as the figure
    sees them; y is upwards and z towards the eye."""

    x: Array
    y: Array
    pixel: Array
    light: Vector


@dataclass(frozen=True)
class Part:
    """One part of a figure: where ``field(x, y) < 0``. The field grows by about one per unit across the edge.

    ``ramp`` [B, 3, 3] holds the colours in shade, in between and in full light; ``width`` is how far from the edge
    the surface curves (None: a flat part); ``pattern`` adds to the light; ``normal`` replaces the curved surface;
    ``raised`` parts throw a shadow on what is behind them.
    """

    field: Field
    ramp: Array
    width: float | Array | None = None
    gloss: float = 0.0
    pattern: Field | None = None
    normal: Callable[[Array, Array], Vector] | None = None
    raised: bool = True


def norm(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y)


def backdrop(x: Array, y: Array, light: Vector, ramps: Array) -> Array:
    """A wall [B, 3, R, R], graded towards the light; its tint is between ``ramps`` [2, 2, 3] as the light is
    between left and right. ``x, y`` [R, R] are in the frame, [-1, 1] both ways."""
    side = (0.5 + 0.75 * light[0])[:, None]
    dark, bright = (ramps[0, k, :, None, None] * (1 - side) + ramps[1, k, :, None, None] * side for k in (0, 1))
    return dark + (bright - dark) * (0.5 + 0.42 * (light[0] * x + light[1] * y))[:, None]


def paint(image: Array, view: View, parts: Iterable[Part]) -> Array:
    """``image`` [B, 3, R, R] in [0, 1] with the parts drawn over it, in order."""
    for part in parts:
        if part.raised:
            image = image * (1 - DARKNESS * _shadow(part, view))[:, None]
        value, gx, gy = _sample(part.field, view)
        steep = np.maximum(norm(gx, gy), np.float32(0.5))
        cover = np.clip(0.5 - value / (steep * view.pixel), 0, 1)[:, None]
        surface = part.normal(view.x, view.y) if part.normal else _cushion(part.width, value, gx / steep, gy / steep)
        image = image + (_colour(part, view, surface) - image) * cover
    return image


def _sample(field: Field, view: View) -> Vector:
    """Value and slope of a field in each pixel, three times [B, R, R]."""
    x = np.stack([view.x + dx * view.pixel for dx, _ in STENCIL])
    y = np.stack([view.y + dy * view.pixel for _, dy in STENCIL])
    a, b, c = field(x, y)
    return (a + b + c) / 3, (2 * a - b - c) / (1.5 * view.pixel), (b - c) / (0.8660254 * view.pixel)


def _cushion(width: float | Array | None, value: Array, gx: Array, gy: Array) -> Vector:
    """The normal of a surface that rises from the edge, ``n_xy = slope (1 - depth / width)``.

    It is exact for a sphere (width = radius) and for a torus seen from above (width = radius of the tube).
    """
    rim = np.zeros_like(value) if width is None else 1 - np.clip(-value / width, 0, 1)
    nx, ny = gx * rim, gy * rim
    return nx, ny, np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))


def _colour(part: Part, view: View, surface: Vector) -> Array:
    """Colours [B, 3, R, R]: light ``((1 + n.l) / 2)^2`` along the ramp, a quadratic Bezier curve, and a highlight."""
    (nx, ny, nz), (lx, ly, lz) = surface, view.light
    light = 0.5 + 0.5 * (nx * lx + ny * ly + nz * lz)
    if part.pattern:
        light = light + part.pattern(view.x, view.y)
    light = np.clip(light * light, 0, 1)[:, None]
    dark, middle, bright = (part.ramp[:, k, :, None, None] for k in range(3))
    colour = dark + light * (2 * (middle - dark) + light * (dark - 2 * middle + bright))
    if not part.gloss:
        return colour
    # Blinn: the highlight is where the normal lies half-way between light and eye, here to the power 32.
    shine = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / np.sqrt(2 + 2 * lz), 0)
    for _ in range(5):
        shine = shine * shine
    return colour + (1 - colour) * (part.gloss * shine)[:, None]


def _shadow(part: Part, view: View) -> Array:
    """How much of the light the part keeps from what lies behind it, [B, R, R] in [0, 1]."""
    x, y = view.x + DISTANCE * view.light[0], view.y + DISTANCE * view.light[1]
    # The unit disc holds the figures: without it a sharp tip would throw its shadow far beyond itself.
    outside = np.maximum(part.field(x, y), norm(x, y) - 1.1)
    depth = np.clip(0.5 - outside / BLUR, 0, 1)
    return depth * depth * (3 - 2 * depth)
