"""The files that OpenAI published, and what their tensors do not tell.

Architectures are known by their tensors, whatever the file is called. Whether a network was trained as a score model or
as a consistency model shows nowhere but in the name.
Source: the launch scripts of consistency_models and guided-diffusion.
"""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARCHITECTURES", "FILES", "File", "Hidden"]


@dataclass(frozen=True)
class Hidden:
    """The side of the images, options of the backbone, and the schedule of guided-diffusion."""

    side: int | None = None
    backbone: dict[str, Any] = field(default_factory=dict)
    schedule: str | None = None


@dataclass(frozen=True)
class File:
    """``jumps`` are the positions, on the Karras grid of ``levels`` levels, that its authors sampled best with."""

    data: str
    kind: str = "score"
    levels: int = 0
    jumps: tuple[int, ...] = ()


WIDE = {"head_width": 64}
COUNTED = {"heads": 4, "heads_upsample": 4}
LEGACY = {**WIDE, "qkv": "legacy"}

# By: is it guided-diffusion's, width, blocks of a level, mults, levels with attention.
ARCHITECTURES: dict[tuple[Any, ...], Hidden] = {
    (False, 192, 3, (1, 2, 3, 4), (1, 2, 3)): Hidden(64, WIDE),
    (False, 256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5)): Hidden(256, WIDE),
    (True, 192, 3, (1, 2, 3, 4), (1, 2, 3)): Hidden(64, {**WIDE, "qkv": "new"}, "cosine"),
    (True, 256, 2, (1, 1, 2, 3, 4), (2, 3, 4)): Hidden(128, {**COUNTED, "qkv": "legacy"}, "linear"),
    (True, 256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5)): Hidden(256, LEGACY, "linear"),
    (True, 256, 2, (0.5, 1, 1, 2, 2, 4, 4), (4, 5, 6)): Hidden(512, LEGACY, "linear"),
}

FILES = {
    "edm_imagenet64_ema": File("imagenet64"),
    "cd_imagenet64_l2": File("imagenet64", "consistency", 40, (22,)),
    "cd_imagenet64_lpips": File("imagenet64", "consistency", 40, (22,)),
    "ct_imagenet64": File("imagenet64", "consistency", 201, (106,)),
    "edm_bedroom256_ema": File("bedroom256"),
    "cd_bedroom256_l2": File("bedroom256", "consistency", 40, (18,)),
    "cd_bedroom256_lpips": File("bedroom256", "consistency", 40, (17,)),
    "ct_bedroom256": File("bedroom256", "consistency", 151, (67,)),
    "edm_cat256_ema": File("cat256"),
    "cd_cat256_l2": File("cat256", "consistency"),
    "cd_cat256_lpips": File("cat256", "consistency"),
    "ct_cat256": File("cat256", "consistency", 151, (62,)),
    "64x64_diffusion": File("imagenet64"),
    "128x128_diffusion": File("imagenet128"),
    "256x256_diffusion": File("imagenet256"),
    "256x256_diffusion_uncond": File("imagenet256"),
    "512x512_diffusion": File("imagenet512"),
    "lsun_bedroom": File("bedroom256"),
    "lsun_cat": File("cat256"),
    "lsun_horse": File("horse256"),
    "lsun_horse_nodropout": File("horse256"),
}
