"""Lists of tensors of which some are sharded: each rank holds a part of these (DTensors), and all of the others.

Torch's ``foreach`` functions take either kind, but not both at once. Torch's own class is not imported here, since that
takes a second and few runs are sharded.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["ShardedTensor", "by_kind", "full_tensor", "scale_to_norm", "shard_like", "total_norm"]

T = TypeVar("T", bound=Tensor)


@runtime_checkable
class ShardedTensor(Protocol):
    """A tensor of which this rank holds a part; ``full_tensor()`` is called by all ranks, and gives each the whole."""

    def full_tensor(self) -> Tensor: ...

    def to_local(self) -> Tensor: ...


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor; for a sharded one all ranks call this, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, ShardedTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which all ranks have, sharded as ``like`` is; itself where it is sharded, or ``like`` is not."""
    if isinstance(tensor, ShardedTensor) or not isinstance(like, ShardedTensor):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor  # which takes a second

    sharded = cast(DTensor, like)
    here = tensor.to(sharded.to_local().device)
    return distribute_tensor(here, sharded.device_mesh, sharded.placements, src_data_rank=None)


def by_kind(*lists: Iterable[T]) -> Iterator[tuple[list[T], ...]]:
    """The same lists in two parts, those whose first tensor is sharded and the rest; empty parts are left out."""
    rows = list(zip(*lists, strict=True))
    for sharded in (True, False):
        chosen = [row for row in rows if isinstance(row[0], ShardedTensor) == sharded]
        if chosen:
            yield tuple(map(list, zip(*chosen, strict=True)))


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all numbers of all tensors; the same bits on all ranks."""
    norms = [full_tensor(nn.utils.get_total_norm(part)) for (part,) in by_kind(tensors)]
    return norms[0] if len(norms) == 1 else torch.stack(norms).norm()


def scale_to_norm(parameters: Sequence[nn.Parameter], most: float, norm: Tensor) -> None:
    """Scale the gradients of parameters, whose total norm is ``norm``, so that it is no more than ``most``."""
    for (part,) in by_kind(parameters):
        nn.utils.clip_grads_with_norm_(part, most, norm)
