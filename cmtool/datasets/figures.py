"""Ten figures as implicit functions: ``figure(pose) -> parts``, from the back to the front.

Coordinates are the figure's own, y upwards, within about the unit disc. A number per image is [B, 1, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cmtool.datasets.render import Array, Part, Vector, norm

__all__ = ["FIGURES", "WALL", "Pose"]


@dataclass(frozen=True)
class Pose:
    """What varies inside a class, in [0, 1]: ``size`` and ``form`` can be seen and carry the hue; ``tint`` is free."""

    size: Array
    form: Array
    tint: Array

    def ramp(self, first: str, second: str, by: Array) -> Array:
        """Colours [B, 3, 3] between two ramps: ``by`` says where, and the tint moves it by at most 0.075."""
        low, high = _colours(first), _colours(second)
        return low + (high - low) * np.clip(by + 0.15 * (self.tint - 0.5), 0, 1)

    def plain(self, colours: str) -> Array:
        return self.ramp(colours, colours, self.tint)


def _colours(text: str) -> Array:
    """``"5b1a4a e0417a ffc09a"`` as [3, 3] in [0, 1]."""
    return np.array([list(bytes.fromhex(word)) for word in text.split()], np.float32) / 255


WALL = np.stack([_colours("c9a9c0 fde6cf"), _colours("86b4d6 e2f6f4")])


def disc(x: Array, y: Array, r: float | Array, cx: float | Array = 0.0, cy: float | Array = 0.0) -> Array:
    return norm(x - cx, y - cy) - r


def oval(x: Array, y: Array, rx: float | Array, ry: float | Array) -> Array:
    """An ellipse, in units of the shorter radius."""
    return (norm(x / rx, y / ry) - 1) * np.minimum(rx, ry)


def capsule(x: Array, y: Array, a: tuple[float, float], b: tuple[float, float], r: float) -> Array:
    """The distance to the segment from a to b, less r."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return norm(x - a[0] - t * dx, y - a[1] - t * dy) - r


def both(a: Array, b: Array, soft: float) -> Array:
    """The intersection, its corners rounded: a maximum that is smooth where a and b differ by less than soft."""
    near = np.maximum(soft - np.abs(a - b), 0)
    return np.maximum(a, b) + near * near * (0.25 / soft)


def either(a: Array, b: Array, soft: float) -> Array:
    return -both(-a, -b, soft)


def dot(cx: float | Array, cy: float | Array, r: float, ramp: Array) -> Part:
    return Part(lambda x, y: disc(x, y, r, cx, cy), ramp, raised=False)


def ball(pose: Pose) -> list[Part]:
    ramp = pose.ramp("6a1450 f0463c ffb36b", "3a1c86 b145d6 ff9ecb", pose.size)
    return [Part(lambda x, y: disc(x, y, 0.95), ramp, 0.95, 0.9)]


def cube(pose: Pose) -> list[Part]:
    """Three faces of a solid cube, seen from 30 degrees above; ``form`` turns it."""
    half, yaw, sine, cosine = 0.68, 0.4 + 0.77 * pose.form, 0.5, 0.8660254
    c, s = np.cos(yaw), np.sin(yaw)
    faces: list[Vector] = [
        (s, -sine * c, cosine * c),
        (-c, -sine * s, cosine * s),
        (0 * c, 0 * c + cosine, 0 * c + sine),
    ]

    def outline(x: Array, y: Array) -> Array:
        # The projection of a cube is a hexagon: for each axis, a slab between the two others' ends.
        slabs = []
        for k, (ex, ey, _) in enumerate(faces):
            (ax, ay, _), (bx, by, _) = faces[k - 1], faces[k - 2]
            reach = half * (np.abs(ax * ey - ay * ex) + np.abs(bx * ey - by * ex))
            slabs.append((np.abs(x * ey - y * ex) - reach) / norm(ex, ey))
        return both(both(slabs[0], slabs[1], 0.12), slabs[2], 0.12)

    def normal(x: Array, y: Array) -> Vector:
        # The visible face is the lowest of the three planes; within a narrow edge the normals blend.
        depth = [(half - nx * x - ny * y) / nz for nx, ny, nz in faces]
        lowest = np.minimum(np.minimum(depth[0], depth[1]), depth[2])
        weight = [np.maximum(1 - (d - lowest) / 0.14, 0) for d in depth]
        nx, ny, nz = (weight[0] * u + weight[1] * v + weight[2] * w for u, v, w in zip(*faces, strict=True))
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        return nx / length, ny / length, nz / length

    ramp = pose.ramp("14305e 1f86d8 a5e4f6", "123f5c 16a39a c9f7b8", pose.form)
    return [Part(outline, ramp, gloss=0.15, normal=normal)]


