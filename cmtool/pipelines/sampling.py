"""Images of a model: the one pipeline behind ``cmtool.sample`` and the commands that draw images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.core.deterministic import in_fixed_batches
from cmtool.core.guidance import Guided, cost
from cmtool.core.noise import Noise, SlerpNoise
from cmtool.core.pixels import check_finite, to_pixels
from cmtool.core.sampling.loops import CountNFE, last
from cmtool.files.model_format import LoadedModel
from cmtool.options.call import options_of_call
from cmtool.options.types import Seeds
from cmtool.pipelines.batching import MemoryPlan, attempt, chunk_size, num_threads
from cmtool.pipelines.classes import Classes, class_rule, labels_of
from cmtool.pipelines.guidance import apply_guidance, nfe
from cmtool.pipelines.inputs import open_model
from cmtool.pipelines.reporter import Reporter, Silence
from cmtool.pipelines.sampler_setup import SamplerSetup, set_up_sampler
from cmtool.settings import SampleOptions
from cmtool.settings.sampling import WalkOptions
from cmtool.training.devices import choose_device

__all__ = ["SampleBatch", "SamplingPipeline", "draw", "sample"]

Pixels = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SampleBatch:
    """Images that were drawn together: their seeds, uint8 [B, C, H, W] on the CPU, and labels int64 [B] or None.

    Points stay float32 [B, D].
    """

    seeds: list[int]
    images: Tensor
    labels: Tensor | None


@dataclass
class SamplingPipeline:
    """A model with all that its images depend on besides their seeds, called with seeds.

    ``classes`` is the class of each seed (see ``labels_of``), ``batch`` a number of images at a time or ``auto``, and
    ``pixels`` rounds images to uint8. No pixel depends on ``batch``.
    """

    model: LoadedModel[Denoiser | Guided]
    sampler: SamplerSetup
    classes: Classes = None
    batch: int | str = "auto"
    pixels: Pixels = to_pixels

    @classmethod
    def of(
        cls, loaded: LoadedModel[Denoiser], options: WalkOptions, reporter: Reporter, classes: Classes = None
    ) -> "SamplingPipeline":
        """The pipeline that the options ask for; UsageError for options that do not go with the model."""
        model = apply_guidance(loaded, options, reporter.warn)
        return cls(model, set_up_sampler(loaded.header, options), classes, options.batch)

    @property
    def nfe(self) -> int | None:
        """Network evaluations (NFE) of each image; None where the solver decides as it goes."""
        return nfe(self.sampler, self.model.model)

    @property
    def batch_size(self) -> int:
        """Images made at once, as long as memory lasts."""
        return MemoryPlan.of(self.model.header.shape, self.model.device, self.batch).images

    def labels(self, seeds: Sequence[int]) -> Tensor | None:
        """The class of each seed, int64 [N], or None of a model without classes."""
        return labels_of(seeds, self.model.header.num_classes, self.classes)

    def __call__(self, seeds: Sequence[int]) -> Iterator[SampleBatch]:
        """The images of seeds in their order, ``batch`` or a few more at a time; each depends on its own seed alone.

        ``auto`` begins with 64 and halves it whenever memory runs out, down to the piece that the network always sees.
        OutOfMemory when not even that fits, Diverged when a number is not finite.
        """
        done, room = 0, MemoryPlan.of(self.model.header.shape, self.model.device, self.batch)
        while done < len(seeds):
            some = list(seeds[done : done + room.images])
            labels = self.labels(some)
            make = partial(draw, self.model, self.sampler, Noise(some), labels, room.cores, self.pixels)
            images = attempt(make, self.batch)
            if images is None:
                room = room.halved()
                continue
            yield SampleBatch(some, images, labels)
            done += len(some)


def draw(
    loaded: LoadedModel[Denoiser | Guided],
    setup: SamplerSetup,
    noise: Noise | SlerpNoise,
    labels: Tensor | None,
    cores: int | None = None,
    pixels: Pixels = to_pixels,
) -> Tensor:
    """The images of some noise, uint8 [B, C, H, W] on the CPU as ``pixels`` rounds them; points stay float32 [B, D].

    Diverged when one is not finite, be it on the way.
    ``cores`` of the processor work side by side, as many as torch uses when it is None; no bit depends on it.
    """
    model, device, shape = loaded.model, loaded.device, loaded.header.shape
    x = setup.sampler.begin(noise, shape).to(device)
    labels = None if labels is None else labels.to(device)
    with in_fixed_batches(model, chunk_size(shape, device), num_threads(device, cores)) as steadied:
        counted = CountNFE(steadied, cost(model))
        x = check_finite(last(setup.sampler(counted, x, noise, labels)).cpu(), "at the end of sampling")
    setup.nfe_used += counted.calls * len(noise)
    return pixels(x) if x.ndim == 4 else x.float()


def sample(
    model: LoadedModel[Denoiser] | str | Path | None = None,
    *,
    n: int | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | str | None = None,
    steps: int | None = None,
    sigmas: Sequence[float] | None = None,
    ts: Sequence[int] | None = None,
    class_: int | str | None = None,
    classes: str | Path | None = None,
    solver: str | Mapping[str, Any] | None = None,
    schedule: str | Mapping[str, Any] | None = None,
    process: str | Mapping[str, Any] | None = None,
    convention: str | None = None,
    gamma: float | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_model: str | Path | None = None,
    batch: int | str | None = None,
    device: str | None = None,
) -> Iterator[SampleBatch]:
    """Images of a model, some at a time, each a function of its own seed alone: those of ``cmtool sample``.

        for batch in cmtool.sample("student.safetensors", n=64, steps=2):
            batch.seeds, batch.images, batch.labels

    ``model`` is what ``cmtool.load`` gave, a file, a run directory or the name of a bundled model; None is the newest
    run, else the bundled one. Every other argument is the option of that name of ``cmtool sample``, with its default;
    a solver with options is ``{"name": "heun", "churn": 8}``. What is wrong is raised at once, and not at the first
    batch: UsageError for arguments that do not go with the model, MissingInput and BadFile as of ``cmtool.load``;
    while images are drawn Diverged and OutOfMemory.
    """
    arguments = dict(locals())  # every keyword, called like its option
    arguments.pop("model")
    options = options_of_call(SampleOptions, arguments)
    reporter = Silence()
    loaded = model if isinstance(model, LoadedModel) else open_any_model(model, options, reporter)
    rule = class_rule(loaded.header, options.klass, options.classes)
    drawn = SamplingPipeline.of(loaded, options, reporter, rule)
    return drawn(options.seeds or Seeds([range(options.seed, options.seed + options.n)]))


def open_any_model(model: str | Path | None, options: SampleOptions, reporter: Reporter) -> LoadedModel[Denoiser]:
    """The model that a path or None means, on the device that was asked for."""
    return open_model(Path(model) if model is not None else None, choose_device(options.device), reporter)
