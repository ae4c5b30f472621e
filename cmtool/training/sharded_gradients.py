"""The gradient of a batch with sharded weights (FSDP2)."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from cmtool.core.sharded_tensors import ShardedTensor
from cmtool.errors import Hint, OutOfMemory, Setting, UsageError, is_out_of_memory
from cmtool.objectives.objective import Batch
from cmtool.training.gradients import BatchGradient, Feed, LoopConfig, MicrobatchLoss
from cmtool.training.ranks import lost_rank
from cmtool.training.state import State
from cmtool.training.summation_tree import share_of

__all__ = ["ShardedGradients", "sharded_gradients"]


@runtime_checkable
class ShardedPart(Protocol):
    """A part of a network that is sharded by itself: ``torch.distributed.fsdp.FSDPModule``."""

    def set_requires_gradient_sync(self, requires_gradient_sync: bool, *, recurse: bool = True) -> None: ...

    def reshard(self) -> None: ...


class ShardedGradients:
    """Each rank has an equal part of the batch, in a row; gradients are sent with the last of its micro-batches.

    Weights are sent in every pass, and no rank can fail and the others go on: the memory must be there.
    """

    def __init__(self, state: State, feed: Feed, config: LoopConfig):
        self.state, self.feed, self.config = state, feed, config
        self.loss = MicrobatchLoss(state, config)
        self.parameters, self.micro, self.progress = list(self.loss.trained), 1, 0.0
        self.rows = share_of(config.ranks.rank, config.ranks.size, feed.size)
        self.parts = [part for part in state.model.modules() if isinstance(part, ShardedPart)]
        self.batch: Batch | None = None

    def prepare(self, micro: int, progress: float) -> None:
        self.batch, self.micro, self.progress = self.feed.get(self.state.images, self.rows), micro, progress
        self._forget()  # FSDP would add to what the optimizer has used

    def reduce(self) -> BatchGradient:
        batch, self.batch = self.batch, None
        assert batch is not None
        microbatches, total = batch.split(self.micro), torch.zeros((), device=self.loss.device)
        with _explained(self.config.ranks.rank):
            for k, (microbatch, start) in enumerate(zip(microbatches, self.rows[:: self.micro], strict=True), 1):
                total = total + self._backward(microbatch, start, k == len(microbatches))
        return BatchGradient(self.parameters, self.config.ranks.add(total), self._take(), self.feed.size)

    def check(self, progress: float) -> None:
        """One image a rank forward and back; UsageError for a method, or a network, that cannot be sharded."""
        image, self.progress = self.feed.get(self.state.images, self.rows[:1]), progress
        try:
            with _explained(self.config.ranks.rank):
                self._backward(image, self.rows.start, True)
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            text = f"this method, or this network, cannot be trained with sharded weights: {reason}"
            raise UsageError(text, Hint("use {}", Setting("parallel", "ddp"))) from error
        finally:
            self._forget()

    def _backward(self, microbatch: Batch, start: int, last: bool) -> Tensor:
        """Add the gradient of a micro-batch to those before it; its share in the loss.

        FSDP takes the mean over the ranks of what is to be their sum.
        """
        for part in self.parts:
            part.set_requires_gradient_sync(last, recurse=False)
        share = self.loss(microbatch, self.state.images + start, self.feed.size, self.progress)
        (share * self.config.ranks.size).backward()
        if self.state.objective.requirements.differentiates_twice:
            for part in self.parts:
                part.reshard()
        return share.detach()

    def _take(self) -> tuple[Tensor, ...]:
        """The gradients, 0 for what was not used; those of whole weights are added up here."""
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        whole = [i for i, gradient in enumerate(found) if not isinstance(gradient, ShardedTensor)]
        if whole:
            ranks, joined = self.config.ranks, torch.cat([found[i].reshape(-1) for i in whole])
            parts = (ranks.add(joined) / ranks.size).split([found[i].numel() for i in whole])
            for i, part in zip(whole, parts, strict=True):
                found[i] = part.view(found[i].shape)
        return tuple(found)

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


@contextmanager
def _explained(rank: int) -> Iterator[None]:
    """Around passes that also send: what ends all ranks, in words."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            hint = Hint("a smaller {} needs less", Setting("micro_batch"))
            raise OutOfMemory("memory ran out in a step with sharded weights", hint) from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise lost_rank(rank) from error
        raise


@contextmanager
def sharded_gradients(
    state: State, feed: Feed, config: LoopConfig, progress: float
) -> Generator[ShardedGradients, None, None]:
    """The engine of FSDP, for a state that ``sharding.shard_state`` has sharded; UsageError where it cannot be."""
    size = config.ranks.size
    if feed.size % size:
        raise UsageError(
            Hint("{} cannot be shared equally by {} ranks", Setting("batch", feed.size), str(size)),
            Hint("give {}, or use {}", Setting("batch", -(-feed.size // size) * size), Setting("parallel", "ddp")),
        )
    engine = ShardedGradients(state, feed, config)
    engine.check(progress)
    yield engine