def icecream(pose: Pose) -> list[Part]:
    """A waffle, a scoop as large as ``form`` says, and a cherry."""
    r = 0.46 + 0.12 * pose.form

    def waffle(x: Array, y: Array) -> Array:
        return both(0.9 * np.abs(x) - 0.44 * (y + 1.1), y + 0.1, 0.12)

    def grid(x: Array, y: Array) -> Array:
        return 0.07 * (np.cos(15 * (x + 0.55 * y)) + np.cos(15 * (x - 0.55 * y)))

    def scoop(x: Array, y: Array) -> Array:
        return either(disc(x, y, r, 0, 0.22), capsule(x, y, (-0.46, -0.08), (0.46, -0.08), 0.13), 0.15)

    cream = pose.ramp("c4446e ff8fb4 fff0ea", "b88a3c ffe49a fffbe6", pose.form)
    return [
        Part(waffle, pose.plain("7a3a14 d98a3a ffd58a"), 0.45, 0.1, grid),
        Part(scoop, cream, 0.55, 0.4),
        Part(lambda x, y: disc(x, y, 0.19, 0.08, 0.25 + r), pose.plain("6a0a2a e02a3c ff8a7a"), 0.19, 0.8),
    ]


def donut(pose: Pose) -> list[Part]:
    """A torus, thicker and browner with ``form``, with icing and six sprinkles."""
    tube = 0.31 + 0.09 * pose.form
    middle = 0.99 - tube

    def dough(x: Array, y: Array) -> Array:
        return np.abs(norm(x, y) - middle) - tube

    def icing(x: Array, y: Array) -> Array:
        return dough(x, y) + 0.08 - 0.03 * np.cos(7 * np.arctan2(y, x))

    def sprinkle(turn: float, colours: str) -> Part:
        return dot(middle * np.cos(turn), middle * np.sin(turn), 0.08, pose.plain(colours))

    top = pose.ramp("8a1e5c f25a9c ffc4d4", "4a1a10 9a5230 e0ac78", pose.form)
    return [
        Part(dough, pose.plain("8a4a1c dca050 ffe0a0"), tube, 0.1),
        Part(icing, top, tube - 0.05, 0.5),
        *(sprinkle(0.5 + 1.0472 * k, ("fff0b0 fff6d0 fffbe6", "7ae0f0 9aecf6 c0f6ff")[k % 2]) for k in range(6)),
    ]


def star(pose: Pose) -> list[Part]:
    """Five points, stouter and deeper orange with ``form``."""
    sine, cosine = 0.58778525, 0.80901699  # of 36 degrees
    notch = 0.46 + 0.1 * pose.form
    run, drop = notch * sine, 1.02 - notch * cosine

    def field(x: Array, y: Array) -> Array:
        for _ in range(2):  # mirrors fold the plane into the tenth between a tip and a notch
            x = np.abs(x)
            beyond = 2 * np.maximum(x * cosine - y * sine, 0)
            x, y = x - beyond * cosine, y + beyond * sine
        edge = (np.abs(x) * drop + (y - 1.02) * run) / norm(run, drop)
        return both(edge, norm(x, y) - 1, 0.06)

    return [Part(field, pose.ramp("c2500e ffc21e fff7a8", "b8320e ff9a1e ffe58a", pose.form), 0.42, 0.35)]


def heart(pose: Pose) -> list[Part]:
    def field(x: Array, y: Array) -> Array:
        x = np.sqrt(x * x + 0.004)
        return 0.75 * (norm(1.03 * x, 1.13 * y + 0.2 - 0.78 * np.sqrt(x)) - 0.96)

    return [Part(field, pose.ramp("5e0a2c e0203c ff8f80", "720a3c f0386e ffa8b0", pose.size), 0.6, 0.8)]


