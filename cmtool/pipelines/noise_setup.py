"""Whose random numbers images are made of: ours, or those of EDM's or OpenAI's program, to draw published images again.

Ours and EDM's belong to images, so that no image depends on its batch. OpenAI's program goes through its images in
batches and draws the noise of each from the same generators, so that the images depend on how many there were and on
the batch; its run is repeated from its beginning, but the network sees no batch whose images are not asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch

from cmtool.core.denoiser import Denoiser
from cmtool.core.pixels import truncate_to_pixels
from cmtool.core.published_noise import OrderedNoise, PerSampleNoise, SharedNoise, ode_draw, step_draw
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler, Sampler
from cmtool.errors import Hint, Setting, UsageError
from cmtool.files.model_format import LoadedModel
from cmtool.options.types import Seeds
from cmtool.pipelines.sampling_pipeline import SampleBatch, SamplingPipeline, draw
from cmtool.settings import SampleOptions

__all__ = ["OpenAIRun", "edm_class", "edm_noise", "openai_run", "seeds_of", "with_noise"]

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
            Hint("{} draws a whole run from one seed, and {} names single images", _flag(options), Setting("seeds")),
            Hint("give the {} and the {} of their run", Setting("n"), Setting("seed")),
        )
    return Seeds([range(options.n)])


def with_noise(pipeline: SamplingPipeline, options: SampleOptions) -> SamplingPipeline:
    """The pipeline with the noise asked for. UsageError where the program in question never sampled so."""
    if _is_openai(options):
        return replace(pipeline, run=openai_run(pipeline, options))
    if options.noise == "edm":
        device = pipeline.model.device
        if device.type == "mps":
            hint = Hint("add {}", Setting("device", "cpu"))
            raise UsageError("EDM samples in double precision, which mps does not have", hint)
        place, classes = _place(pipeline.sampler.sampler, options), pipeline.model.header.num_classes
        return replace(pipeline, make_noise=lambda seeds: edm_noise(seeds, place, classes, device))
    return pipeline


def edm_noise(
    seeds: Sequence[int], place: Callable[[int], int], classes: int = 0, device: str | torch.device = "cpu"
) -> OrderedNoise:
    """The noise of EDM's ``generate.py``: a generator for each image, and double precision after the start."""
    generators = PerSampleNoise(seeds, torch.float64, device)
    return OrderedNoise(generators, place, classes, torch.float64)


def edm_class(loaded: LoadedModel[Denoiser], options: SampleOptions) -> Callable[[int], int] | None:
    """The class that EDM's program draws for a seed, after its start; None where it is given, or there are none."""
    header, device = loaded.header, loaded.device
    if options.noise != "edm" or not header.num_classes or options.klass is not None or options.classes is not None:
        return None

    def draw_class(seed: int) -> int:
        generator = PerSampleNoise([seed], device=device)
        generator.normal(header.shape)
        return int(generator.integers(header.num_classes))

    return draw_class


def openai_run(pipeline: SamplingPipeline, options: SampleOptions) -> "OpenAIRun":
    """The run of OpenAI's program that the options describe. UsageError where they cannot."""
    batch, sampler = options.batch, pipeline.sampler.sampler
    if isinstance(batch, str):
        raise UsageError(
            Hint(
                "the images of OpenAI's program depend on its batch, so {} needs {}", Setting("noise"), Setting("batch")
            ),
            Hint("say how many it drew at a time: {}", Setting("batch", 16)),
        )
    if batch > options.n:
        raise UsageError(
            f"OpenAI's program drew {options.n} images in batches of that many or fewer, not of {batch}",
            Hint("say {}, or the {} of their run", Setting("batch", options.n), Setting("n")),
        )
    place, steps = _place(sampler, options), len(sampler.sigmas)
    if isinstance(sampler, ODESampler):
        default = "heun" if sampler.solver.order == 2 else "euler"  # the few steps of a distilled score model
        name = options.solver.name if options.solver and options.solver.name else default
        if name not in OPENAI_SOLVERS:
            hint = f"there are: {', '.join(OPENAI_SOLVERS)}"
            raise UsageError(f"OpenAI's program has no solver {name} that draws as ours does", hint)
        draws = 1 + (steps - 1) * OPENAI_SOLVERS[name]
    else:  # a single step is OpenAI's sampler onestep, which draws nothing after the start
        draws = 1 if steps == 1 and not options.ts else 1 + steps
    individual = options.noise == "openai-indiv"
    return OpenAIRun(options.n, batch, options.seed, draws, place, individual, pipeline.model.device)


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

    def __call__(self, pipeline: SamplingPipeline, numbers: Sequence[int]) -> Iterator[SampleBatch]:
        """The images with these numbers, which ascend, a batch of the program's at a time."""
        noise, setup = self.noise(), pipeline.sampler
        for number, group in groupby(numbers, lambda i: i // self.batch):
            wanted, start = list(group), number * self.batch
            noise.first = number * self.draws
            labels = pipeline.labels(range(start, start + self.batch))
            spent = setup.nfe_used
            made = draw(pipeline.model, setup, noise, labels, pixels=truncate_to_pixels)
            setup.nfe_used = spent + (setup.nfe_used - spent) // self.batch * len(wanted)
            rows = torch.tensor([i - start for i in wanted])
            yield SampleBatch(wanted, made[rows], None if labels is None else labels[rows])


def _is_openai(options: SampleOptions) -> bool:
    return options.noise.startswith("openai")


def _flag(options: SampleOptions) -> Setting:
    return Setting("noise", options.noise)


def _place(sampler: Sampler, options: SampleOptions) -> Callable[[int], int]:
    """The order in which the programs draw."""
    if isinstance(sampler, ODESampler):
        return ode_draw
    if isinstance(sampler, MultistepSampler):
        return step_draw
    raise UsageError(
        Hint("{} is for ODE solvers and consistency models: nothing else was published with it", _flag(options)),
        "leave it out",
    )
