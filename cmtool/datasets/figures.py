"""Ten figures as implicit functions: ``figure(pose) -> parts``, drawn from the back to the front.

Coordinates are the figure's own: y upwards, about [-1, 1] both ways. A field is below zero inside and grows by about
one per unit across the edge. Colours come from the class and the pose alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cmtool.datasets.render import Array, Field, Part

__all__ = ["FIGURES", "WALL", "Pose"]


@dataclass(frozen=True)
class Pose:
    """What varies inside a class, each [B, 1, 1] in [0, 1]: size and form can be seen, tint is the free remainder."""

    size: Array
    form: Array
    tint: Array

    def ramp(self, first: str, second: str, by: Array) -> Array:
        """Colours [B, 3, 3] between two ramps: ``by`` says where, and the free tint moves it a little."""
        low, high = _colours(first), _colours(second)
        return low + (high - low) * np.clip(by + 0.15 * (self.tint - 0.5), 0, 1)

    def plain(self, colours: str) -> Array:
        return self.ramp(colours, colours, self.tint)


def _colours(text: str) -> Array:
    """``"5b1a4a e0417a ffc09a"`` as [3, 3] in [0, 1]."""
    return np.array([list(bytes.fromhex(word)) for word in text.split()], np.float32) / 255


WALL = np.stack([_colours("c9a9c0 fde6cf"), _colours("86b4d6 e2f6f4")])


def disc(x: Array, y: Array, r: float | Array, cx: float = 0.0, cy: float = 0.0) -> Array:
    return np.hypot(x - cx, y - cy) - r


def oval(x: Array, y: Array, rx: float | Array, ry: float | Array, cx: float = 0.0, cy: float = 0.0) -> Array:
    """An ellipse scaled to the shorter radius."""
    return (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * np.minimum(rx, ry)


def capsule(x: Array, y: Array, ax: float, ay: float, bx: float, by: float, r: float) -> Array:
    """Distance to the segment from a to b, less r."""
    dx, dy = bx - ax, by - ay
    t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - ax - t * dx, y - ay - t * dy) - r


def both(a: Array, b: Array, soft: float) -> Array:
    """The intersection with its corners rounded: a maximum that is smooth where the two differ by less than soft."""
    h = np.maximum(soft - np.abs(a - b), 0)
    return np.maximum(a, b) + h * h * (0.25 / soft)


def either(a: Array, b: Array, soft: float) -> Array:
    return -both(-a, -b, soft)


def ball(pose: Pose) -> list[Part]:
    ramp = pose.ramp("6a1450 f0463c ffb36b", "3a1c86 b145d6 ff9ecb", pose.size)
    return [Part(lambda x, y: disc(x, y, 0.95), ramp, 0.95, 0.9)]


def cube(pose: Pose) -> list[Part]:
    yaw = np.float32(0.45) + 0.67 * pose.form
    c, s, tilt, lift = np.cos(yaw), np.sin(yaw), np.float32(0.5), np.float32(0.8660254)
    # Face normals of the right, left and upper face, turned by the yaw and seen from 30 degrees above.
    faces = ((s, -tilt * c, lift * c), (-c, -tilt * s, lift * s), (0 * c, lift + 0 * c, tilt + 0 * c))
    half = 0.66

    def field(x: Array, y: Array) -> Array:
        slabs = []
        for k, (ex, ey, _) in enumerate(faces):
            length = np.hypot(ex, ey)
            reach = sum(abs(fx * ey - fy * ex) for j, (fx, fy, _) in enumerate(faces) if j != k)
            slabs.append((np.abs(x * ey - y * ex) - half * reach) / length)
        return both(both(slabs[0], slabs[1], 0.12), slabs[2], 0.12)

    def normal(x: Array, y: Array) -> tuple[Array, Array, Array]:
        heights = [(half - nx * x - ny * y) / nz for nx, ny, nz in faces]
        lowest = np.minimum(np.minimum(heights[0], heights[1]), heights[2])
        weights = [np.maximum(1 - (h - lowest) / 0.14, 0) for h in heights]
        total = weights[0] + weights[1] + weights[2]
        nx, ny, nz = (sum(w * n[k] for w, n in zip(weights, faces, strict=True)) / total for k in range(3))
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        return nx / length, ny / length, nz / length

    ramp = pose.ramp("14305e 1f86c8 a5ecec", "123f5c 16a39a c9f7b8", pose.form)
    return [Part(field, ramp, gloss=0.15, normal=normal)]


def icecream(pose: Pose) -> list[Part]:
    round_ = 0.54 + 0.1 * pose.form

    def cone(x: Array, y: Array) -> Array:
        sides = 0.88 * np.abs(x) - 0.475 * (y + 1.12)
        return both(sides, y - 0.05, 0.12)

    def waffle(x: Array, y: Array) -> Array:
        return 0.07 * (np.cos(14 * (x + 0.55 * y)) + np.cos(14 * (x - 0.55 * y)))

    def scoop(x: Array, y: Array) -> Array:
        return either(disc(x, y, round_, 0, 0.38), capsule(x, y, -0.5, 0.06, 0.5, 0.06, 0.13), 0.15)

    cream = pose.ramp("c4446e ff8fb4 fff0ea", "b88a3c ffe49a fffbe6", pose.form)
    return [
        Part(cone, pose.plain("7a3a14 d98a3a ffd58a"), 0.45, 0.1, waffle),
        Part(scoop, cream, 0.56, 0.4),
        Part(lambda x, y: disc(x, y - 0.45 - round_, 0.19, 0.08), pose.plain("6a0a2a e02a3c ff8a7a"), 0.19, 0.8),
    ]


def donut(pose: Pose) -> list[Part]:
    tube = 0.3 + 0.1 * pose.form
    middle = 0.98 - tube

    def ring(x: Array, y: Array) -> Array:
        return np.abs(np.hypot(x, y) - middle) - tube

    def icing(x: Array, y: Array) -> Array:
        return np.abs(np.hypot(x, y) - middle) - tube + 0.08 - 0.035 * np.cos(7 * np.arctan2(y, x))

    def sprinkle(turn: float, colour: str) -> Part:
        return Part(
            lambda x, y: np.hypot(x - middle * np.cos(turn), y - middle * np.sin(turn)) - 0.075,
            pose.plain(colour),
            gloss=0,
            shadow=False,
        )

    colours = ("fff0b0 fff6d0 fffbe6", "7ae0f0 9aecf6 c0f6ff")
    sprinkles = [sprinkle(0.4 + 0.7854 * k, colours[k % 2]) for k in range(8)]
    top = pose.ramp("8a1e5c f25a9c ffc4d4", "4a1a10 9a5230 e0ac78", pose.form)
    return [Part(ring, pose.plain("8a4a1c dca050 ffe0a0"), 0.34, 0.1), Part(icing, top, 0.3, 0.6), *sprinkles]


def _dot(cx: float, cy: float, r: float) -> Field:
    return lambda x, y: disc(x, y, r, cx, cy)


def star(pose: Pose) -> list[Part]:
    tenth, notch = np.float32(np.pi / 5), 0.46 + 0.1 * pose.form
    sin, cos = np.sin(tenth), np.cos(tenth)

    def field(x: Array, y: Array) -> Array:
        for _ in range(2):  # mirrors fold the plane into the tenth between a tip and a notch
            x = np.abs(x)
            beyond = 2 * np.maximum(x * cos - y * sin, 0)
            x, y = x - beyond * cos, y + beyond * sin
        x = np.abs(x)
        run, drop = notch * sin, 1 - notch * cos
        return (x * drop + (y - 1) * run) / np.hypot(run, drop)

    return [Part(field, pose.ramp("c2500e ffc21e fff7a8", "b8320e ff9a1e ffe58a", pose.form), 0.42, 0.35)]


def heart(pose: Pose) -> list[Part]:
    def field(x: Array, y: Array) -> Array:
        x = np.sqrt(x * x + 0.004)
        return 0.75 * (np.hypot(x * 1.02, 1.12 * y + 0.2 - 0.78 * np.sqrt(x)) - 0.98)

    return [Part(field, pose.ramp("5e0a2c e0203c ff8f80", "720a3c f0386e ffa8b0", pose.size), 0.6, 0.8)]


def leaf(pose: Pose) -> list[Part]:
    bow = 0.5 + 0.35 * pose.form
    radius = np.sqrt(bow * bow + 1)

    def blade(x: Array, y: Array) -> Array:
        return np.hypot(np.abs(x) + bow, y - 0.08) - radius + 0.0

    def veins(x: Array, y: Array) -> Array:
        side = np.abs(x)
        ribs = np.cos(17 * (y - 0.75 * side))
        return 0.07 * ribs - 0.3 * np.maximum(1 - side / 0.07, 0)

    green = pose.ramp("0e4a3a 2fa04a c6ec6a", "2a5a10 86b81e f4f08a", pose.form)
    return [
        Part(lambda x, y: capsule(x, y, 0, -1.2, 0, -0.5, 0.07), pose.plain("3a3a10 7a8a2a c0c860"), 0.07, 0),
        Part(blade, green, 0.5, 0.25, veins),
    ]


def moon(pose: Pose) -> list[Part]:
    shift = 0.42 + 0.16 * pose.form

    def field(x: Array, y: Array) -> Array:
        return both(disc(x, y, 0.98, 0, 0), 0.74 - np.hypot(x - shift, y - 0.1), 0.06)

    def ends(x: Array, y: Array) -> Array:
        return -0.16 * np.maximum(x + 0.3, 0)

    return [Part(field, pose.ramp("8a5a1e f4cc3c fff8c8", "7a6a3a ead86a fffbe0", pose.form), 0.34, 0.3, ends)]


def mushroom(pose: Pose) -> list[Part]:
    def stem(x: Array, y: Array) -> Array:
        width = 0.24 + 0.16 * np.maximum(-0.1 - y, 0) ** 2 * 1.5
        return both(np.abs(x) - width, np.abs(y + 0.45) - 0.5, 0.25)

    def cap(x: Array, y: Array) -> Array:
        dome = oval(x, y, 0.98, 0.92, 0, -0.02)
        return both(dome, -0.06 - y - 0.12 * x * x + 0.1, 0.22)

    red = pose.ramp("6a0f1e e0342a ff9a6a", "7a2a0a e8701e ffc46a", pose.form)
    white = pose.plain("c8a8a0 fff0e0 ffffff")
    spots = [(-0.42, 0.32, 0.16), (0.16, 0.58, 0.19), (0.55, 0.2, 0.13), (-0.06, 0.18, 0.1)]
    return [
        Part(stem, pose.plain("9a7a60 ecd6b4 fffaec"), 0.3, 0.05),
        Part(cap, red, 0.6, 0.5),
        *(Part(_dot(*spot), white, gloss=0, shadow=False) for spot in spots),
    ]


def fish(pose: Pose) -> list[Part]:
    deep = 0.52 + 0.12 * pose.form

    def body(x: Array, y: Array) -> Array:
        return oval(x, y, 0.78, deep, 0.22, 0)

    def tail(x: Array, y: Array) -> Array:
        away = -0.35 - x
        return both(np.abs(y) - 0.85 * away - 0.02, away - 0.62 + 0.35 * (0.6 - np.abs(y)), 0.1) * 0.8

    def fin(x: Array, y: Array) -> Array:
        return both(disc(x, y, 0.42, 0.05, deep - 0.12), -0.35 - x + 0.0, 0.1)

    def stripes(x: Array, y: Array) -> Array:
        return 0.12 * np.cos(9 * x + 1.5 * y * y) * np.clip(2.2 - 4 * x, 0, 1)

    flesh = pose.ramp("0f5a78 22b8c0 c4f8dc", "1c3f9c 2f8fe8 b4ecff", pose.form)
    fins = pose.ramp("a83010 ff8a2a ffe08a", "b02a20 ff6a3a ffc08a", pose.form)
    return [
        Part(tail, fins, 0.25, 0.2),
        Part(fin, fins, 0.25, 0.2),
        Part(body, flesh, 0.55, 0.5, stripes),
        Part(_dot(0.6, 0.12, 0.14), pose.plain("e0e0e8 ffffff ffffff"), gloss=0, shadow=False),
        Part(_dot(0.63, 0.12, 0.075), pose.plain("101020 202034 30304a"), gloss=0.3, shadow=False),
    ]


FIGURES: dict[str, Callable[[Pose], list[Part]]] = {
    figure.__name__: figure for figure in (ball, cube, icecream, donut, star, heart, leaf, moon, mushroom, fish)
}
