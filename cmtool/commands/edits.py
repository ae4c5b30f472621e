"""Edited rows: every tile of every variant, in pieces of one size, so that none depends on those beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from cmtool import registry
from cmtool.commands.canvas import Canvas
from cmtool.commands.edit_walk import edit_walk
from cmtool.commands.generate import piece, threads
from cmtool.core.denoiser import Denoiser
from cmtool.core.editing import edit
from cmtool.core.finite import finite
from cmtool.core.operators import Operator
from cmtool.core.samplers import last
from cmtool.core.tiles import Place, TiledNoise, cut, joined
from cmtool.core.workers import workers
from cmtool.errors import Diverged
from cmtool.settings import EditOptions
from cmtool.values import Spec

__all__ = ["Row", "edited", "operator_of", "whole"]


@dataclass(frozen=True)
class Row:
    """One tile of a canvas, to be edited with one seed."""

    canvas: Canvas
    place: Place
    seed: int
    label: int | None


def operator_of(spec: Spec, canvases: Sequence[Canvas], corners: Sequence[Place], model: Denoiser) -> Operator:
    """The task on tiles of canvases that give it the same options, one tile of each."""
    device, (_, *tile) = next(model.parameters()).device, model.header.shape
    windows = list(zip(canvases, corners, strict=True))

    def batch(images: Sequence[Tensor]) -> Tensor:
        cuts = [cut(image, [corner], tile) for image, (_, corner) in zip(images, windows, strict=True)]
        return torch.cat(cuts).to(device)

    given = dict(canvases[0].given)
    if canvases[0].mask is not None:
        given["mask"] = batch([canvas.mask for canvas in canvases if canvas.mask is not None])
    return registry.build("operators", spec, batch([canvas.image for canvas in canvases]), **given)


def edited(model: Denoiser, options: EditOptions, rows: Sequence[Row]) -> Tensor:
    """The results, float32 [R, C, h, w] on the CPU; row i is a function of rows[i] alone, bit for bit."""
    device, shape = next(model.parameters()).device, model.header.shape
    most = 8 if device.type == "cpu" else 256  # one picture alone should not wait for a full piece
    size = max(1, min(piece(shape, device) // 2, most))
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(tuple(row.canvas.given.items()), []).append(i)
    pieces = [some[k : k + size] for some in alike.values() for k in range(0, len(some), size)]
    filled = [[rows[i] for i in some + some[-1:] * (size - len(some))] for some in pieces]
    out = torch.empty(len(rows), *shape)
    with workers(threads(device)) as work:
        for some, images in zip(pieces, work(_piece, repeat(model), repeat(options), filled), strict=True):
            out[some] = images[: len(some)].float().cpu()
    if not out.isfinite().all():
        raise Diverged("the model gives numbers that are not finite", "its weights are damaged, or made so by training")
    return out


def _piece(model: Denoiser, options: EditOptions, rows: Sequence[Row]) -> Tensor:
    device = next(model.parameters()).device
    corners = [row.place for row in rows]
    operator = operator_of(options.operator, [row.canvas for row in rows], corners, model)
    noise = TiledNoise([row.seed for row in rows], [row.canvas.size for row in rows], corners)
    labels = None if rows[0].label is None else torch.tensor([row.label for row in rows], device=device)
    return last(edit(edit_walk(operator, model.header, options), operator, finite(model), noise, labels))


def whole(canvas: Canvas, tiles: Tensor, pixels: Callable[[Tensor], Tensor]) -> Tensor:
    """The result on a canvas from those of its tiles [T, C, h, w]: uint8 [C, H, W], with what only fills the canvas."""
    return pixels(joined(tiles, canvas.tiles, canvas.size, canvas.step)[None])[0]