def leaf(pose: Pose) -> list[Part]:
    """A stalk and a blade with veins; ``form`` makes it narrower and yellower."""
    bow = 0.32 + 0.33 * pose.form

    def blade(x: Array, y: Array) -> Array:
        return norm(np.abs(x) + bow, y - 0.1) - np.sqrt(bow * bow + 1)

    def veins(x: Array, y: Array) -> Array:
        side = np.abs(x)
        return 0.07 * np.cos(16 * (y - 0.75 * side)) - 0.3 * np.maximum(1 - side / 0.07, 0)

    green = pose.ramp("0e4a3a 2fa04a c6ec6a", "2a5a10 86b81e f4f08a", pose.form)
    return [
        Part(lambda x, y: capsule(x, y, (0, -1.1), (0, -0.5), 0.07), pose.plain("3a3a10 7a8a2a c0c860"), 0.07),
        Part(blade, green, 0.5, 0.25, veins),
    ]


def moon(pose: Pose) -> list[Part]:
    """A crescent, slimmer and paler with ``form``, darker towards its ends."""
    shift = 0.58 - 0.16 * pose.form

    def field(x: Array, y: Array) -> Array:
        return both(disc(x, y, 0.98), 0.74 - norm(x - shift, y - 0.1), 0.06)

    def ends(x: Array, y: Array) -> Array:
        return -0.2 * np.maximum(x + 0.35, 0)

    return [Part(field, pose.ramp("8a4a0e f2b424 fff0a0", "8a6a2a f0d05a fff8d0", pose.form), 0.34, 0.3, ends)]


def mushroom(pose: Pose) -> list[Part]:
    """A stalk and a spotted cap, higher and more orange with ``form``."""
    height = 0.82 + 0.22 * pose.form

    def stalk(x: Array, y: Array) -> Array:
        bulge = np.maximum(-0.1 - y, 0)
        return both(np.abs(x) - 0.25 - 0.26 * bulge * bulge, np.abs(y + 0.45) - 0.52, 0.25)

    def cap(x: Array, y: Array) -> Array:
        return both(oval(x, y + 0.05, 0.98, height), 0.02 - y - 0.12 * x * x, 0.22)

    red = pose.ramp("6a0f1e e0342a ff9a6a", "7a2a0a ec7a1e ffca6a", pose.form)
    white = pose.plain("c8a8a0 fff0e0 ffffff")
    return [
        Part(stalk, pose.plain("9a7a60 ecd6b4 fffaec"), 0.3, 0.05),
        Part(cap, red, 0.6, 0.5),
        dot(-0.44, 0.34, 0.16, white),
        dot(0.14, 0.56, 0.19, white),
        dot(0.56, 0.24, 0.14, white),
    ]


def fish(pose: Pose) -> list[Part]:
    """Tail, fin, striped body and eye; ``form`` makes it deeper and bluer."""
    deep = 0.5 + 0.14 * pose.form

    def tail(x: Array, y: Array) -> Array:
        away = -0.3 - x
        return 0.8 * both(np.abs(y) - 0.9 * away, away - 0.42 - 0.35 * np.abs(y), 0.1)

    def fin(x: Array, y: Array) -> Array:
        return both(disc(x, y, 0.42, 0.05, deep - 0.12), -0.3 - x, 0.1)

    def body(x: Array, y: Array) -> Array:
        return oval(x - 0.2, y, 0.78, deep)

    def stripes(x: Array, y: Array) -> Array:
        return 0.12 * np.cos(9 * x + 1.5 * y * y) * np.clip(2.2 - 4 * x, 0, 1)

    flesh = pose.ramp("0f5a78 22b8c0 c4f8dc", "1c3f9c 2f8fe8 b4ecff", pose.form)
    fins = pose.ramp("a83010 ff8a2a ffe08a", "b02a20 ff6a3a ffc08a", pose.form)
    return [
        Part(tail, fins, 0.25, 0.2),
        Part(fin, fins, 0.25, 0.2),
        Part(body, flesh, 0.55, 0.5, stripes),
        dot(0.58, 0.12, 0.14, pose.plain("e0e0e8 ffffff ffffff")),
        dot(0.61, 0.12, 0.075, pose.plain("101020 202034 30304a")),
    ]


FIGURES: dict[str, Callable[[Pose], list[Part]]] = {
    figure.__name__: figure for figure in (ball, cube, icecream, donut, star, heart, leaf, moon, mushroom, fish)
}
