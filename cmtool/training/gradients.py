"""The gradient of a batch: the loss of each micro-batch, and the sum of their gradients in one order (exact mode)."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cmtool.core.deterministic import worker_pool
from cmtool.objectives.objective import Batch
from cmtool.training.ranks import ALONE, Ranks
from cmtool.training.state import State
from cmtool.training.summation_tree import RankSum, pieces_of, share_of, tree_sum

__all__ = [
    "BatchGradient",
    "Engine",
    "ExactGradients",
    "Feed",
    "LoopConfig",
    "MicrobatchLoss",
    "exact_gradients",
    "exact_rows",
    "micro_batch_of",
]


@dataclass(frozen=True)
class LoopConfig:
    """How steps are computed.

    ``seed``      of what the network itself draws, as for dropout
    ``clip``      largest norm of a gradient, 0 for none
    ``micro``     images at a time, None for the whole batch
    ``threads``   micro-batches at a time, on the processor
    ``autocast``  makes the context of a loss, for its precision
    ``ranks``     the processes that share the work
    ``parallel``  how they do: "exact", by the summation tree, or "ddp", by DistributedDataParallel, or "fsdp", by
                  FSDP2, for a state that is sharded
    ``poll``      numbers of this rank, such as that of a signal; the largest of any rank are those of the step
    """

    seed: int = 0
    clip: float = 0.0
    micro: int | None = None
    threads: int = 1
    autocast: Callable[[], AbstractContextManager] = nullcontext
    ranks: Ranks = ALONE
    parallel: str = "exact"
    poll: Callable[[], Sequence[int]] = tuple


def micro_batch_of(state: State, config: LoopConfig, size: int) -> int:
    """Images at a time: what was asked for, or what fits, of a batch of ``size`` images."""
    return min(config.micro or size, state.micro or size, size)


class Feed(Protocol):
    """Where batches of ``size`` images come from: ``get(n, rows)`` is that of image n, or some rows of it."""

    @property
    def size(self) -> int: ...

    def get(self, n: int, rows: range | None = None) -> Batch: ...


@dataclass(frozen=True)
class BatchGradient:
    """The mean loss of a batch of ``size`` images, and its gradient in each of ``parameters``; alike on all ranks."""

    parameters: list[nn.Parameter]
    loss: Tensor
    gradients: tuple[Tensor, ...]
    size: int


class Engine(Protocol):
    """Computes the gradient of a batch in two parts: what may fail on one rank alone, and what all ranks do together.

    Between both the ranks agree that they go on; after ``prepare`` failed on any of them, it is called again.
    """

    parameters: list[nn.Parameter]

    def prepare(self, micro: int, progress: float) -> None:
        """This rank's part of the batch that comes next, ``micro`` images at a time."""
        ...

    def reduce(self) -> BatchGradient:
        """The gradient of the whole batch."""
        ...


class MicrobatchLoss(nn.Module):
    """The share of a micro-batch in the mean loss of its batch.

    Its parameters are all that is trained and nothing else: no buffers, and no teacher. ``uses_rng`` says whether it
    draws random numbers, as dropout does, from torch's own generator.
    """

    def __init__(self, state: State, config: LoopConfig):
        super().__init__()
        trained = [*state.model.parameters(), *state.objective.trained()]
        self.trained = nn.ParameterList(p for p in trained if p.requires_grad)
        self.state, self.config, self.uses_rng = state, config, True
        self.device = self.trained[0].device

    def forward(self, microbatch: Batch, n: int, size: int, progress: float) -> Tensor:
        """The sum of the losses over ``size``; the first of these images is the n-th of the run."""
        if self.uses_rng:
            # dropout, too, is a function of (run seed, n)
            draws = self.state.draws * 0xC2B2AE3D27D4EB4F
            torch.manual_seed((self.config.seed * 0x9E3779B1 + draws + n) % 2**64)
        with self.config.autocast():
            microbatch = microbatch.to(self.device)
            loss = self.state.objective.loss(microbatch.condition(self.state.model), microbatch, progress)
            return loss.sum() / size


