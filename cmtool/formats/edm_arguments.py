"""The arguments that EDM's, ECT's and EDM2's networks were made with, as options of our backbones."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtool.errors import BadFile

__all__ = ["process_fields", "spec_of"]

WIDEST, LONGEST = 1 << 14, 16  # any number, any list; the widest published layer has 4096 channels, in 7 levels
MOST = {"num_blocks": 64, "dropout": 0.99}


@dataclass(frozen=True)
class Family:
    """A backbone; ``names`` gives an argument our name and its default."""

    backbone: str
    names: dict[str, tuple[str, Any]]


STACK = {
    "model_channels": ("model_channels", 192),
    "channel_mult": ("channel_mult", [1, 2, 3, 4]),
    "num_blocks": ("num_blocks", 3),
    "attn_resolutions": ("attn_resolutions", [32, 16, 8]),
    "dropout": ("dropout", 0.1),
}

FAMILIES = {
    "SongUNet": Family(
        "songunet",
        {
            "model_channels": ("model_channels", 128),
            "channel_mult": ("channel_mult", [1, 2, 2, 2]),
            "num_blocks": ("num_blocks", 4),
            "attn_resolutions": ("attn_resolutions", [16]),
            "dropout": ("dropout", 0.1),
            "embedding_type": ("embedding_type", "positional"),
            "channel_mult_noise": ("channel_mult_noise", 1),
            "encoder_type": ("encoder_type", "standard"),
            "decoder_type": ("decoder_type", "standard"),
            "resample_filter": ("resample_filter", [1, 1]),
            "augment_dim": ("augment_dim", 0),
            "channel_mult_emb": ("channel_mult_emb", 4),
        },
    ),
    "DhariwalUNet": Family(
        "dhariwal", {**STACK, "augment_dim": ("augment_dim", 0), "channel_mult_emb": ("channel_mult_emb", 4)}
    ),
    "Precond": Family(
        "edm2",
        {
            **STACK,
            "attn_resolutions": ("attn_resolutions", [16, 8]),
            "channels_per_head": ("num_head_channels", 64),
            "dropout": ("dropout", 0.0),
            "dropout_res": ("dropout_res", None),
            "channel_mult_noise": ("channel_mult_noise", None),
            "channel_mult_emb": ("channel_mult_emb", None),
            "label_balance": ("label_balance", 0.5),
            "concat_balance": ("concat_balance", 0.5),
            "res_balance": ("res_balance", 0.3),
            "attn_balance": ("attn_balance", 0.3),
            "clip_act": ("clip_act", 256),
        },
    ),
}

NONE = {"channel_mult_noise", "channel_mult_emb", "clip_act", "dropout_res"}  # of EDM2, which may be None

# Of the class around the network: read elsewhere, or without effect on what it computes.
OUTER = {"img_resolution", "img_channels", "label_dim", "model_type", "use_fp16", "label_dropout", "logvar_channels"}
OUTER |= {"sigma_min", "sigma_max", "sigma_data"}
# The process of VP and of the steps of iDDPM: the time of the lowest noise level does not condition a network.
PROCESS: dict[str, dict[str, Any]] = {
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000},
}


def spec_of(path: Path, described: dict[str, Any]) -> tuple[tuple[int, int, int], int, dict[str, Any]]:
    """Shape, classes and backbone of what ``persistence.describe`` found; BadFile for what our networks cannot be."""
    arguments, kind = described["arguments"], "Precond" if described["kind"] == "Precond" else described["inside"]
    if kind not in FAMILIES:
        raise BadFile(f"{path} holds a network '{kind}', which cmtool does not have")
    family, process = FAMILIES[kind], PROCESS.get(described["kind"], {})
    for key, value in arguments.items():
        if not (key in OUTER or key in process or key in family.names):
            raise BadFile(f"{path} has a network with {key}={str(value)[:40]}, which cmtool's cannot have")
    spec: dict[str, Any] = {"name": family.backbone}
    spec |= {ours: check_value(path, key, arguments.get(key, default)) for key, (ours, default) in family.names.items()}
    if described["kind"] == "iDDPMPrecond":
        spec["learn_variance"] = True
    side, channels, classes = (arguments.get(key, 0) for key in ("img_resolution", "img_channels", "label_dim"))
    if not all(type(n) is int and n < 1 << 20 for n in (side, channels, classes)) or side < 1 or channels < 1:
        raise BadFile(f"{path} does not say what images it makes")
    return (channels, side, side), max(classes, 0), spec


def process_fields(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    """How the network is conditioned on the noise level, as fields of ``Preconditioning``; BadFile for no process."""
    kind = described["kind"]
    if kind not in PROCESS:
        return {}
    said = {key: described["arguments"].get(key, default) for key, default in PROCESS[kind].items()}
    number = all(type(value) in (int, float) and math.isfinite(value) and value >= 0 for value in said.values())
    steps = said["M"]
    if not number or not 20 < steps <= WIDEST or steps != int(steps):
        raise BadFile(f"{path} describes a process that cannot be: {said}")
    if kind == "VPPrecond":
        if not 0 < said["beta_d"] < 1e4 or said["beta_min"] >= 1e4:
            raise BadFile(f"{path} describes a process that cannot be: {said}")
        ends = {"beta_min": float(said["beta_min"]), "beta_max": float(said["beta_min"] + said["beta_d"])}
        return {**ends, "time_scale": steps - 1.0}
    if not 0 < said["C_1"] < 1 or said["C_2"] > 1:
        raise BadFile(f"{path} describes a process that cannot be: {said}")
    return {"steps": int(steps), "cosine_shift": float(said["C_2"]), "beta_limit": 1.0 - said["C_1"]}


def check_value(path: Path, key: str, value: Any) -> Any:
    """The value, unless a network of it could not be imagined: BadFile."""
    if value is None and key in NONE:
        return None
    numbers: list[Any] = value if isinstance(value, list) else [value]
    most = MOST.get(key, WIDEST)
    fits = all(isinstance(n, str) or (isinstance(n, int | float) and 0 <= n <= most) for n in numbers)
    if not fits or len(numbers) > LONGEST:
        raise BadFile(f"{path} describes a network that cannot be: {key}={str(value)[:40]}")
    return float(numbers[0]) if key == "clip_act" else value
