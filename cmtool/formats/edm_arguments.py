"""The arguments that EDM's, ECT's and EDM2's networks were made with, as options of our backbones."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmtool.errors import BadFile

__all__ = ["spec_of"]

WIDEST, LONGEST = 1 << 14, 16  # any number, any list; the widest published layer has 4096 channels, in 7 levels
MOST = {"num_blocks": 64, "dropout": 0.99}


@dataclass(frozen=True)
class Family:
    """A backbone; ``names`` gives an argument our name and its default, ``fixed`` the only value that it may have."""

    backbone: str
    names: dict[str, tuple[str, Any]]
    fixed: dict[str, Any] = field(default_factory=dict)


STACK = {
    "model_channels": ("width", 192),
    "channel_mult": ("mults", [1, 2, 3, 4]),
    "num_blocks": ("blocks", 3),
    "attn_resolutions": ("attention", [32, 16, 8]),
    "dropout": ("dropout", 0.1),
}

FAMILIES = {
    "SongUNet": Family(
        "songunet",
        {
            "model_channels": ("width", 128),
            "channel_mult": ("mults", [1, 2, 2, 2]),
            "num_blocks": ("blocks", 4),
            "attn_resolutions": ("attention", [16]),
            "dropout": ("dropout", 0.1),
            "embedding_type": ("embedding", "positional"),
            "channel_mult_noise": ("waves", 1),
            "encoder_type": ("encoder", "standard"),
            "decoder_type": ("decoder", "standard"),
            "resample_filter": ("taps", [1, 1]),
            "augment_dim": ("augment", 0),
        },
        {"channel_mult_emb": 4},
    ),
    "DhariwalUNet": Family("dhariwal", {**STACK, "augment_dim": ("augment", 0)}, {"channel_mult_emb": 4}),
    "Precond": Family(
        "edm2",
        {
            **STACK,
            "attn_resolutions": ("attention", [16, 8]),
            "channels_per_head": ("head", 64),
            "dropout": ("dropout", 0.0),
        },
        {
            "channel_mult_noise": None,
            "channel_mult_emb": None,
            "label_balance": 0.5,
            "concat_balance": 0.5,
            "res_balance": 0.3,
            "attn_balance": 0.3,
            "clip_act": 256,
        },
    ),
}

# Of the class around the network: read elsewhere, without effect on what it computes, or fixed for our processes.
OUTER = {"img_resolution", "img_channels", "label_dim", "model_type", "use_fp16", "label_dropout", "logvar_channels"}
OUTER |= {"sigma_min", "sigma_max", "sigma_data"}
PROCESS = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5, "C_1": 0.001, "C_2": 0.008}


def spec_of(path: Path, told: dict[str, Any]) -> tuple[tuple[int, int, int], int, dict[str, Any]]:
    """Shape, classes and backbone of what ``persistent.describe`` told; BadFile for what our networks cannot be."""
    arguments, inside = told["arguments"], "Precond" if told["kind"] == "Precond" else told["inside"]
    if inside not in FAMILIES:
        raise BadFile(f"{path} holds a network '{inside}', which cmtool does not have")
    family = FAMILIES[inside]
    fixed = {**PROCESS, **family.fixed}
    for key, value in arguments.items():
        same = key in fixed and fixed[key] == value
        if not (same or key in OUTER or key in family.names):
            raise BadFile(f"{path} has a network with {key}={str(value)[:40]}, which cmtool's cannot have")
    spec: dict[str, Any] = {"name": family.backbone}
    spec |= {ours: sane(path, key, arguments.get(key, default)) for key, (ours, default) in family.names.items()}
    if told["kind"] == "iDDPMPrecond":
        spec["learn_variance"] = True
    side, channels, classes = (arguments.get(key, 0) for key in ("img_resolution", "img_channels", "label_dim"))
    if not all(type(n) is int and n < 1 << 20 for n in (side, channels, classes)) or side < 1 or channels < 1:
        raise BadFile(f"{path} does not say what images it makes")
    return (channels, side, side), max(classes, 0), spec


def sane(path: Path, key: str, value: Any) -> Any:
    """The value, unless a network of it could not be imagined: BadFile."""
    numbers = value if isinstance(value, list) else [value]
    most = MOST.get(key, WIDEST)
    fits = all(isinstance(n, str) or (isinstance(n, int | float) and 0 <= n <= most) for n in numbers)
    if not fits or len(numbers) > LONGEST:
        raise BadFile(f"{path} describes a network that cannot be: {key}={str(value)[:40]}")
    return value
