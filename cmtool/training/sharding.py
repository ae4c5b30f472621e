"""FSDP2: each rank keeps a part of every weight, and sees the whole of a block only while that one computes.

The network of the model, of every average and of those that an objective keeps are sharded block by block. Around a
network everything stays as it was: the preconditioning is no part of what is sharded, so that noise levels keep their
precision.
Source: Zhao et al. 2023, arXiv 2304.11277; ``torch.distributed.fsdp.fully_shard``.
"""

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import EVERYWHERE, Guided
from cmtool.core.sharded_tensors import by_kind, full_tensor
from cmtool.objectives.objective import Objective
from cmtool.training.state import Sharding, State

if TYPE_CHECKING:  # to import them takes a second, and few runs are sharded
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

__all__ = ["blocks_of", "gather_model", "shard_state"]


def gather_model(model: nn.Module, sharding: Sharding, keep: bool = True) -> Denoiser | None:
    """A copy of a sharded model with whole weights, in the memory of the processor, where ``keep``; else None.

    All ranks call it. A weight at a time is put together, so that a rank that does not keep them needs no more than the
    largest.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        whole = full_tensor(parameter.detach())
        if keep:
            found[name] = whole.cpu()
    if not keep:
        return None
    plain = copy.deepcopy(cast(Denoiser, sharding.outline))
    plain.load_state_dict(found, strict=False, assign=True)
    for mine, theirs in zip(plain.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)
    return plain.cpu().requires_grad_(False).eval()


def shard_state(state: State, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Shard a state that has just been built, over all ranks of the default group, and move it to ``device``.

    ``dtype`` is that in which weights are sent and computed with, None for their own; gradients are added in float32.
    The optimizer goes on with the sharded weights. Weights of no dimension, which FSDP does not take, stay whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if state.optimizer.state:
        raise ValueError("the optimizer has moments already")
    outline = _outline(cast(Denoiser, state.model))
    before = [*state.model.parameters(), *state.objective.trained()]
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None, cast_forward_inputs=False
    )
    twice = state.objective.requirements.differentiates_twice
    averages = [average.model for average in (state.average, *state.others.values())]
    for module in (state.model, *averages, *_networks(state.objective)):
        _shard(cast(Denoiser, module).net, mesh, policy, twice)
    for module in (state.model, *averages, state.objective):
        module.to(device)
    now = [*state.model.parameters(), *state.objective.trained()]
    heir = dict(zip(map(id, before), now, strict=True))
    numbered = [heir[id(p)] for group in state.optimizer.param_groups for p in group["params"]]
    for group in list(state.optimizer.param_groups):
        group["params"], *rest = (part for (part,) in by_kind([heir[id(p)] for p in group["params"]]))
        for part in rest:
            state.optimizer.add_param_group({**group, "params": part})
    state.sharding = Sharding(outline, numbered)


def blocks_of(net: nn.Module) -> list[nn.Module]:
    """The parts of a network that are sharded one by one: what stands in its lists and dictionaries of modules.

    A list that computes by itself is a block; what is in none is sharded with the rest of the network.
    """
    found: list[nn.Module] = []
    for part in net.children():
        if _is_container(part):
            found += [each for each in part.children() if any(p.ndim for p in each.parameters())]
        else:
            found += blocks_of(part)
    return found


def _is_container(module: nn.Module) -> bool:
    own = type(module).forward
    return isinstance(module, nn.ModuleList | nn.ModuleDict) and own in (nn.ModuleList.forward, nn.ModuleDict.forward)


def _shard(net: nn.Module, mesh: "DeviceMesh", policy: "MixedPrecisionPolicy", twice: bool) -> None:
    """Shard one network; ``twice`` leaves its weights whole from the forward to the last backward pass."""
    from torch.distributed.fsdp import fully_shard

    scalars = {p for p in net.parameters() if not p.ndim}
    for part in (*blocks_of(net), net):
        fully_shard(part, mesh=mesh, reshard_after_forward=not twice, mp_policy=policy, ignored_params=scalars)
        if twice:
            cast("FSDPModule", part).set_reshard_after_backward(False)


def _networks(objective: Objective) -> list[Denoiser]:
    """The networks that an objective keeps, each once, but for those that must stay whole."""
    whole = list(objective.uneven())
    # outside the interval of guidance the weaker one is not called
    guided = [each for each in objective.modules() if isinstance(each, Guided) and each.interval != EVERYWHERE]
    whole += [cast(nn.Module, each.weak) for each in guided]
    kept = {id(part) for module in whole for part in module.modules()}
    return [each for each in objective.modules() if isinstance(each, Denoiser) and id(each) not in kept]


def _outline(model: Denoiser) -> Denoiser:
    """A copy whose parameters have no memory."""
    shapes = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, shapes)
