"""Images of a model, for ``sample``, ``fid`` and the pictures drawn during training."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.core.deterministic import in_fixed_batches
from cmtool.core.guidance import Guided, cost
from cmtool.core.noise import Noise, NoiseSource
from cmtool.core.pixels import check_finite, to_pixels
from cmtool.core.sampling.loops import CountNFE, last
from cmtool.errors import OutOfMemory, is_out_of_memory
from cmtool.files.model_format import LoadedModel
from cmtool.pipelines.sampler_setup import SamplerSetup

__all__ = ["Classes", "draw", "in_batches", "in_memory", "labels_of"]

Pixels = Callable[[Tensor], Tensor]
DEFAULT_BATCH = 64  # images at a time where nothing is said
Classes = int | Callable[[int], int] | None


def labels_of(seeds: Sequence[int], classes: int, klass: Classes = None) -> Tensor | None:
    """A label for every seed: the class asked for, or what a rule makes of the seed.

    Without either it is ``seed mod classes``, so that any run of seeds is balanced.
    """
    if not classes:
        return None
    rule = klass if callable(klass) else lambda seed: seed % classes if klass is None else klass
    return torch.tensor([rule(seed) for seed in seeds], dtype=torch.long)


def draw(
    loaded: LoadedModel[Denoiser | Guided],
    plan: SamplerSetup,
    noise: NoiseSource,
    labels: Tensor | None,
    cores: int | None = None,
    pixels: Pixels = to_pixels,
) -> Tensor:
    """The images of some noise, uint8 [B, C, H, W] on the CPU as ``pixels`` rounds them; points stay float32 [B, D].

    Diverged when one is not finite, be it on the way.
    ``cores`` of the processor work side by side, as many as torch uses when it is None; no bit depends on it.
    """
    model, device, shape = loaded.model, loaded.device, loaded.header.shape
    x = plan.sampler.begin(noise, shape).to(device)
    labels = None if labels is None else labels.to(device)
    with in_fixed_batches(model, chunk_size(shape, device), num_threads(device, cores)) as steadied:
        counted = CountNFE(steadied, cost(model))
        x = check_finite(last(plan.sampler(counted, x, noise, labels)).cpu(), "at the end of sampling")
    plan.nfe_used += counted.calls * len(noise)
    return pixels(x) if x.ndim == 4 else x.float()


def chunk_size(shape: tuple[int, ...], device: torch.device) -> int:
    """Images that one call of the network sees, whatever the batch: few enough for a core's cache, or to fill a GPU."""
    if len(shape) == 1:
        return 1024
    pixels, most = (1 << 13, 64) if device.type == "cpu" else (1 << 18, 256)
    return max(1, min(pixels // math.prod(shape[1:]), most))


def num_threads(device: torch.device, cores: int | None = None) -> int:
    """Pieces at a time."""
    return cores or torch.get_num_threads() if device.type == "cpu" else 1


def in_batches(
    loaded: LoadedModel[Denoiser | Guided],
    plan: SamplerSetup,
    seeds: Sequence[int],
    batch: int | str,
    klass: Classes = None,
    pixels: Pixels = to_pixels,
    make_noise: Callable[[list[int]], NoiseSource] = Noise,
) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
    """Seeds, images and labels, ``batch`` or a few more at a time; each image depends on its own seed alone.

    ``auto`` begins with 64 and halves it whenever memory runs out, down to the piece that the network always sees, so
    that no pixel changes. OutOfMemory when not even that fits.
    """
    header, done = loaded.header, 0
    room = MemoryPlan.of(header.shape, loaded.device, batch)
    while done < len(seeds):
        some = list(seeds[done : done + room.images])
        labels = labels_of(some, header.num_classes, klass)
        images = _attempt(partial(draw, loaded, plan, make_noise(some), labels, room.cores, pixels), batch)
        if images is None:
            room = room.halved()
            continue
        yield some, images, labels
        done += len(some)


def in_memory(loaded: LoadedModel[Denoiser | Guided], batch: int | str) -> int:
    """Images that ``in_batches`` makes at once, as long as memory lasts."""
    return MemoryPlan.of(loaded.header.shape, loaded.device, batch).images


@dataclass(frozen=True)
class MemoryPlan:
    """How many images are in memory: ``rounds`` of a piece on each of ``cores``; less would leave cores idle."""

    piece: int
    rounds: int
    cores: int

    @classmethod
    def of(cls, shape: tuple[int, ...], device: torch.device, batch: int | str) -> "MemoryPlan":
        one, cores = chunk_size(shape, device), num_threads(device)
        return cls(one, math.ceil((DEFAULT_BATCH if isinstance(batch, str) else batch) / (one * cores)), cores)

    @property
    def images(self) -> int:
        return self.piece * self.rounds * self.cores

    def halved(self) -> "MemoryPlan":
        """OutOfMemory where there is nothing to halve."""
        if self.rounds > 1:
            return replace(self, rounds=self.rounds // 2)
        if self.cores > 1:
            return replace(self, cores=self.cores // 2)
        raise OutOfMemory(
            f"not even {self.piece} images at a time fit into memory", "use a larger device: --device cpu"
        )


def _attempt(work: Callable[[], Tensor], batch: int | str) -> Tensor | None:
    """What ``work`` makes; None where memory ran out and the batch may shrink."""
    try:
        return work()
    except Exception as error:
        if isinstance(batch, int) or not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # here the failed attempt is no longer held by its traceback
    return None
