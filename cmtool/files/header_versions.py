"""Headers of earlier formats in the words of the present one, and the tensors of such files under their names.

Format 1 had other names for fields, for options of commands, networks and methods, and counted levels where networks
now take the resolutions that have attention. Nothing of what such a file computes changes.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, TypeVar

__all__ = ["FORMAT", "upgrade_header", "upgrade_tensors"]

T = TypeVar("T")

FORMAT = 2

FIELDS = {"conditional": "num_classes", "levels": "sigmas"}
OPTIONS = {
    "drop_labels": "label_dropout",
    "clip": "grad_clip",
    "decay": "lr_schedule",
    "guide": "guidance_model",
    "levels": "sigmas",
    "spacing": "schedule",
    "probes": "hutchinson_probes",
}
METHOD = {"mean": "P_mean", "std": "P_std"}
METHODS = {"ct": METHOD | {"first": "s0", "last": "s1"}, "ict": METHOD | {"first": "s0", "last": "s1"}}
EMA = {"track": "ema"}

STACK = {"width": "model_channels", "mults": "channel_mult", "blocks": "num_blocks", "attention": "attn_resolutions"}
EDM = {
    "embedding": "embedding_type",
    "encoder": "encoder_type",
    "decoder": "decoder_type",
    "taps": "resample_filter",
}
BACKBONES = {
    "unet": STACK | {"patch": "patch_size"},
    "adm": STACK
    | {
        "heads": "num_heads",
        "heads_upsample": "num_heads_upsample",
        "head_width": "num_head_channels",
        "scale_shift": "use_scale_shift_norm",
        "updown": "resblock_updown",
        "resample_conv": "conv_resample",
    },
    "dhariwal": STACK | {"head": "num_head_channels"},
    "edm2": STACK | {"head": "num_head_channels"},
    "songunet": STACK | EDM | {"waves": "channel_mult_noise"},
    "ncsnpp": STACK | EDM | {"fourier": "fourier_scale", "rescale": "skip_rescale", "conditional": "noise_conditional"},
    "ddpmpp": STACK,
    "ddpm": STACK | {"conditional": "noise_conditional", "resample_conv": "conv_resample"},
    "image_v1": {"wide": "mapping_dim", "patch": "patch_size", "attention": "attn_resolutions"},
    "mlp": {"width": "hidden_dim"},
    "dit": {"width": "hidden_dim", "heads": "num_heads", "patch": "patch_size"},
}
# One layer took either condition of a network.
CONDITION_LAYERS = {
    "augment_dim": {"hints": "map_augment"},
    "target_dim": {"hints": "map_target", "map_augment": "map_target", "mapping_cond": "map_target"},
}
COUNTED_LEVELS = ["unet", "adm", "ncsnpp", "ddpmpp", "ddpm", "image_v1"]  # the others took resolutions


def upgrade_header(document: dict[str, Any]) -> dict[str, Any]:
    """A header of an earlier format as one of ``FORMAT``; any other, and what makes no sense in it, as it is."""
    if document.get("format") != 1:
        return document
    found = {**_rename(document, FIELDS), "format": FORMAT}
    data = found.get("data")
    shape = data.get("shape") if isinstance(data, dict) else None
    _change(found, "backbone", lambda spec: _backbone(spec, shape))
    _change(found, "backbone", lambda spec: _rename(spec, {"augment": _condition(document)}))
    _change(found, "average", _average)
    _change(found, "options", lambda options: _options(options, shape))
    return found


def upgrade_tensors(document: Mapping[str, Any], tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of a file with this header, as it stands there, under the names that its network has today."""
    if document.get("format") != 1:
        return dict(tensors)
    layers = CONDITION_LAYERS[_condition(document)]
    return {".".join(layers.get(part, part) for part in name.split(".")): tensor for name, tensor in tensors.items()}


def _condition(document: Mapping[str, Any]) -> str:
    """What ``augment`` numbers of a network stood for: the noise level that a flow map steps to, or augmentation."""
    preconditioning = document.get("preconditioning")
    flow_map = isinstance(preconditioning, dict) and preconditioning.get("jumps") is True
    return "target_dim" if flow_map else "augment_dim"


def _options(options: dict[str, Any], shape: Any) -> dict[str, Any]:
    """The resolved options of the command that trained the model."""
    found = _rename(options, OPTIONS)
    _change(found, "backbone", lambda spec: _backbone(spec, shape))
    _change(found, "method", lambda spec: _rename(spec, _table(METHODS, spec, METHOD)))
    return found


def _backbone(spec: dict[str, Any], shape: Any) -> dict[str, Any]:
    """The options of a network for data of this shape, with resolutions in place of levels."""
    found = _rename(spec, _table(BACKBONES, spec, {}))
    levels = found.get("attn_resolutions")
    if spec.get("name") in COUNTED_LEVELS and _whole(levels) and _whole(shape) and len(shape) == 3:
        found["attn_resolutions"] = [_finest(found, shape) >> min(level, 63) for level in levels]
    return found


def _finest(spec: Mapping[str, Any], shape: list[int]) -> int:
    """The side of the finest feature maps: of the image in patches, whose size ``unet`` chose by the image."""
    side = min(shape[1:])
    default = 2 if spec["name"] == "unet" and side >= 32 and side % 8 == 0 else 1
    patch_size = spec.get("patch_size")
    return side // (patch_size if isinstance(patch_size, int) and patch_size > 0 else default)


def _average(average: dict[str, Any]) -> dict[str, Any]:
    """How weights were averaged, and of which files the average was made."""
    found = _rename(average, EMA)
    parts = found.get("made_of")
    if isinstance(parts, list):
        found["made_of"] = [_rename(part, EMA) if isinstance(part, dict) else part for part in parts]
    return found


def _rename(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in document.items()}


def _table(
    tables: Mapping[str, Mapping[str, str]], spec: Mapping[str, Any], otherwise: Mapping[str, str]
) -> Mapping[str, str]:
    """The names for the plugin that a spec names."""
    name = spec.get("name")
    return tables.get(name, otherwise) if isinstance(name, str) else otherwise


def _change(document: dict[str, Any], key: str, convert: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace a mapping inside the document, where there is one."""
    if isinstance(document.get(key), dict):
        document[key] = convert(document[key])


def _whole(values: Any) -> TypeGuard[list[int]]:
    """A list of whole numbers from 0 on."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
