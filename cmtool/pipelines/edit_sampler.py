"""From the options of an edit to its sampler, and running that on tiles and variants.

Rows are computed in chunks of one size, so that no image depends on those beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.deterministic import worker_pool
from cmtool.core.editing.constrained import NOT_CONSTRAINED, edit
from cmtool.core.editing.operators import Operator
from cmtool.core.editing.tiles import Corner, TiledNoise, cut_tiles, join_tiles
from cmtool.core.named_processes import process_of
from cmtool.core.named_schedules import default_schedule, sigma_schedule
from cmtool.core.pixels import check_outputs
from cmtool.core.sampling.loops import last
from cmtool.core.sampling.predictor_corrector import ReverseSDESampler
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler, SamplerFactory
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.errors import Diverged, Hint, Run, Setting, UsageError
from cmtool.files.header import Header
from cmtool.files.model_format import LoadedModel
from cmtool.options import registry
from cmtool.options.types import Spec
from cmtool.pipelines.batching import chunk_size, num_threads
from cmtool.pipelines.canvas import Canvas
from cmtool.pipelines.sampler_setup import build_solver, check_sigmas, ode_steps, refuse_two
from cmtool.settings import EditOptions

__all__ = ["Row", "edit_rows", "edit_sampler", "join_canvas", "make_operator", "multistep_sigmas"]

SAMPLER = "predictor-corrector"  # of a score model where none is asked for


def edit_sampler(
    operator: Operator, header: Header, options: EditOptions
) -> MultistepSampler | ODESampler | ReverseSDESampler:
    """Multistep sampling of a consistency model; of a score model, the sampler asked for, which keeps what is known.

    UsageError for noise levels the model never saw, and for several variants of what has but one answer.
    """
    check_sigmas(header, options.steps if options.sigmas else None, options.sigmas)
    sampler = (_score_sampler if header.kind == "score" else _multistep_sampler)(operator, header, options)
    check_sigmas(header, None, [sigma for sigma in sampler.sigmas.tolist() if sigma])
    if options.variants > 1 and operator.noisy and (sampler.nfe == 1 or isinstance(sampler, ODESampler)):
        hint = Hint("leave out {}", Setting("variants"))
        if header.kind != "score":
            hint = Hint("{}, or add {}", hint, Setting("steps", 2))
        raise UsageError(f"{options.operator.name} adds no noise here, so that all variants would be the same", hint)
    return sampler


def _multistep_sampler(operator: Operator, header: Header, options: EditOptions) -> MultistepSampler:
    if options.solver or options.sampler:
        given = Setting("solver" if options.solver else "sampler")
        raise UsageError(
            Hint("{} is for score models, and this is a consistency model", given),
            Hint("leave it out: {}", Run("edit", options.operator.name, steps=options.steps or 2)),
        )
    sigmas = multistep_sigmas(operator, header, options.steps, options.sigmas)
    return MultistepSampler(sigmas, header.preconditioning["sigma_min"], clip=True)


def multistep_sigmas(
    operator: Operator, header: Header, steps: int | None = None, sigmas: Sequence[float] | None = None
) -> Tensor:
    """Given noise levels, else ``steps`` of the Karras schedule from where the task starts to where it ends well."""
    if sigmas:
        return torch.tensor(list(sigmas), dtype=torch.float64)
    first = _first(operator, header)
    return karras(steps or operator.steps, max(min(operator.floor, first / 2), header.sigma_min), first)


def _first(operator: Operator, header: Header) -> float:
    """The noise level that the task asks for, but no higher than the model knows where the task may choose."""
    if operator.level is None:
        return header.sigma_max
    return min(operator.level, header.sigma_max) if operator.keeps else operator.level


def _score_sampler(operator: Operator, header: Header, options: EditOptions) -> ODESampler | ReverseSDESampler:
    refuse_two(options.solver, options.sampler)
    first = _first(operator, header)
    asked = options.solver or options.sampler or options.steps or options.sigmas
    if operator.noisy and not asked:  # the mean of all clean images
        return ODESampler(append_zero(torch.tensor([first], dtype=torch.float64)), build_solver(Spec(name="euler")))
    process = process_of(Preconditioning(**header.preconditioning), header.sigma_min, header.sigma_max)

    def choose_sigmas(schedule: str, n: int) -> Tensor:
        if options.sigmas:
            return torch.tensor(options.sigmas, dtype=torch.float64)
        return sigma_schedule(schedule, n, header.sigma_min, first, process)

    if options.solver:
        solver = build_solver(options.solver)
        return ODESampler(append_zero(choose_sigmas("karras", ode_steps(solver, options.steps))), solver)
    factory: SamplerFactory = registry.build("samplers", {"name": SAMPLER, **(options.sampler or {})})
    sigmas = choose_sigmas(default_schedule(process), (options.steps or factory.default_steps) + 1)
    sampler = factory.build_sampler(process, process.time(sigmas))
    if not isinstance(sampler, ReverseSDESampler):
        others = Setting("sampler", "predictor-corrector"), Setting("solver", "heun")
        raise UsageError(NOT_CONSTRAINED[0], Hint("try {} or {}", *others))
    return sampler


@dataclass(frozen=True)
class Row:
    """One tile of a canvas, to be edited with one seed."""

    canvas: Canvas
    place: Corner
    seed: int
    label: int | None


def make_operator(
    spec: Spec, canvases: Sequence[Canvas], corners: Sequence[Corner], model: LoadedModel[Denoiser]
) -> Operator:
    """The task on tiles of canvases that give it the same options, one tile of each."""
    device, (_, *tile) = model.device, model.header.shape
    windows = list(zip(canvases, corners, strict=True))

    def batch(images: Sequence[Tensor]) -> Tensor:
        cuts = [cut_tiles(image, [corner], tile) for image, (_, corner) in zip(images, windows, strict=True)]
        return torch.cat(cuts).to(device)

    given = dict(canvases[0].given)
    if canvases[0].mask is not None:
        given["mask"] = batch([canvas.mask for canvas in canvases if canvas.mask is not None])
    return registry.build("operators", spec, batch([canvas.image for canvas in canvases]), **given)


def edit_rows(model: LoadedModel[Denoiser], options: EditOptions, rows: Sequence[Row]) -> Tensor:
    """The results, float32 [R, C, h, w] on the CPU; row i is a function of rows[i] alone, bit for bit."""
    device, shape = model.device, model.header.shape
    most = 8 if device.type == "cpu" else 256  # one picture alone should not wait for a full chunk
    size = max(1, min(chunk_size(shape, device) // 2, most))
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(tuple(row.canvas.given.items()), []).append(i)
    chunks = [some[k : k + size] for some in alike.values() for k in range(0, len(some), size)]
    filled = [[rows[i] for i in some + some[-1:] * (size - len(some))] for some in chunks]
    out = torch.empty(len(rows), *shape)
    with worker_pool(num_threads(device)) as work:
        for some, images in zip(chunks, work(_edit_chunk, repeat(model), repeat(options), filled), strict=True):
            out[some] = images[: len(some)].float().cpu()
    if not out.isfinite().all():
        raise Diverged("the model gives numbers that are not finite", "its weights are damaged, or made so by training")
    return out


def _edit_chunk(model: LoadedModel[Denoiser], options: EditOptions, rows: Sequence[Row]) -> Tensor:
    device = model.device
    corners = [row.place for row in rows]
    operator = make_operator(options.operator, [row.canvas for row in rows], corners, model)
    noise = TiledNoise([row.seed for row in rows], [row.canvas.size for row in rows], corners)
    labels = None if rows[0].label is None else torch.tensor([row.label for row in rows], device=device)
    return last(
        edit(edit_sampler(operator, model.header, options), operator, check_outputs(model.model), noise, labels)
    )


def join_canvas(canvas: Canvas, tiles: Tensor, pixels: Callable[[Tensor], Tensor]) -> Tensor:
    """The result on a canvas from those of its tiles [T, C, h, w]: uint8 [C, H, W], with what only fills the canvas."""
    return pixels(join_tiles(tiles, canvas.tiles, canvas.size, canvas.step)[None])[0]
