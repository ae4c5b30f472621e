"""What the manifest of a stream of images says of all of them, so that a later call makes only what is missing."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import cmtool
from cmtool.pipelines.guidance import GuidedModel
from cmtool.pipelines.sampling_pipeline import SamplingPipeline
from cmtool.settings.sampling import GenerationOptions, SampleOptions

__all__ = ["image_facts"]

RECIPE = ("solver", "sampler", "schedule", "process", "convention", "gamma", "guidance", "guidance_interval")


def image_facts(pipeline: SamplingPipeline, options: GenerationOptions) -> dict[str, Any]:
    """The model, the noise levels, and ``recipe``, a digest of what else an image depends on beside seed and class."""
    recipe = {key: value for key, value in asdict(options).items() if key in RECIPE}
    recipe |= {"cmtool": cmtool.__version__}
    if isinstance(options, SampleOptions) and options.noise != "cmtool":
        recipe |= {"noise": options.noise, "device": pipeline.model.device.type}
        if options.noise != "edm":
            recipe |= {"seed": options.seed, "n": options.n, "batch": options.batch}
    if isinstance(pipeline.model, GuidedModel):
        recipe["guide"] = pipeline.model.guide.sha256
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    sigmas, model = pipeline.sampler.sigmas.tolist(), pipeline.model.header.sha256
    return {"sigmas": sigmas, "model": model, "recipe": digest[:16]}