def exact_rows(ranks: Ranks, size: int, micro: int) -> range:
    """The images that a rank has of a batch, in exact mode: whole micro-batches."""
    leaves = share_of(ranks.rank, ranks.size, -(-size // micro))
    return range(leaves.start * micro, min(leaves.stop * micro, size))


class LastBatch:
    """A feed that has its last batch at hand when it is asked for it again."""

    def __init__(self, feed: Feed):
        self.feed, self.size = feed, feed.size
        self.asked: tuple[int, range] | None = None
        self.batch: Batch | None = None

    def get(self, n: int, rows: range | None = None) -> Batch:
        asked = n, rows or range(self.size)
        if self.batch is None or self.asked != asked:
            self.asked = self.batch = None
            self.batch, self.asked = self.feed.get(*asked), asked
        return self.batch


class Flat:
    """A loss and gradients as one vector for each dtype, which are added and sent as a whole."""

    def __init__(self, parameters: Sequence[Tensor]):
        self.shapes = [torch.Size([]), *(p.shape for p in parameters)]
        dtypes = [torch.float32, *(p.dtype for p in parameters)]
        self.groups = [[i for i, each in enumerate(dtypes) if each == dtype] for dtype in dict.fromkeys(dtypes)]
        self.empty = [parameters[0].new_empty(0, dtype=dtype) for dtype in dict.fromkeys(dtypes)]
        self.lengths = [sum(self.shapes[i].numel() for i in group) for group in self.groups]

    def join(self, loss: Tensor, gradients: Sequence[Tensor]) -> list[Tensor]:
        values = [loss.to(torch.float32), *gradients]
        return [torch.cat([values[i].reshape(-1) for i in group]) for group in self.groups]

    def split(self, vectors: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        found = {}
        for vector, group in zip(vectors, self.groups, strict=True):
            parts = vector.split([self.shapes[i].numel() for i in group])
            found |= {i: part.view(self.shapes[i]) for i, part in zip(group, parts, strict=True)}
        loss, *gradients = (found[i] for i in range(len(found)))
        return loss, tuple(gradients)


class ExactGradients:
    """Exact mode: each rank has its leaves of the summation tree, so that no bit depends on how many ranks there are.

    ``work`` is a ``map`` that computes some micro-batches at a time.
    """

    def __init__(self, state: State, feed: Feed, config: LoopConfig, loss: MicrobatchLoss, work: Callable[..., Any]):
        self.state, self.feed, self.config, self.loss, self.work = state, feed, config, loss, work
        self.parameters = list(loss.trained)
        self.flat = Flat(self.parameters)
        self.pieces: list[list[Tensor]] = []
        self.sums: list[RankSum] = []

    def prepare(self, micro: int, progress: float) -> None:
        self.pieces, self.sums, ranks, size = [], [], self.config.ranks, self.feed.size
        count = -(-size // micro)
        leaves, rows = share_of(ranks.rank, ranks.size, count), exact_rows(ranks, size, micro)
        if leaves:
            batch = self.feed.get(self.state.images, rows)
            shares = self._shares(batch.split(micro), range(rows.start, size, micro), progress)
            for piece in pieces_of(leaves, count):
                value = tree_sum(count, lambda node: next(shares) if len(node.leaves(count)) == 1 else None, piece)
                self.pieces.append(list(value or ()))
        if ranks.size > 1:
            self.sums = [RankSum(ranks, count, length) for length in self.flat.lengths]
            for i, (total, like) in enumerate(zip(self.sums, self.flat.empty, strict=True)):
                total.load([piece[i] for piece in self.pieces], like)
            self.pieces = []

    def reduce(self) -> BatchGradient:
        vectors = [total.sum() for total in self.sums] or self.pieces[0]
        self.pieces, self.sums = [], []
        return BatchGradient(self.parameters, *self.flat.split(vectors), self.feed.size)

    def _shares(self, microbatches: list[Batch], starts: range, progress: float) -> Iterator[list[Tensor]]:
        """Loss and gradient of each micro-batch in turn, as many at a time as there are threads."""
        at_once = max(self.config.threads, 1)
        for k in range(0, len(microbatches), at_once):
            chosen = slice(k, k + at_once)
            # when one of them fails, the others have ended before anything is done about it
            for share in list(self.work(self._attempt, microbatches[chosen], starts[chosen], [progress] * at_once)):
                if isinstance(share, Exception):
                    raise share
                yield share

    def _attempt(self, microbatch: Batch, start: int, progress: float) -> list[Tensor] | Exception:
        try:
            share = self.loss(microbatch, self.state.images + start, self.feed.size, progress)
            gradients = torch.autograd.grad(share, self.parameters, materialize_grads=True)
            return self.flat.join(share.detach(), gradients)
        except Exception as error:
            return error


@contextmanager
def exact_gradients(
    state: State, feed: Feed, config: LoopConfig, progress: float
) -> Generator[ExactGradients, None, None]:
    """The engine of exact mode, with its threads on the processor; an accelerator spreads the work itself."""
    loss, feed = MicrobatchLoss(state, config), LastBatch(feed)
    threads = 1 if loss.device.type != "cpu" else config.threads
    if threads > 1:
        rows = exact_rows(config.ranks, feed.size, micro_batch_of(state, config, feed.size)) or range(1)
        # all threads share one generator
        loss.uses_rng = uses_rng(state, feed.get(state.images, rows).select(slice(1)), progress)
        threads = 1 if loss.uses_rng else threads
    with worker_pool(threads) as work:
        yield ExactGradients(state, feed, config, loss, work)


def uses_rng(state: State, image: Batch, progress: float) -> bool:
    """Whether the loss draws random numbers of its own, as dropout does in whatever way it is written."""
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        state.objective.loss(image.condition(state.model), image, progress)
        return not torch.equal(before, torch.get_rng_state())
