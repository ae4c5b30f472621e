"""Images of a model: ``cmtool.sample`` and the command ``sample``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmtool.core.denoiser import Denoiser
from cmtool.files.model_format import LoadedModel
from cmtool.options.call import options_of_call
from cmtool.pipelines.classes import class_rule
from cmtool.pipelines.inputs import open_model
from cmtool.pipelines.noise_setup import edm_class, seeds_of, with_noise
from cmtool.pipelines.reporter import Reporter, Silence
from cmtool.pipelines.sampling_pipeline import SampleBatch, SamplingPipeline
from cmtool.settings import SampleOptions
from cmtool.training.devices import choose_device

__all__ = ["sample", "sampling_pipeline"]


def sampling_pipeline(loaded: LoadedModel[Denoiser], options: SampleOptions, reporter: Reporter) -> SamplingPipeline:
    """What draws the images that the options ask for; UsageError for options that do not go with the model."""
    rule = edm_class(loaded, options) or class_rule(loaded.header, options.klass, options.classes)
    return with_noise(SamplingPipeline.of(loaded, options, reporter, rule), options)


def sample(
    model: LoadedModel[Denoiser] | str | Path | None = None,
    *,
    n: int | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | str | None = None,
    noise: str | None = None,
    steps: int | None = None,
    sigmas: Sequence[float] | None = None,
    ts: Sequence[int] | None = None,
    class_: int | str | None = None,
    classes: str | Path | None = None,
    solver: str | Mapping[str, Any] | None = None,
    sampler: str | Mapping[str, Any] | None = None,
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
    return sampling_pipeline(loaded, options, reporter)(seeds_of(options))


def open_any_model(model: str | Path | None, options: SampleOptions, reporter: Reporter) -> LoadedModel[Denoiser]:
    """The model that a path or None means, on the device that was asked for."""
    return open_model(Path(model) if model is not None else None, choose_device(options.device), reporter)
