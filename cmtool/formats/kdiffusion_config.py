"""A configuration of k-diffusion, as options of our backbone ``image_v1``."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtool.errors import BadFile

__all__ = ["KDiffusionConfig", "read_image_v1"]

KIND = "image_v1"
HINTS = 9  # numbers that say how a training image was changed
WIDEST, DEEPEST, LEVELS = 1 << 14, 64, 16
OTHERS = ("mapping_cond_dim", "unet_cond_dim", "cross_cond_dim")  # what else conditions a network: texts, images
GROWN = "skip_stages"  # levels that a network which is still growing does not use


@dataclass(frozen=True)
class KDiffusionConfig:
    """What a configuration says; a noise level that it leaves out is None."""

    backbone: dict[str, Any]
    shape: tuple[int, int, int]
    sigma_data: float
    sigma_min: float | None
    sigma_max: float | None


def read_image_v1(path: Path, config: Any) -> KDiffusionConfig:
    """The model of a configuration; BadFile where it is none, or one that ours cannot be."""
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict):
        raise BadFile(f"{path} has no configuration of k-diffusion", "save it again with a newer k-diffusion")
    if model.get("type") != KIND:
        raise BadFile(
            f"{path} holds k-diffusion's network '{str(model.get('type'))[:40]}', which cmtool does not have",
            f"it reads {KIND}",
        )
    for key in (*OTHERS, GROWN):
        if model.get(key):
            raise BadFile(f"{path} has a network with {key}={str(model[key])[:40]}, which cmtool's cannot have")
    said = ConfigReader(path, model)
    sides = said.numbers("input_size", 2)
    return KDiffusionConfig(
        backbone_options(said, min(sides)),
        (said.number("input_channels"), sides[0], sides[-1]),
        said.noise_level("sigma_data") or 1.0,
        said.noise_level("sigma_min"),
        said.noise_level("sigma_max"),
    )


@dataclass(frozen=True)
class ConfigReader:
    """A configuration's model; each of these raises BadFile for a value that no network could have."""

    path: Path
    model: dict[str, Any]

    def number(self, key: str, default: int | None = None) -> int:
        value = self.model.get(key, default)
        return value if type(value) is int and 0 < value <= WIDEST else self.wrong(key)

    def numbers(self, key: str, most: int = LEVELS, largest: int = WIDEST) -> list[int]:
        values: Any = self.model.get(key)
        fits = isinstance(values, list) and all(type(n) is int and 0 < n <= largest for n in values)
        return values if fits and 0 < len(values) <= most else self.wrong(key)

    def flags(self, key: str) -> list[bool]:
        values: Any = self.model.get(key)
        fits = isinstance(values, list) and all(isinstance(flag, bool) for flag in values)
        return values if fits else self.wrong(key)

    def noise_level(self, key: str) -> float | None:
        value = self.model.get(key)
        if value is None:
            return None
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        return float(value) if fits else self.wrong(key)

    def share(self, key: str) -> float:
        value = self.model.get(key, 0.0)
        return float(value) if isinstance(value, int | float) and 0 <= value < 1 else self.wrong(key)

    def wrong(self, key: str) -> Any:
        raise BadFile(f"{self.path} describes a network that cannot be: {key}={str(self.model.get(key))[:40]}")


def backbone_options(said: ConfigReader, side: int) -> dict[str, Any]:
    """Our options of the network for images whose shorter side is ``side``."""
    widths = said.numbers("channels")
    depths, looks = said.numbers("depths", len(widths), DEEPEST), said.flags("self_attn_depths")
    if not len(depths) == len(looks) == len(widths):
        said.wrong("self_attn_depths" if len(depths) == len(widths) else "depths")
    patch_size = said.number("patch_size", 1)
    return {
        "name": KIND,
        "mapping_dim": said.number("mapping_out"),
        "widths": widths,
        "depths": depths,
        "attn_resolutions": [side // patch_size >> level for level, look in enumerate(looks) if look],
        "patch_size": patch_size,
        "dropout": said.share("dropout_rate"),
        "augment_dim": HINTS if said.model.get("augment_wrapper", True) else 0,
        "learn_variance": bool(said.model.get("has_variance", False)),
    }
