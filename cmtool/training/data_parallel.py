"""The gradient of a batch by DistributedDataParallel, which sends parts of it while the rest is computed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cmtool.errors import Hint, OutOfMemory, Setting, UsageError, is_out_of_memory
from cmtool.objectives.objective import Batch
from cmtool.training.gradients import BatchGradient, Feed, LoopConfig, MicrobatchLoss
from cmtool.training.ranks import lost_rank
from cmtool.training.state import State
from cmtool.training.summation_tree import share_of

__all__ = ["DdpGradients", "ddp_gradients"]


class Reached(torch.autograd.Function):
    """A number as it is, which all parameters have a part in, of gradient 0.

    DDP waits for the gradient of each, and a loss need not use all: those of labels, where an image has none.
    """

    @staticmethod
    def forward(ctx: Any, number: Tensor, *parameters: Tensor) -> Tensor:
        return number.view_as(number)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *gradient, *[None] * (len(ctx.needs_input_grad) - 1)


class DdpGradients:
    """Each rank has an equal part of the batch, in a row, and sums are in the order of DDP's buckets.

    All ranks get one gradient, bit for bit; another number of ranks gives other last bits. The ranks agree that they go
    on before the last backward pass, in which gradients are sent: memory must not run out there. So the first
    micro-batch of each size is tried without sending.
    """

    def __init__(self, state: State, feed: Feed, config: LoopConfig):
        self.state, self.feed, self.config = state, feed, config
        self.loss = MicrobatchLoss(state, config)
        self.parameters, self.tried, self.settled = list(self.loss.trained), 0, False
        self.rows = share_of(config.ranks.rank, config.ranks.size, feed.size)
        self.ddp = DistributedDataParallel(self.loss)
        self._forget()

    def prepare(self, micro: int, progress: float) -> None:
        batch = self.feed.get(self.state.images, self.rows)
        *first, last = zip(batch.split(micro), range(self.rows.start, self.rows.stop, micro), strict=True)
        self._forget()
        with self.ddp.no_sync():
            if len(last[0]) > self.tried:
                for _ in range(2):  # the second one is added to the first, and needs more
                    self._share(*last, progress).backward()
                self.tried = len(last[0])
                self._forget()
            for microbatch, start in first:
                share = self._share(microbatch, start, progress)
                share.backward()
                self.total = self.total + share.detach()
        self.last, self.again = self._share(*last, progress), lambda: self._share(*last, progress)

    def reduce(self) -> BatchGradient:
        ranks = self.config.ranks
        try:
            self.last.backward()
            if not self.settled:
                # DDP sorts its buckets, for which ranks must meet, in the forward pass after its first backward pass
                with self.ddp.no_sync():
                    self.again()
                self.settled = True
        except RuntimeError as error:
            if is_out_of_memory(error):
                hint = Hint("a smaller {} needs less", Setting("micro_batch"))
                raise OutOfMemory("memory ran out while the ranks added their gradients", hint) from error
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                raise lost_rank(ranks.rank) from error
            raise
        loss = ranks.add(self.total + self.last.detach()) / ranks.size
        found = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters)
        self.last, self.again = self.total, lambda: self.total
        return BatchGradient(self.parameters, loss, found, self.feed.size)

    def _share(self, microbatch: Batch, start: int, progress: float) -> Tensor:
        """DDP takes the mean over ranks of what is to be their sum."""
        share = self.ddp(microbatch, self.state.images + start, self.feed.size, progress)
        return Reached.apply(share * self.config.ranks.size, *self.parameters)

    def _forget(self) -> None:
        self.last = self.total = torch.zeros((), device=self.loss.device)
        self.again = lambda: self.total
        for parameter in self.parameters:
            parameter.grad = None


@contextmanager
def ddp_gradients(state: State, feed: Feed, config: LoopConfig, progress: float) -> Generator[DdpGradients, None, None]:
    """The engine of DDP, in the default group of ``torch.distributed``; UsageError for a batch that is too small."""
    size = config.ranks.size
    if feed.size < size:
        raise UsageError(
            Hint("{} has fewer images than there are ranks, {}", Setting("batch", feed.size), str(size)),
            Hint("give a larger one, or use {}", Setting("parallel", "exact")),
        )
    yield DdpGradients(state, feed, config)
