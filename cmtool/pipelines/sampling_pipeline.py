"""From seeds to the images of a model: the one pipeline of all commands and functions that draw images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.core.deterministic import in_fixed_batches
from cmtool.core.guidance import Guided, cost
from cmtool.core.noise import Noise, NoiseSource
from cmtool.core.pixels import check_finite, to_pixels
from cmtool.core.sampling.loops import CountNFE, last
from cmtool.files.model_format import LoadedModel
from cmtool.pipelines.batching import MemoryPlan, attempt, chunk_size, num_threads
from cmtool.pipelines.classes import Classes, labels_of
from cmtool.pipelines.guidance import apply_guidance, nfe
from cmtool.pipelines.reporter import Reporter
from cmtool.pipelines.sampler_setup import SamplerSetup, set_up_sampler
from cmtool.settings.sampling import GenerationOptions

__all__ = ["SampleBatch", "SamplingPipeline", "draw"]

Pixels = Callable[[Tensor], Tensor]
Run: TypeAlias = Callable[["SamplingPipeline", Sequence[int]], Iterator["SampleBatch"]]


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
    ``pixels`` rounds images to uint8. No pixel depends on ``batch``. ``make_noise`` gives the noise of some seeds; a
    ``run`` of another program, whose images depend on each other, makes them itself.
    """

    model: LoadedModel[Denoiser | Guided]
    sampler: SamplerSetup
    classes: Classes = None
    batch: int | str = "auto"
    pixels: Pixels = to_pixels
    make_noise: Callable[[list[int]], NoiseSource] = Noise
    run: Run | None = None

    @classmethod
    def of(
        cls, loaded: LoadedModel[Denoiser], options: GenerationOptions, reporter: Reporter, classes: Classes = None
    ) -> "SamplingPipeline":
        """The pipeline that the options ask for; UsageError for options that do not go with the model."""
        model = apply_guidance(loaded, options, reporter.warn)
        return cls(model, set_up_sampler(loaded.header, options), classes, options.batch)

    @property
    def nfe(self) -> int | None:
        """NFE of each image; None of an adaptive solver."""
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

        ``auto`` begins with 64 and halves it whenever memory runs out, down to the chunk that the network always sees.
        OutOfMemory when not even that fits, Diverged when a number is not finite.
        """
        if self.run:
            yield from self.run(self, seeds)
            return
        done, room = 0, MemoryPlan.of(self.model.header.shape, self.model.device, self.batch)
        while done < len(seeds):
            some = list(seeds[done : done + room.images])
            labels = self.labels(some)
            make = partial(draw, self.model, self.sampler, self.make_noise(some), labels, room.cores, self.pixels)
            images = attempt(make, self.batch)
            if images is None:
                room = room.halved()
                continue
            yield SampleBatch(some, images, labels)
            done += len(some)


def draw(
    loaded: LoadedModel[Denoiser | Guided],
    setup: SamplerSetup,
    noise: NoiseSource,
    labels: Tensor | None,
    cores: int | None = None,
    pixels: Pixels = to_pixels,
) -> Tensor:
    """The images of some noise, uint8 [B, C, H, W] on the CPU as ``pixels`` rounds them; points stay float32 [B, D].

    Diverged when one is not finite, also between steps.
    ``cores`` of the processor work side by side, as many as torch uses when it is None; no bit depends on it.
    """
    model, device, shape = loaded.model, loaded.device, loaded.header.shape
    x = setup.sampler.begin(noise, shape).to(device)
    labels = None if labels is None else labels.to(device)
    with in_fixed_batches(model, chunk_size(shape, device), num_threads(device, cores)) as denoise:
        counted = CountNFE(denoise, cost(model))
        x = check_finite(last(setup.sampler(counted, x, noise, labels)).cpu(), "at the end of sampling")
    setup.nfe_used += counted.calls * len(noise)
    return pixels(x) if x.ndim == 4 else x.float()
