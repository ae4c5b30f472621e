"""Whose random numbers images are made of: ours, or those of EDM's or OpenAI's program, to draw published images again.

Ours and EDM's belong to images, so that no image depends on its batch. OpenAI's program goes through its images in
batches and draws the noise of each from the same generators, so that the images depend on how many there were and on
the batch; its run is repeated here from its beginning, but the network sees no batch whose images are not asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import Guided
from cmtool.core.pixels import truncate_to_pixels
from cmtool.core.published_noise import OrderedNoise, PerSampleNoise, SharedNoise, ode_draw, step_draw
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler, Sampler
from cmtool.errors import UsageError
from cmtool.files.model_format import LoadedModel
from cmtool.options.types import Seeds
from cmtool.pipelines.sampler_setup import SamplerSetup
from cmtool.pipelines.sampling import Classes, draw, in_batches, labels_of
from cmtool.settings import SampleOptions

__all__ = ["Drawn", "OpenAIRun", "edm_class", "edm_noise", "image_source", "openai_run", "seeds_of"]

Batch = tuple[list[int], Tensor, Tensor | None]  # seeds, images, labels
Drawn = Callable[[Sequence[int]], Iterator[Batch]]

# Of OpenAI's samplers: whether it draws once a step, by our name of the solver.
OPENAI_SOLVERS = {"heun": True, "ancestral": True, "euler": False}


def seeds_of(options: SampleOptions) -> Seeds:
    """The images asked for; those of OpenAI's program have numbers from 0 on, and one seed for all.

    UsageError for single seeds of theirs.
    """
    if not _is_openai(options):
        return options.seeds or Seeds([range(options.seed, options.seed + options.n)])
    if options.seeds:
        raise UsageError(
            f"--noise {options.noise} draws a whole run from one seed, and --seeds names single images",
            "give the -n and the --seed of their run",
        )
    return Seeds([range(options.n)])


def image_source(
    loaded: LoadedModel[Denoiser | Guided], plan: SamplerSetup, options: SampleOptions, rule: Classes
) -> Drawn:
    """What makes the images of some seeds. UsageError where the program in question never sampled so."""
    if _is_openai(options):
        return openai_run(loaded, plan, options).source(loaded, plan, rule)
    source = partial(in_batches, loaded, plan, batch=options.batch, klass=rule)
    if options.noise == "edm":
        device = loaded.device
        if device.type == "mps":
            raise UsageError("EDM samples in double precision, which mps does not have", "add --device cpu")
        place, classes = _place(plan.sampler, options), loaded.header.num_classes
        return partial(source, make_noise=lambda seeds: edm_noise(seeds, place, classes, device))
    return source


def edm_noise(
    seeds: Sequence[int], place: Callable[[int], int], classes: int = 0, device: str | torch.device = "cpu"
) -> OrderedNoise:
    """The noise of EDM's ``generate.py``: a generator for each image, and double precision after the start."""
    generators = PerSampleNoise(seeds, torch.float64, device)
    return OrderedNoise(generators, place, classes, torch.float64)


def edm_class(loaded: LoadedModel[Denoiser | Guided], options: SampleOptions) -> Callable[[int], int] | None:
    """The class that EDM's program draws for a seed, after its start; None where it is given, or there are none."""
    header, device = loaded.header, loaded.device
    if options.noise != "edm" or not header.num_classes or options.klass is not None or options.classes is not None:
        return None

    def draw_class(seed: int) -> int:
        generator = PerSampleNoise([seed], device=device)
        generator.normal(header.shape)
        return int(generator.integers(header.num_classes))

    return draw_class


def openai_run(loaded: LoadedModel[Denoiser | Guided], plan: SamplerSetup, options: SampleOptions) -> "OpenAIRun":
    """The run of OpenAI's program that the options describe. UsageError where they cannot."""
    batch, sampler = options.batch, plan.sampler
    if isinstance(batch, str):
        raise UsageError(
            "the images of OpenAI's program depend on its batch, so --noise needs --batch",
            "say how many it drew at a time: --batch 16",
        )
    if batch > options.n:
        raise UsageError(
            f"OpenAI's program drew {options.n} images in batches of that many or fewer, not of {batch}",
            f"say --batch {options.n}, or the -n of their run",
        )
    place, steps = _place(sampler, options), len(sampler.sigmas)
    if isinstance(sampler, ODESampler):
        usual = "heun" if sampler.solver.order == 2 else "euler"  # the few steps of a distilled score model
        name = options.solver.name if options.solver and options.solver.name else usual
        if name not in OPENAI_SOLVERS:
            hint = f"there are: {', '.join(OPENAI_SOLVERS)}"
            raise UsageError(f"OpenAI's program has no solver {name} that draws as ours does", hint)
        draws = 1 + (steps - 1) * OPENAI_SOLVERS[name]
    else:  # a single step is the sampler onestep there, which draws nothing after the start
        draws = 1 if steps == 1 and not options.ts else 1 + steps
    individual = options.noise == "openai-indiv"
    return OpenAIRun(options.n, batch, options.seed, draws, place, individual, loaded.device)


@dataclass(frozen=True)
class OpenAIRun:
    """A run of ``image_sample.py`` on one process: ``total`` images, ``batch`` at a time, ``draws`` a batch.

    With ``individual`` it is that of ``--generator determ-indiv``, else of ``determ``. Source: the program.
    """

    total: int
    batch: int
    seed: int
    draws: int
    place: Callable[[int], int]
    individual: bool
    device: str | torch.device = "cpu"

    def noise(self) -> OrderedNoise:
        """That of all its batches: ``first`` is set to the batch number times ``draws``."""
        rows, kind = range(self.batch), PerSampleNoise.openai if self.individual else SharedNoise
        return OrderedNoise(kind(rows, self.total, self.seed, self.device), self.place)

    def source(self, loaded: LoadedModel[Denoiser | Guided], plan: SamplerSetup, rule: Classes) -> Drawn:
        """What makes images by their numbers, which ascend."""

        def images(numbers: Sequence[int]) -> Iterator[Batch]:
            noise = self.noise()
            for number, group in groupby(numbers, lambda i: i // self.batch):
                wanted, start = list(group), number * self.batch
                noise.first = number * self.draws
                labels = labels_of(range(start, start + self.batch), loaded.header.num_classes, rule)
                spent = plan.nfe_used
                made = draw(loaded, plan, noise, labels, pixels=truncate_to_pixels)
                plan.nfe_used = spent + (plan.nfe_used - spent) // self.batch * len(wanted)
                rows = torch.tensor([i - start for i in wanted])
                yield wanted, made[rows], None if labels is None else labels[rows]

        return images


def _is_openai(options: SampleOptions) -> bool:
    return options.noise.startswith("openai")


def _place(sampler: Sampler, options: SampleOptions) -> Callable[[int], int]:
    """The order in which the programs draw."""
    if isinstance(sampler, ODESampler):
        return ode_draw
    if isinstance(sampler, MultistepSampler):
        return step_draw
    raise UsageError(
        f"--noise {options.noise} is for ODE solvers and consistency models: nothing else was published with it",
        "leave it out",
    )
