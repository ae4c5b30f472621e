"""Checkpoints of the CIFAR-10 consistency models of 2023, written by flax: ``edm_cifar10_ema``, ``checkpoint_80``.

The state of a training; of it the average is taken. The network is NCSN++ behind EDM's scalings, with the boundary if
it is a consistency model. Source: Song et al. 2023, arXiv 2303.01469, appendix C; layouts of flax: convolutions are
[h, w, in, out], linear maps [in, out].
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import BadFile, Hint, Setting
from cmtool.files.checkpoint import digest, load_weights
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.formats.common import KindOption, build_said, require, unknown_data, whole_network
from cmtool.formats.flax_msgpack import mentions_keys, unpack_flax
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, positive

__all__ = ["jcm"]

BLOCK = "ResnetBlockBigGANpp"
NAMES = {  # of flax's modules, which are numbered within each kind in the order in which they are used
    "Fourier": "GaussianFourierProjection",
    "Linear": "Dense",
    "Conv2d": "Conv",
    "GroupNorm": "GroupNorm",
    "Block": BLOCK,
    "Attention": "AttnBlockpp",
    "Filtered": "Downsample",
    "Strided": "Downsample",
}
TEACHER = "edm_cifar10_ema"  # the one published file that is no consistency model


def is_jcm(path: Path) -> bool:
    """MessagePack with an average and the blocks of NCSN++."""
    return path.is_file() and mentions_keys(path, "params_ema", f"{BLOCK}_0")


def read_jcm(
    path: Path,
    backbone: Mapping[str, Any],
    *,
    kind: KindOption = None,
    side: Annotated[int, Option("side of the images, in pixels", at_least(1, 1 << 16))] = 32,
    sigma_min: Annotated[float, Option("lowest noise level; of a consistency model its boundary", positive())] = 0.002,
    sigma_max: Annotated[float, Option("highest noise level", positive())] = 80.0,
) -> LoadedModel[Denoiser]:
    """The CIFAR-10 consistency models of 2023, as flax saved the state of their training (JAX).

    Formula: ``D(x, sigma)`` under EDM's preconditioning for ``sigma_data = 0.5``; ``D(x, sigma_min) = x`` of a
    consistency model
    Paper: Song et al. 2023, arXiv 2303.01469, appendix C.
    Use: for ``checkpoint_80`` and the like, and their teacher ``edm_cifar10_ema``. ``kind`` is known of the teacher
    and of states with a target network, and must be said of others; ``backbone`` may hold what the tensors do not
    show, such as ``attn_resolutions``.

    BadFile for a damaged file; UsageError for what must be said.
    """
    state = unpack_flax(path)
    tree = state.get("params_ema") if isinstance(state, dict) else None
    if not isinstance(tree, dict):
        raise BadFile(f"{path} holds no average of a network")
    kind = kind or ("consistency" if "target_params" in state else "score" if path.name == TEACHER else None)
    require(path, {} if kind else {"format.kind": "consistency"})
    assert kind
    with whole_network(path, "network"):
        spec = {**read_flax_sizes(tree), **backbone}
    shape = (3, side, side)
    net = build_said(spec, shape, 0)
    load_weights(path, net, rename_tensors(path, net, tree))
    model = Denoiser(net, Preconditioning(0.5, sigma_min if kind == "consistency" else 0.0))
    header = Header(
        kind=kind,
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data=unknown_data(shape),
        num_classes=0,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        method="jcm",
        average={"ema": "params_ema"},
        sha256=digest(path),
    )
    return LoadedModel(model, header, path)


def read_flax_sizes(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Width, levels and blocks, from the shapes of the residual blocks in their order."""
    width = len(tree["GaussianFourierProjection_0"]["W"])
    count = sum(name.startswith(f"{BLOCK}_") for name in tree)
    blocks = [tree[f"{BLOCK}_{i}"] for i in range(count)]
    kept = [block for block in blocks if not is_resizing(block)]
    levels = (count - len(kept)) // 2 + 1
    each = ((len(kept) - 2) // levels - 1) // 2
    mults = [block["Conv_0"]["kernel"].shape[-1] // width for block in kept[: levels * each : each]]
    filtered = "Conv2d_0" in tree["Downsample_0"] if levels > 1 else True
    if min(mults) < 1 or width < 2:
        raise ValueError("a level")
    taps = [1.0, 3.0, 3.0, 1.0] if filtered else [1.0, 1.0]
    return {
        "name": "ncsnpp",
        "model_channels": width,
        "channel_mult": mults,
        "num_blocks": each,
        "resample_filter": taps,
    }


def is_resizing(block: Mapping[str, Any]) -> bool:
    """It has a convolution in its skip connection though it keeps its channels."""
    return "Conv_2" in block and block["Conv_2"]["kernel"].shape[2] == block["Conv_2"]["kernel"].shape[3]


def rename_tensors(path: Path, net: nn.Module, tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """flax's arrays under the names of ``net``; BadFile for one that is missing or has no place."""
    counts: Counter[str] = Counter()
    tensors, used = {}, 0
    for place, part in enumerate(net.get_submodule("all_modules").children()):
        kind = NAMES[type(part).__name__]
        for name in part.state_dict():
            *inside, leaf = name.split(".")
            tensors[f"all_modules.{place}.{name}"] = leaf_of(path, tree, [f"{kind}_{counts[kind]}", *inside], leaf)
            used += 1
        counts[kind] += 1
    if used != arrays(tree):
        raise BadFile(
            f"{path} has {arrays(tree)} arrays, and its network {used}",
            Hint("say where it has attention: {}", Setting("backbone.attn_resolutions", "[8]")),
        )
    return tensors


def leaf_of(path: Path, tree: Mapping[str, Any], folders: list[str], leaf: str) -> Tensor:
    """One array, in our layout."""
    node: Any = tree
    for name in folders:
        node = node.get(name) if isinstance(node, dict) else None
    names = ("kernel", "scale", "weight") if leaf == "weight" else (leaf,)
    found = [node[name] for name in names if isinstance(node, dict) and isinstance(node.get(name), np.ndarray)]
    if not found or found[0].dtype.kind != "f":
        raise BadFile(f"{path} lacks the weight {'/'.join(folders)}/{leaf} of its network")
    tensor = torch.from_numpy(found[0].astype(np.float32))
    if leaf == "weight" and tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.t().contiguous() if leaf == "weight" and tensor.ndim == 2 else tensor


def arrays(tree: Any) -> int:
    return sum(arrays(value) for value in tree.values()) if isinstance(tree, dict) else 1


jcm = Format(read_jcm, is_jcm)
